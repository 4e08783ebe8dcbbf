"""The credentials of all servers, and what they need of the house."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from callgate.config import OAuth, Provider, Server, Settings
from callgate.egress import Guard
from callgate.errors import ConfigError, UpstreamError
from callgate.types import Principal

from .credential import Credential, Place
from .grants import way_of
from .presented import Presented

if TYPE_CHECKING:
    from .signing import Assertions

log = logging.getLogger("callgate.identity")

Clock = Callable[[], float]


class Keys:
    """The keys of the token service, which are read, or made, when something is first signed."""

    def __init__(self, data_dir: Path, oauth: OAuth | None, clock: Clock = time.time) -> None:
        self._folder = data_dir / "oauth" / "keys"
        self._rotation = (oauth or OAuth()).key_rotation
        self._clock = clock
        self._assertions: Assertions | None = None

    def ready(self) -> Assertions:
        if self._assertions is None:
            from .signing import Assertions  # brings cryptography: nobody without `auth` waits for it

            self._assertions = Assertions(self._folder, self._rotation, self._clock)
        return self._assertions


async def nobody(user: str, provider: str) -> str | None:
    """For houses in which nobody signs in."""
    return None


class Circle(msgspec.Struct, frozen=True):
    """What credentials need of the house: ``issuer`` is what callgate calls itself in what it signs (empty: not yet
    known), ``id_token`` what a provider (by its name) issued for the user with a key, ``guard`` says where URLs that
    strangers name may lead.
    """

    issuer: Callable[[], str]
    keys: Keys
    providers: Callable[[], Mapping[str, Provider]] = dict
    id_token: Callable[[str, str], Awaitable[str | None]] = nobody
    guard: Guard = Guard()


class Credentials:
    """Makes one ``Credential`` for each server with ``auth``. ``tokens`` are those by which callers were recognised."""

    def __init__(self, circle: Circle, clock: Clock = time.time) -> None:
        self._circle = circle
        self._keys = circle.keys
        self.tokens = Presented()
        self._clock = clock
        self._made: weakref.WeakSet[Credential] = weakref.WeakSet()

    def of(self, server: Server, resolve: Callable[[str], Awaitable[str]]) -> Credential | None:
        """The credential for a server; ``None`` where its configuration wants none, or grants of users."""
        if server.auth.type in ("none", "oauth") or server.url is None:
            return None
        warn_of(server.url)
        made = Credential(Place(server.url, server.auth, resolve), self, self._clock)
        self._made.add(made)
        return made

    def forget(self, principal: str) -> None:
        """The principal with this key was revoked: what was obtained for it is not used again."""
        self.tokens.forget(principal)
        for credential in tuple(self._made):
            credential.forget(principal)

    def forget_all(self) -> None:
        """Who may come in has changed: everybody is asked for anew."""
        self.tokens.clear()
        for credential in tuple(self._made):
            credential.forget_all()

    async def jwks(self) -> dict[str, Any]:
        """The keys with which servers check what they are shown."""
        return {"keys": await self._keys.ready().published()}

    # What a credential asks for.

    @property
    def issuer(self) -> str:
        if not (issuer := self._circle.issuer()):
            raise UpstreamError("cannot be told who calls: the gateway does not listen yet")
        return issuer

    async def sign(self, claims: Mapping[str, Any]) -> str:
        return await self._keys.ready().sign(claims)

    def presented(self, who: Principal) -> str | None:
        found = self.tokens.get(who.proof, self._clock())
        return None if found is None else found.decode("ascii")

    @property
    def guard(self) -> Guard:
        return self._circle.guard

    def provider(self, name: str) -> Provider:
        found = self._circle.providers().get(name)
        if found is None:
            raise ConfigError(f"relies on the identity provider `{name}`, which is not configured")
        return found

    async def id_token(self, user: str, provider: str) -> str | None:
        return await self._circle.id_token(user, provider)


def warn_of(url: str) -> None:
    """Tokens in the clear are warned of."""
    at = urlsplit(url)
    if at.scheme == "http" and at.hostname not in ("localhost", "127.0.0.1", "::1"):
        log.warning("callers are shown to %s without encryption: whoever sits between can be them", at.hostname)


def exchanges_callers(settings: Settings) -> bool:
    """Whether the `auth` of any server exchanges what callers present, so that it must be at hand."""
    return any(
        each.auth.subject_token == "caller" or (each.auth.type == "on_behalf_of" and each.auth.subject_token is None)
        for each in settings.servers.values()
    )


def vouched_for(settings: Settings) -> bool:
    """Whether any server wants what identity providers issue for people who sign in."""
    return any(each.auth.type == "enterprise" and not each.auth.assertion_file for each in settings.servers.values())


def signs(settings: Settings) -> bool:
    """Whether anything is signed for a server or for its issuer, so that the keys must be published."""
    return any(
        each.auth.type in ("assertion", "exchange", "on_behalf_of")
        or (each.auth.type != "none" and not each.auth.client_key and way_of(each.auth) == "private_key_jwt")
        for each in settings.servers.values()
    )

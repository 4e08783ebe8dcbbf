"""The credentials of all servers, and what they need of the house."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from callgate.config.model import OAuth, Server, Settings
from callgate.errors import UpstreamError
from callgate.types import Principal

from .credential import Credential, Place
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


class Credentials:
    """Makes one ``Credential`` for each server with ``auth``. ``issuer`` says what callgate calls itself in what it
    signs (empty: not yet known), ``presented`` holds the tokens by which callers were recognised.
    """

    def __init__(
        self, issuer: Callable[[], str], keys: Keys, presented: Presented | None = None, clock: Clock = time.time
    ) -> None:
        self._issuer = issuer
        self._keys = keys
        self.tokens = presented or Presented()
        self._clock = clock
        self._made: weakref.WeakSet[Credential] = weakref.WeakSet()

    def of(self, server: Server, resolve: Callable[[str], Awaitable[str]]) -> Credential | None:
        """The credential for a server; ``None`` where its configuration wants none."""
        if server.auth.type == "none" or server.url is None:
            return None
        at = urlsplit(server.url)
        if at.scheme == "http" and at.hostname not in ("localhost", "127.0.0.1", "::1"):
            log.warning("callers are shown to %s without encryption: whoever sits between can be them", at.hostname)
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
            credential.kept.clear()

    async def jwks(self) -> dict[str, Any]:
        """The keys with which servers check what they are shown."""
        return {"keys": await self._keys.ready().published()}

    # What a credential asks for.

    @property
    def issuer(self) -> str:
        if not (issuer := self._issuer()):
            raise UpstreamError("cannot be told who calls: the gateway does not listen yet")
        return issuer

    async def sign(self, claims: Mapping[str, Any]) -> str:
        return await self._keys.ready().sign(claims)

    def presented(self, who: Principal) -> str | None:
        found = self.tokens.get(who.proof, self._clock())
        return None if found is None else found.decode("ascii")


def exchanges_callers(settings: Settings) -> bool:
    """Whether the `auth` of any server exchanges what callers present, so that it must be at hand."""
    return any(
        each.auth.subject_token == "caller" or (each.auth.type == "on_behalf_of" and each.auth.subject_token is None)
        for each in settings.servers.values()
    )


def signs(settings: Settings) -> bool:
    """Whether anything is signed for a server, so that the keys must be published."""
    return any(
        each.auth.type in ("assertion", "exchange", "on_behalf_of")
        or (each.auth.type == "client_credentials" and not each.auth.client_secret)
        for each in settings.servers.values()
    )

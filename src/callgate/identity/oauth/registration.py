"""Applications that register themselves (RFC 7591). Anybody may, so there is a bound on how many and for how long.

A registration that nobody signs in with ends after a day; each sign-in prolongs it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from callgate.identity.claims import read_object
from callgate.identity.secrets.held import Held, Hold

from .apps import REGISTERED, Application
from .described import REGISTRATION, Unfit, application
from .problem import TokenError

LARGEST = 32 * 1024
#: Seconds that a registration lasts: without any sign-in, and after one.
UNUSED, USED = 86400.0, 90 * 86400.0
#: Registrations at the same time: of one address, and of all.
OF_ADDRESS, OF_ALL = 20, 1000
_KIND, _LIST, _EVERYTHING = "registration", "registrations", "all"


class Entry(msgspec.Struct, frozen=True):
    """What the list says of one registration: from which address (a digest), and until when it counts."""

    address: str
    expires: float


class Listed(msgspec.Struct, frozen=True):
    entries: dict[str, Entry]


class Registrations:
    """Owns the registrations, each sealed, and the list by which they are counted."""

    def __init__(self, hold: Hold, clock: Callable[[], float]) -> None:
        self._apps: Held[Application] = hold(_KIND, Application)
        self._list: Held[Listed] = hold(_LIST, Listed)
        self._clock = clock

    async def find(self, id: str) -> Application | None:
        return await self._apps.get(id)

    async def register(self, said: Mapping[str, Any], address: str) -> tuple[Application, str]:
        """The new application, and its secret where it has one. Raises Unfit; TokenError when there are too many."""
        secret = secrets.token_urlsafe(32)
        app = application(REGISTERED + secrets.token_urlsafe(18), said, REGISTRATION)
        if any(method.startswith("client_secret") for method in app.methods):
            app = msgspec.structs.replace(app, secret_sha256=hashlib.sha256(secret.encode()).hexdigest())
        until = self._clock() + UNUSED
        await self._count(app.name, Entry(_digest(address), until))
        await self._apps.put(app.name, app, app.subject, until)
        return app, secret if app.secret_sha256 is not None else ""

    async def used(self, app: Application) -> None:
        """Somebody signed in with it: it stays."""
        until = self._clock() + USED
        await self._apps.put(app.name, app, app.subject, until)

        def prolong(before: Listed) -> Listed:
            entry = before.entries.get(app.name)
            return before if entry is None else Listed({**before.entries, app.name: Entry(entry.address, until)})

        await self._list.change(_EVERYTHING, prolong)

    async def drop(self, id: str) -> None:
        """Take a registration back. What it was given is to be revoked by the caller."""
        await self._apps.drop(id)
        await self._list.change(
            _EVERYTHING, lambda before: Listed({name: each for name, each in before.entries.items() if name != id})
        )

    async def _count(self, id: str, entry: Entry) -> None:
        now, refused = self._clock(), False

        def add(before: Listed) -> Listed:
            nonlocal refused
            current = {name: each for name, each in before.entries.items() if each.expires > now}
            same = sum(each.address == entry.address for each in current.values())
            refused = same >= OF_ADDRESS or len(current) >= OF_ALL
            return Listed(current if refused else {**current, id: entry})

        if await self._list.change(_EVERYTHING, add) is None:
            await self._list.put(_EVERYTHING, Listed({id: entry}), _LIST, now + 10 * 365 * 86400.0)
        if refused:
            raise TokenError("temporarily_unavailable", "Too many registrations; try again later.", 429)


def read_registration(kind: str, body: bytes) -> dict[str, Any]:
    """The request of a registration. Raises Unfit or TokenError."""
    if len(body) > LARGEST:
        raise TokenError("invalid_client_metadata", f"The body is larger than {LARGEST} bytes.", 413)
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise TokenError("invalid_client_metadata", "The Content-Type must be application/json.", 415)
    try:
        return read_object(body)
    except ValueError:
        raise Unfit("The body is not a JSON object.") from None


def registered_answer(app: Application, secret: str, now: float) -> dict[str, Any]:
    """What the application is told (RFC 7591, section 3.2.1): as it was taken down, not as it was sent."""
    answer: dict[str, Any] = {
        "client_id": app.name,
        "client_id_issued_at": int(now),
        "client_name": app.title,
        "redirect_uris": list(app.redirect_uris),
        "grant_types": sorted(app.grants),
        "response_types": ["code"],
        "token_endpoint_auth_method": app.methods[0],
    }
    if secret:
        answer |= {"client_secret": secret, "client_secret_expires_at": 0}
    if app.scopes is not None:
        answer["scope"] = " ".join(app.scopes)
    if app.jwks_uri is not None:
        answer["jwks_uri"] = app.jwks_uri
    if app.jwks is not None:
        answer["jwks"] = app.jwks
    return answer


def _digest(address: str) -> str:
    return hashlib.sha256(address.encode()).hexdigest()[:16]

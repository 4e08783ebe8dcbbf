"""Refresh tokens: each can be used once and is replaced by the next (RFC 9700, section 4.14; rule AST-3).

A token is ``cgr_FAMILY.NUMBER.CODE``. Of a family one row is kept, with the number of the token that counts and the
key of the codes. So a token that was used before is told from one that somebody made up, however old it is: the first
ends the family, the second does nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping

import msgspec

from callgate.identity.s256 import base64url
from callgate.identity.secrets.held import Held, Hold

from .apps import Application
from .binding import check_refresh
from .grants import Grant, Rules
from .problem import TokenError, invalid_grant
from .request import Form, needed
from .sessions import Session, Standing, grant

#: Where an answer was lost, a client that proves itself may repeat its request for so long (seconds). One that
#: proves nothing may not: there it could be a thief who asks again.
GRACE = 20.0
#: After the sign-in a person has to sign in again, however often the token was used: callgate is not told of accounts
#: that the provider closes, nor of roles that it takes away. A longer ``oauth.refresh_ttl`` moves it.
OLDEST = 30 * 86400.0
_TOKEN = re.compile(r"cgr_([A-Za-z0-9_-]{32})\.([1-9][0-9]{0,8})\.([A-Za-z0-9_-]{43})")


class Kept(msgspec.Struct, frozen=True):
    """A family: what it is for, the number of the token that counts, when that was given out, and the key of the
    codes. ``bound`` is the confirmation (RFC 7800) that each use must show.
    """

    session: Session
    number: int
    since: float
    key: bytes
    bound: dict[str, str] = msgspec.field(default_factory=dict)


class Refreshing:
    """Owns the families of refresh tokens."""

    def __init__(self, hold: Hold, standing: Standing, clock: Callable[[], float]) -> None:
        self._held: Held[Kept] = hold("refresh", Kept)
        self._ttl = standing.refresh_ttl
        self._standing = standing
        self._clock = clock

    async def begin(self, secret: str, session: Session, app: Application, confirmation: Mapping[str, str]) -> str:
        """The first refresh token of a family; ``secret`` is what the id of the family is a digest of."""
        now = self._clock()
        # Applications with a secret prove themselves at each use; the others prove the key that they began with.
        bound = dict(confirmation) if app.public else {}
        kept = Kept(session, 1, now, secrets.token_bytes(32), bound)
        await self._held.put(secret, kept, session.who.key, self._until(kept))
        return _written(secret, kept)

    async def refresh(self, app: Application, form: Form, shown: Mapping[str, str], rules: Rules) -> Grant:
        """The next access token, with the next refresh token. Raises TokenError."""
        name, number, code = _parts(needed(form, "refresh_token"))
        before = await self._held.get(name)
        if before is None or not hmac.compare_digest(code, _code(before.key, name, number)):
            raise _refused()
        if before.session.client != app.name:
            raise _refused()
        check_refresh(before.bound, shown)
        await self._check_standing(name, before)
        proves = bool(before.bound) or not app.public
        if not self._counts(before, number, proves):
            raise await self._reused(name, before)
        # What is refused here costs the client nothing: its token still counts.
        made = grant(before.session, app, form, rules)
        after = await self._rotate(name, number, proves, self._until(before))
        if after is None:
            raise await self._reused(name, before)
        return msgspec.structs.replace(made, answer={"refresh_token": _written(name, after)})

    async def find(self, token: str) -> tuple[str, Kept] | None:
        """The family of a refresh token that counts now, with its secret name."""
        found = _TOKEN.fullmatch(token)
        if found is None:
            return None
        name, number, code = found[1], int(found[2]), found[3]
        kept = await self._held.get(name)
        if kept is None or not hmac.compare_digest(code, _code(kept.key, name, number)) or kept.number != number:
            return None
        return name, kept

    async def end(self, secret: str, session: Session) -> None:
        """No token of the family holds any longer, neither what was exchanged from one."""
        # As long as a refresh token could live that is written this very moment.
        until = self._clock() + max(self._ttl, 3600.0) + 1
        await asyncio.to_thread(self._standing.revocations.add, f"jti:{session.family}", until)
        await self._held.drop(secret)

    async def drop_owner(self, owner: str) -> None:
        """The person with this key has no refresh tokens any more."""
        await self._held.drop_owner(owner)

    async def _check_standing(self, name: str, kept: Kept) -> None:
        try:
            self._standing.check(kept.session)
        except TokenError:
            await self._held.drop(name)
            raise

    def _until(self, kept: Kept) -> float:
        return min(self._clock() + self._ttl, kept.session.who.at + max(self._ttl, OLDEST))

    def _counts(self, kept: Kept, number: int, proves: bool) -> bool:
        late = proves and number == kept.number - 1 and 0 <= self._clock() - kept.since < GRACE
        return number == kept.number or late

    async def _rotate(self, name: str, number: int, proves: bool, until: float) -> Kept | None:
        """The family with its next number; ``None`` when this number was used before. In one step: of two who come
        with the same token at the same time one is the second.
        """
        now = self._clock()
        after: list[Kept] = []

        def step(kept: Kept) -> Kept:
            if not self._counts(kept, number, proves):
                return kept
            after.append(msgspec.structs.replace(kept, number=kept.number + 1, since=now))
            return after[0]

        await self._held.change(name, step, until)
        return after[0] if after else None

    async def _reused(self, name: str, kept: Kept) -> TokenError:
        """A token came twice: one of the two who have it is a thief, so neither goes on."""
        await self.end(name, kept.session)
        said = "The refresh token was used before; the sign-in has ended."
        return TokenError("invalid_grant", said, told={"event": "refresh token reused", **kept.session.told})


def _refused() -> TokenError:
    return invalid_grant("The refresh token is not accepted.")


def _parts(token: str) -> tuple[str, int, str]:
    found = _TOKEN.fullmatch(token)
    if found is None:
        raise _refused()
    return found[1], int(found[2]), found[3]


def _written(name: str, kept: Kept) -> str:
    return f"cgr_{name}.{kept.number}.{_code(kept.key, name, kept.number)}"


def _code(key: bytes, name: str, number: int) -> str:
    mac = hmac.digest(key, f"{name}.{number}".encode(), hashlib.sha256)
    return base64url(mac)

"""What providers issued for people, for servers that need it (enterprise-managed authorization), sealed.

Refresh tokens may work once only, so a refresh happens once at a time, in this process and in all others over the same
data, and its result is on disk before anybody uses it (rule SEC-6).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import msgspec

from callgate.errors import CallgateError, Denied, UpstreamError
from callgate.identity.secrets.held import Held

from .person import ProviderTokens

#: A token that lives no longer than this is refreshed (seconds).
MARGIN = 60.0
#: How long another process may take for a refresh before this one tries (seconds).
BUSY = 20.0
_LOOK = 0.1


class Kept(msgspec.Struct, frozen=True):
    """``busy_until``: some process is refreshing them."""

    tokens: ProviderTokens
    fingerprint: str
    busy_until: float = 0.0


Refresh = Callable[[ProviderTokens], Awaitable[ProviderTokens]]


class KeptTokens:
    """The tokens by the keys of the people."""

    def __init__(self, held: Held[Kept], clock: Callable[[], float] = time.time) -> None:
        self._held = held
        self._clock = clock
        self._flights: dict[str, asyncio.Task[ProviderTokens | None]] = {}

    async def keep(self, person: str, tokens: ProviderTokens, fingerprint: str, life: float) -> None:
        """``life``: how long after the sign-in they can be refreshed (seconds)."""
        until = self._clock() + life if tokens.refresh_token else tokens.expires
        await self._held.put(person, Kept(tokens, fingerprint), person, until)

    async def find(self, person: str) -> Kept | None:
        return await self._held.get(person)

    async def forget(self, person: str) -> None:
        await self._held.drop_owner(person)

    def fresh(self, kept: Kept) -> bool:
        return kept.tokens.expires - MARGIN > self._clock()

    async def refreshed(self, person: str, refresh: Refresh) -> ProviderTokens | None:
        """New tokens, together with everybody who waits for the same ones; ``None`` when the grant has ended. Raises
        UpstreamError while the provider does not answer.
        """
        flight = self._flights.get(person)
        if flight is None:
            flight = self._flights[person] = asyncio.create_task(self._refresh(person, refresh), name="provider tokens")
            flight.add_done_callback(lambda done: self._landed(person, done))
        # wait() rather than await: one who gives up must not end it for the others.
        await asyncio.wait([flight])
        if flight.cancelled():
            raise UpstreamError("the identity provider was not asked: callgate is being shut down")
        return flight.result()

    async def aclose(self) -> None:
        flights = tuple(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    def _landed(self, person: str, flight: asyncio.Task[ProviderTokens | None]) -> None:
        if self._flights.get(person) is flight:
            del self._flights[person]
        if not flight.cancelled():
            flight.exception()  # everybody may have given up waiting for it

    async def _refresh(self, person: str, refresh: Refresh) -> ProviderTokens | None:
        kept = await self._claim(person)
        if kept is None:
            return None
        if self.fresh(kept):
            return kept.tokens
        try:
            tokens = await refresh(kept.tokens)
        except Denied:
            await self._held.change(person, lambda now: None if _same(now, kept) else now)
            return None
        except CallgateError:
            await self._held.change(person, lambda now: msgspec.structs.replace(now, busy_until=0.0))
            raise
        return await self._store(person, kept, tokens)

    async def _claim(self, person: str) -> Kept | None:
        """What is there, marked as being refreshed by us, unless somebody else is at it: then what they bring."""
        while True:
            now = self._clock()

            def mark(kept: Kept, now: float = now) -> Kept:
                if self.fresh(kept) or kept.busy_until > now or not kept.tokens.refresh_token:
                    return kept
                return msgspec.structs.replace(kept, busy_until=now + BUSY)

            kept = await self._held.change(person, mark)
            if kept is None or not kept.tokens.refresh_token:
                return None
            if self.fresh(kept) or kept.busy_until <= now:
                return kept
            await asyncio.sleep(_LOOK)

    async def _store(self, person: str, kept: Kept, tokens: ProviderTokens) -> ProviderTokens | None:
        """Written first, used then. Who was signed out meanwhile stays so."""
        after = Kept(tokens, kept.fingerprint)
        found = await self._held.change(person, lambda now: after if _same(now, kept) else now)
        if found is None or not _same(found, kept):
            return None
        return tokens


def _same(now: Kept, before: Kept) -> bool:
    return now.tokens.refresh_token == before.tokens.refresh_token

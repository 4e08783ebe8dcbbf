"""Tokens that an issuer gave, kept until shortly before they expire; each is asked for once at a time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable

from callgate.errors import CallgateError, Denied, UpstreamError

from .grants import Token

MOST = 10_000
MARGIN = 30.0  # seconds before the end in which a token is not used any more, or a tenth of its life
AGAIN = 1.0  # seconds until an issuer is asked again that gave nothing
YOUNG = 5.0  # a token that a server refuses at this age is not replaced: the next one would be no better

#: Whose token it is: the principal, and whatever else makes it another token.
Key = tuple[str, Hashable]
Get = Callable[[], Awaitable[Token]]


class _Entry:
    __slots__ = ("born", "error", "token", "until")

    def __init__(self, token: Token | None, born: float, until: float, error: CallgateError | None = None) -> None:
        self.token = token
        self.born = born
        self.until = until
        self.error = error


class Kept:
    """Tokens of one server's callers, least recently used first; at most ``size``."""

    def __init__(self, clock: Callable[[], float], size: int = MOST) -> None:
        self._clock = clock
        self._size = size
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._flights: dict[Key, asyncio.Task[Token]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> Token | None:
        """The token if it is there. Raises what the issuer said a moment ago."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if not entry.until > self._clock() >= entry.born - 1.0:  # past, or the clock was set back
            del self._entries[key]
            return None
        if entry.error is not None:
            raise _again(entry.error)
        self._entries.move_to_end(key)
        return entry.token

    async def fetch(self, key: Key, get: Get) -> Token:
        """Ask for it, together with everybody who asks for the same one meanwhile."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.create_task(self._fly(key, get), name="upstream token")
            flight.add_done_callback(_heeded)
        # One caller that gives up must not end it for the others.
        await asyncio.wait({flight})
        if flight.cancelled():
            raise UpstreamError("gets no token: it is being shut down, or the caller was revoked")
        if (error := flight.exception()) is not None:
            raise _again(error) if isinstance(error, CallgateError) else error
        return flight.result()

    def refused(self, key: Key, token: str) -> bool:
        """A server did not accept this token: whether another one is worth asking for."""
        entry = self._entries.get(key)
        if entry is None or entry.token is None or entry.token.value != token:
            return True  # somebody else has seen to it
        if self._clock() - entry.born < YOUNG:
            return False
        del self._entries[key]
        return True

    def drop(self, key: Key) -> None:
        """Whatever is kept is not used again."""
        self._entries.pop(key, None)

    def forget(self, principal: str) -> None:
        """The principal is not known any more: nothing of it is used again, not even what is on its way."""
        for key in [key for key in self._entries if key[0] == principal]:
            del self._entries[key]
        for key in [key for key in self._flights if key[0] == principal]:
            self._flights.pop(key).cancel()

    def clear(self) -> None:
        """Forget everybody."""
        self._entries.clear()
        for flight in tuple(self._flights.values()):
            flight.cancel()
        self._flights.clear()

    async def aclose(self) -> None:
        flights = tuple(self._flights.values())
        self.clear()
        await asyncio.gather(*flights, return_exceptions=True)

    async def _fly(self, key: Key, get: Get) -> Token:
        try:
            token = await get()
        except CallgateError as error:
            if isinstance(error, Denied) and "error" not in (error.data or {}):
                raise  # no issuer said so, and the user may mend it at any moment
            now = self._clock()
            self._put(key, _Entry(None, now, now + AGAIN, error))
            raise
        finally:
            if self._flights.get(key) is asyncio.current_task():
                del self._flights[key]
        now = self._clock()
        self._put(key, _Entry(token, now, token.expires - min(MARGIN, (token.expires - now) / 10)))
        return token

    def _put(self, key: Key, entry: _Entry) -> None:
        self._entries[key] = entry
        self._entries.move_to_end(key)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)


def _again(error: CallgateError) -> CallgateError:
    """The same for another caller: errors are completed on their way out, each by its own call."""
    return error.again(error.message, error.data)


def _heeded(flight: asyncio.Task[Token]) -> None:
    """Everybody may have given up waiting for it."""
    if not flight.cancelled():
        flight.exception()

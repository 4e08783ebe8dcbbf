"""What was read from a store of secrets, remembered for a short time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from callgate.errors import ConfigError

T = TypeVar("T")

#: Things that are remembered; what comes after them is read each time.
MOST = 1024


class Remembered(Generic[T]):
    """What ``read`` gave for a key, for so many seconds. Several that ask for the same at once have it read once.

    What the store does not give any more (``ConfigError``) is forgotten; a store that cannot be reached changes
    nothing.
    """

    def __init__(self, seconds: float, read: Callable[[str], Awaitable[T]]) -> None:
        self._seconds = seconds
        self._read = read
        self._known: dict[str, tuple[float, T]] = {}
        self._flights: dict[str, asyncio.Task[T]] = {}

    async def get(self, key: str, fresh: bool) -> T:
        """``fresh``: read it now."""
        known = self._known.get(key)
        if known is not None and not fresh and time.monotonic() - known[0] < self._seconds:
            return known[1]
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.create_task(self._again(key), name="secret")
            flight.add_done_callback(lambda done: self._landed(key, done))
        # wait() rather than await: one caller that gives up must not cancel it for the others.
        await asyncio.wait({flight})
        return flight.result()

    async def aclose(self) -> None:
        for flight in self._flights.values():
            flight.cancel()
        await asyncio.gather(*self._flights.values(), return_exceptions=True)

    async def _again(self, key: str) -> T:
        try:
            found = await self._read(key)
        except ConfigError:  # taken away: from further links too
            self._known.pop(key, None)
            raise
        if self._seconds and (key in self._known or len(self._known) < MOST):
            self._known[key] = (time.monotonic(), found)
        return found

    def _landed(self, key: str, flight: asyncio.Task[T]) -> None:
        self._flights.pop(key, None)
        if not flight.cancelled():
            flight.exception()  # told to those who wait, if anybody still does

"""A bound on how many calls run at one server, so that a slow one cannot take everything."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from callgate.errors import Overloaded, UpstreamTimeout


class Bulkhead:
    """``places`` calls run, ``queue`` more may wait in order of arrival, the next one is refused."""

    def __init__(self, places: int, queue: int) -> None:
        self._places = places
        self._queue = queue
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.running = 0

    @property
    def full(self) -> bool:
        return self.running >= self._places

    async def wait(self, deadline: float) -> None:
        """Wait for a place and take it."""
        if len(self._waiting) >= self._queue:
            raise Overloaded("is busy: too many calls are running and waiting")
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout_at(deadline):
                await turn
        except (TimeoutError, asyncio.CancelledError) as error:
            if turn.done() and not turn.cancelled():
                self.leave()  # the place came in the moment of giving up: pass it on
            else:
                with contextlib.suppress(ValueError):  # `leave` may have dropped it already
                    self._waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise UpstreamTimeout("had no free place in time") from None
            raise

    def leave(self) -> None:
        """Give the place to the first one who still waits, or free it. Calls whose clients were asked take theirs back
        without waiting, so there may be more runners than places: then nobody is let in.
        """
        while self._waiting and self.running <= self._places:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.running -= 1

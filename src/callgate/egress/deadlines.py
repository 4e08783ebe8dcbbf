"""Deadlines of many waits with one timer: a timer for each call would cost a tenth of the call."""

from __future__ import annotations

import asyncio
from typing import Protocol

TICK = 0.025


class Expiring(Protocol):
    """Something that waits. ``deadline`` is on the clock of the event loop."""

    deadline: float

    def expire(self) -> None:
        """The deadline has passed; called once, and the wait is already forgotten."""


class Deadlines:
    """Waits that end when their deadline passes, at most ``TICK`` seconds late. The timer runs only while
    somebody waits.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waits: set[Expiring] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, wait: Expiring) -> None:
        self._waits.add(wait)
        if self._timer is None:
            self._timer = self._loop.call_later(TICK, self._tick)

    def discard(self, wait: Expiring) -> None:
        self._waits.discard(wait)

    def close(self) -> None:
        self._waits.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        now = self._loop.time()
        late = [wait for wait in self._waits if wait.deadline <= now]
        self._waits.difference_update(late)
        self._timer = self._loop.call_later(TICK, self._tick) if self._waits else None
        for wait in late:
            wait.expire()

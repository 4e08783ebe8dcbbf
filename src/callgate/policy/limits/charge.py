"""What one call has taken, and what becomes of that when the call ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec

from callgate.config import Price

from .counters import Counter, Limit, Moment, Period, Places

T = TypeVar("T")
BYTES_PER_TOKEN = 4


def tokens(size: int) -> int:
    """The tokens that so many bytes count as.

    >>> tokens(0), tokens(1), tokens(4000)
    (0, 1, 1000)
    """
    return -(-size // BYTES_PER_TOKEN)


class Entry(NamedTuple):
    """A limit, and the counter of the call under it."""

    limit: Limit
    counter: Counter


class Warned(msgspec.Struct, frozen=True):
    """A limit that is nearly reached, or passed where it is not hard."""

    quota: str
    measure: str
    used: float
    resets: float


class Back(Protocol):
    """Where amounts are counted besides this process."""

    def correct(self, entry: Entry, slot: int, amount: float) -> None: ...


class Charge:
    """``metered`` are the limits that the answer adds to, with what was taken of them and the slot.

    Places are given back when the call has ended, and everything that goes on for it (``during``).
    """

    __slots__ = ("_open", "_price", "_store", "metered", "places", "warnings")

    def __init__(self, price: Price | None, store: Back | None) -> None:
        self.metered: list[tuple[Entry, float, int]] = []
        self.places: list[Places] = []
        self.warnings: list[Warned] = []
        self._price = price
        self._store = store
        self._open = 1

    def add(self, entry: Entry, amount: float, slot: int) -> None:
        """``entry`` was counted."""
        counter = entry.counter
        if type(counter) is Places:
            self.places.append(counter)
        elif entry.limit.metered:
            self.metered.append((entry, amount, slot))

    def ended(self, size: int, now: Moment) -> None:
        """The server has answered with so many bytes: they are counted, also when that passes the limit."""
        amount = tokens(size)
        for entry, _, _ in self.metered:
            if entry.limit.measure == "tokens":
                self._add(entry, amount, now)
            elif self._price is not None and self._price.tokens:
                self._add(entry, amount * self._price.tokens / 1000, now)
        self.leave()

    def failed(self, *, worked: bool) -> None:
        """The call has failed. Unless the server may have worked for it, tokens and cost are given back; rates and
        calls count attempts.
        """
        if not worked:
            for entry, amount, slot in self.metered:
                self._back(entry, amount, slot)
        self.leave()

    def stay(self) -> None:
        """What follows is counted in this process: the store is away."""
        self._store = None

    def leave(self) -> None:
        """One of those that held the places is done."""
        self._open -= 1
        if not self._open:
            for place in self.places:
                place.leave()
            self.places = []

    def until(self, task: asyncio.Task[Any]) -> None:
        """The places stay taken until ``task`` is done, however it ends."""
        self._open += 1
        task.add_done_callback(lambda _: self.leave())

    async def during(self, work: Coroutine[Any, Any, T]) -> T:
        """``work``, while which the places stay taken."""
        self._open += 1
        try:
            return await work
        finally:
            self.leave()

    def _add(self, entry: Entry, amount: float, now: Moment) -> None:
        if self._store is not None:
            self._store.correct(entry, -1, amount)
        elif amount:
            entry.counter.take(entry.limit, amount, now)

    def _back(self, entry: Entry, amount: float, slot: int) -> None:
        if self._store is not None:
            self._store.correct(entry, slot, -amount)
        elif isinstance(entry.counter, Period):
            entry.counter.back(slot, amount)

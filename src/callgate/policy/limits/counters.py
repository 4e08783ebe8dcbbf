"""Counters: what one key has used of one limit. Each answers in constant time and has no clock of its own.

Rates run on the monotonic clock, which nobody sets. Periods run on UTC; a clock that is set back never gives anything
back: what was used moves into the period that the clock now shows.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

import msgspec

Measure = Literal["rate", "concurrency", "calls", "tokens", "cost"]
#: A sliding period is counted in so many slots; a slot counts in full until all of it is over.
SLOTS = 60
#: What rounding may add up to.
NEARLY = 1e-6


class Moment(NamedTuple):
    """Now: ``mono`` never goes back, ``wall`` is seconds since the epoch."""

    mono: float
    wall: float


class Limit(msgspec.Struct, frozen=True):
    """One measure of one quota. ``name`` is what its counters go by, also on disk: what changes it begins anew.

    ``seconds`` is 0 for months and for concurrency; ``soft`` is a share. ``watched``: what is used may have to be told;
    ``metered``: the answer adds to it.
    """

    quota: str
    measure: Measure
    name: str
    amount: float
    text: str
    seconds: float = 0.0
    unit: str = ""
    burst: int = 0
    sliding: bool = False
    soft: float = 2.0
    hard: bool = True
    watched: bool = False
    metered: bool = False

    @property
    def slot(self) -> float:
        """The length of a slot of a sliding period."""
        return self.seconds / SLOTS

    def window(self, wall: float) -> tuple[int, float]:
        """Where the period of the calendar that ``wall`` lies in begins, and when it ends."""
        if self.unit in ("week", "month"):
            day = datetime.fromtimestamp(wall, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            if self.unit == "week":
                start = day - timedelta(days=day.weekday())
                return int(start.timestamp()), (start + timedelta(days=7)).timestamp()
            start = day.replace(day=1)
            return int(start.timestamp()), (start + timedelta(days=32)).replace(day=1).timestamp()
        start_at = int(wall // self.seconds * self.seconds)
        return start_at, start_at + self.seconds


class Rate:
    """A token bucket, kept as the moment at which it would be full again (GCRA)."""

    __slots__ = ("gone", "key", "tat")

    def __init__(self, key: str) -> None:
        self.key, self.gone, self.tat = key, False, 0.0

    def wait(self, limit: Limit, want: float, now: Moment) -> float:
        """Seconds until there is room for ``want``; 0 when there is now."""
        each = limit.seconds / limit.amount
        over = max(self.tat, now.mono) + each * want - now.mono - each * limit.burst
        return over if over > NEARLY else 0.0

    def take(self, limit: Limit, want: float, now: Moment) -> int:
        self.tat = max(self.tat, now.mono) + limit.seconds / limit.amount * want
        return 0

    def used(self, limit: Limit, now: Moment) -> float:
        return max(self.tat - now.mono, 0.0) * limit.amount / limit.seconds

    def whole(self, limit: Limit) -> float:
        return float(limit.burst)

    def resets(self, limit: Limit, now: Moment) -> float:
        return max(self.tat - now.mono, 0.0)

    def idle(self, limit: Limit, now: Moment) -> bool:
        """Whether nobody would notice if the counter were made anew."""
        return self.tat <= now.mono


class Places:
    """Calls in flight."""

    __slots__ = ("gone", "key", "taken")

    def __init__(self, key: str) -> None:
        self.key, self.gone, self.taken = key, False, 0

    def wait(self, limit: Limit, want: float, now: Moment) -> float:
        return 1.0 if self.taken + want > limit.amount else 0.0

    def take(self, limit: Limit, want: float, now: Moment) -> int:
        self.taken += 1
        return 0

    def leave(self) -> None:
        self.taken -= 1

    def used(self, limit: Limit, now: Moment) -> float:
        return float(self.taken)

    def whole(self, limit: Limit) -> float:
        return limit.amount

    def resets(self, limit: Limit, now: Moment) -> float:
        return 0.0

    def idle(self, limit: Limit, now: Moment) -> bool:
        return not self.taken


class Period:
    """What was used in a period: one slot of the calendar, or the last 60 slots and the one that has begun.

    ``slots`` maps the beginning of a slot to what was used in it, ``fresh`` what of it is not written down yet.
    """

    __slots__ = ("begun", "fresh", "gone", "key", "over", "slot", "slots", "total")

    def __init__(self, key: str) -> None:
        self.key, self.gone, self.total = key, False, 0.0
        self.slot, self.begun, self.over = 0, 0.0, 0.0  # the slot of the last look, and when it begins and ends
        self.slots: dict[int, float] = {}
        self.fresh: dict[int, float] = {}

    def wait(self, limit: Limit, want: float, now: Moment) -> float:
        self._roll(limit, now)
        room = limit.amount - self.total - want
        if room >= -NEARLY * limit.amount:
            return 0.0
        if not limit.sliding:
            return max(limit.window(now.wall)[1] - now.wall, NEARLY)
        for slot, used in sorted(self.slots.items()):
            room += used
            if room >= -NEARLY * limit.amount:
                return max((slot + SLOTS + 1) * limit.slot - now.wall, NEARLY)
        return limit.seconds

    def take(self, limit: Limit, want: float, now: Moment) -> int:
        """Count ``want``; returns the slot, for ``back``."""
        self._roll(limit, now)
        self._add(self.slot, want)
        return self.slot

    def back(self, slot: int, amount: float) -> None:
        """Give back what was taken, if its slot still counts."""
        if slot in self.slots:
            self._add(slot, -min(amount, self.slots[slot]))

    def used(self, limit: Limit, now: Moment) -> float:
        self._roll(limit, now)
        return self.total

    def whole(self, limit: Limit) -> float:
        return limit.amount

    def resets(self, limit: Limit, now: Moment) -> float:
        return limit.seconds if limit.sliding else limit.window(now.wall)[1] - now.wall

    def idle(self, limit: Limit, now: Moment) -> bool:
        self._roll(limit, now)
        return not self.slots and not self.fresh

    def learn(self, slot: int, used: float) -> None:
        """What is written down of a slot, by everybody who counts here; what is not yet written down comes on top."""
        known = used + self.fresh.get(slot, 0.0)
        self.over = 0.0  # a slot from disk may be older than the current one
        self.total += known - self.slots.get(slot, 0.0)
        self.slots[slot] = known

    def _add(self, slot: int, amount: float) -> None:
        self.slots[slot] = self.slots.get(slot, 0.0) + amount
        self.fresh[slot] = self.fresh.get(slot, 0.0) + amount
        self.total += amount

    def _roll(self, limit: Limit, now: Moment) -> None:
        """Forget what is over, and follow a clock that was set back."""
        if self.begun <= now.wall < self.over:
            return
        if limit.sliding:
            current = self.slot = int(now.wall // limit.slot)
            self.begun, self.over = current * limit.slot, (current + 1) * limit.slot
        else:
            current, self.over = limit.window(now.wall)
            self.slot, self.begun = current, float(current)
        if not self.slots:
            return
        ahead = max(self.slots) - current
        if ahead > 0:
            for slot in sorted(self.slots):
                moved = self.slots.pop(slot)
                self.total -= moved
                self.fresh[slot] = self.fresh.get(slot, 0.0) - moved
                self._add(slot - ahead if limit.sliding else current, moved)
        oldest = current - SLOTS if limit.sliding else current
        if min(self.slots) < oldest:
            self.slots = {slot: used for slot, used in self.slots.items() if slot >= oldest}
            self.total = sum(self.slots.values())


def ends(limit: Limit, slot: int) -> float:
    """When a slot does not count any more (seconds since the epoch)."""
    return (slot + SLOTS + 1) * limit.slot if limit.sliding else limit.window(slot)[1]


Counter = Rate | Places | Period
KINDS: dict[str, type[Rate] | type[Places] | type[Period]] = {"rate": Rate, "concurrency": Places}


def made(limit: Limit, key: str) -> Counter:
    return KINDS.get(limit.measure, Period)(key)

"""All counters of one limit, by key: a bounded number, of which nobody can push out another's.

A counter that shows nothing (a full bucket, a period that is over) is dropped when room is needed. Where there is none
of that, new keys share a few counters: they get less, never more, and every key that has a counter keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator

from .counters import Counter, Limit, Moment, made

#: Keys of all limits together.
ROOM = 262_144
#: Old counters that are looked at for each new one.
LOOKED_AT = 8
#: Counters that keys without one of their own share.
SHARED = 64


class Table:
    def __init__(self, limit: Limit, room: int) -> None:
        self.limit = limit
        self.room = room
        self._own: dict[str, Counter] = {}
        self._shared: dict[str, Counter] = {}

    def __len__(self) -> int:
        return len(self._own) + len(self._shared)

    def __iter__(self) -> Iterator[Counter]:
        yield from self._own.values()
        yield from self._shared.values()

    def of(self, key: str, now: Moment) -> Counter:
        """The counter of a key, made if there is none yet."""
        found = self._own.get(key)
        if found is None:
            if len(self._own) >= self.room and not self._make_room(now):
                return self._common(key)
            found = self._own[key] = made(self.limit, key)
        return found

    def known(self, key: str) -> Counter | None:
        return self._own.get(key) or self._shared.get(key)

    def put(self, counter: Counter) -> None:
        """Take a counter over from an earlier table, or from disk."""
        own = not counter.key.startswith("*")
        if own and len(self._own) >= self.room:
            counter.gone = True
            return
        (self._own if own else self._shared)[counter.key] = counter

    def _make_room(self, now: Moment) -> bool:
        """Drop what shows nothing among the counters that were looked at the longest time ago."""
        for key in [key for key, _ in zip(self._own, range(LOOKED_AT), strict=False)]:
            counter = self._own.pop(key)
            if counter.idle(self.limit, now):
                counter.gone = True
            else:
                self._own[key] = counter
        return len(self._own) < self.room

    def _common(self, key: str) -> Counter:
        # The hash of text is another one in each process: nobody can choose whom to share with.
        name = f"*{hash(key) % SHARED}"
        found = self._shared.get(name)
        if found is None:
            found = self._shared[name] = made(self.limit, name)
        return found

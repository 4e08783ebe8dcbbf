"""Calls that come back with answers: one leg after a question is part of the call that was counted.

A client that was asked something comes back with the ``requestState`` that it got. Each state is good for one uncounted
leg, and a call for a few of them: who brings a state twice, or answers so that the server asks for ever, is counted.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

#: Uncounted legs of one call, of all callers, and of one caller.
LEGS = 8
MOST = 65_536
MOST_OF_ONE = 1_024


class Legs:
    def __init__(self) -> None:
        self._next: dict[str, OrderedDict[bytes, tuple[int, float]]] = {}  # caller → state → legs so far, until when
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def grant(self, who: str, state: str, leg: int, until: float) -> None:
        """The leg that begins with ``state`` is not counted, unless there were too many."""
        mine = self._next.setdefault(who, OrderedDict())
        if leg > LEGS or (self._count >= MOST and len(mine) == 0):
            if not mine:
                del self._next[who]
            return
        if len(mine) >= MOST_OF_ONE or self._count >= MOST:
            mine.popitem(last=False)
            self._count -= 1
        mine[_digest(state)] = leg, until
        self._count += 1

    def take(self, who: str, state: str, now: float) -> int:
        """Which uncounted leg begins with ``state``; 0 when it is counted."""
        mine = self._next.get(who)
        found = mine.pop(_digest(state), None) if mine is not None else None
        if mine is None or found is None:
            return 0
        self._count -= 1
        if not mine:
            del self._next[who]
        return found[0] if found[1] > now else 0

    def sweep(self, now: float) -> None:
        for who, mine in list(self._next.items()):
            for state in [state for state, (_, until) in mine.items() if until <= now]:
                del mine[state]
                self._count -= 1
            if not mine:
                del self._next[who]


def _digest(state: str) -> bytes:
    return hashlib.sha256(state.encode("utf-8", "backslashreplace")).digest()

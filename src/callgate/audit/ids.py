"""Call ids: 63 bits that sort by time, so that one index finds a call and bounds a search by time.

    42 bits milliseconds since 1970 (until 2109) | 8 bits node | 13 bits counter

Shown as 13 characters of Crockford's base 32 (lower case; no i, l, o, u, so that they can be read aloud).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from callgate.errors import UsageError

LENGTH = 13
LAST = (1 << 63) - 1
_TIME_SHIFT = 21
_NODE_SHIFT = 13
_COUNTER = (1 << _NODE_SHIFT) - 1
_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [high + low for high in _DIGITS for low in _DIGITS]
_VALUES = {digit: value for value, digit in enumerate(_DIGITS)} | {"o": 0, "i": 1, "l": 1}


class Ids:
    """A source of ids that only grow, also when the clock steps back or more than 8192 are wanted within a
    millisecond (then they run ahead of the clock).

    ``node`` (0 to 255, random by default) keeps processes apart; ``clock`` gives nanoseconds since 1970. Not
    to be shared between threads.
    """

    def __init__(self, node: int | None = None, clock: Callable[[], int] = time.time_ns) -> None:
        self._node = (secrets.randbelow(256) if node is None else node & 255) << _NODE_SHIFT
        self._clock = clock
        self._last = 0

    def __call__(self) -> int:
        fresh = self._clock() // 1_000_000 << _TIME_SHIFT | self._node
        last = self._last
        if fresh <= last:
            full = last & _COUNTER == _COUNTER
            fresh = ((last >> _TIME_SHIFT) + 1 << _TIME_SHIFT | self._node) if full else last + 1
        self._last = fresh
        return fresh


new_id = Ids()
"""The next call id of this process, for the event loop's thread."""


def show_id(id: int) -> str:
    """The id as people see it.

    >>> show_id(0), show_id(LAST)
    ('0000000000000', '7zzzzzzzzzzzz')
    """
    pairs = _PAIRS
    return (
        f"{pairs[id >> 55 & 1023]}{pairs[id >> 45 & 1023]}{pairs[id >> 35 & 1023]}{pairs[id >> 25 & 1023]}"
        f"{pairs[id >> 15 & 1023]}{pairs[id >> 5 & 1023]}{_DIGITS[id & 31]}"
    )


def read_id(text: str) -> int:
    """The id that ``text`` shows, in either case, with o read as 0 and i and l as 1. Raises ``UsageError``.

    >>> read_id("OOOOOOOOOOOIL")
    33
    """
    value = 0
    for character in text.strip().lower():
        digit = _VALUES.get(character)
        if digit is None:
            value = LAST + 1
            break
        value = value << 5 | digit
    if len(text.strip()) != LENGTH or value > LAST:
        raise UsageError(
            f"{text[:80]!r} is not a call id.", hint=f"A call id has {LENGTH} characters, such as 38yb5vh2pw0e4."
        )
    return value


def time_of(id: int) -> float:
    """When the call with this id came in, in seconds since the epoch, to the millisecond."""
    return (id >> _TIME_SHIFT) / 1000


def first_id_at(seconds: float) -> int:
    """The smallest id that a call at that time (seconds since the epoch) can have."""
    last = LAST >> _TIME_SHIFT
    return int(max(0.0, min(seconds * 1000, float(last)))) << _TIME_SHIFT

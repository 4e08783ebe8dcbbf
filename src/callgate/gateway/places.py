"""Places for calls in flight: each principal has as many as ``limits.max_calls`` says."""

from __future__ import annotations

from callgate.errors import Overloaded


class Places:
    def __init__(self) -> None:
        self._taken: dict[str, int] = {}

    def __len__(self) -> int:
        """Calls in flight."""
        return sum(self._taken.values())

    def take(self, key: str, most: int) -> None:
        """Take one of this principal's places. Raises Overloaded."""
        taken = self._taken.get(key, 0)
        if taken >= most:
            raise Overloaded("Too many calls in flight for this caller.", hint="Wait for some to finish.")
        self._taken[key] = taken + 1

    def give_back(self, key: str) -> None:
        left = self._taken[key] - 1
        if left:
            self._taken[key] = left
        else:
            del self._taken[key]

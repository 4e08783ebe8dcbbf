"""What holds for one tool: the settings of `guard`, and those of `guard.tools` that match its name."""

from __future__ import annotations

import re
from fnmatch import translate

import msgspec

from callgate.config import Guard, MaxResult, ToolGuard

#: Names that are remembered.
MOST = 20_000


class Rules(msgspec.Struct, frozen=True):
    """The settings of one tool."""

    pin: str
    on_change: str
    arguments: str
    results: str
    max_result: MaxResult
    images: str

    @property
    def bounded(self) -> bool:
        """Whether its results are looked at because of what they hold."""
        return self.images != "keep" or self.max_result != UNBOUNDED


UNBOUNDED = MaxResult()


class Rulebook:
    """The settings by name."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self._globs = tuple((re.compile(translate(glob)), each) for glob, each in guard.tools.items())
        self._common = self._merged(())
        self._found: dict[str, Rules] = {}
        everything = [self._common, *(self._merged((each,)) for each in guard.tools.values())]
        self.pins = any(each.pin != "off" for each in everything)
        self.validates = any(each.arguments != "off" for each in everything)
        self.spills = any(each.max_result.over == "spill" and each.bounded for each in everything)
        #: Whether anything is done with calls at all.
        self.calls = (
            self.pins or self.validates or guard.hidden_text == "quarantine" or guard.lookalikes == "quarantine"
            or any(each.results != "off" or each.bounded for each in everything)
        )  # fmt: skip

    def of(self, native: str) -> Rules:
        """Those of ``server/tool``."""
        if not self._globs:
            return self._common
        found = self._found.get(native)
        if found is None:
            if len(self._found) >= MOST:
                self._found.clear()
            found = self._merged(tuple(each for glob, each in self._globs if glob.fullmatch(native)))
            self._found[native] = found
        return found

    def _merged(self, matching: tuple[ToolGuard, ...]) -> Rules:
        said = {
            key: next(
                (value for each in matching if (value := getattr(each, key)) is not None), getattr(self.guard, key)
            )
            for key in ("pin", "on_change", "arguments", "results", "max_result")
        }
        return Rules(images=self.guard.images, **said)

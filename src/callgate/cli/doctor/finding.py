"""What one look at something found."""

from __future__ import annotations

from typing import Literal

import msgspec

Level = Literal["ok", "warning", "problem"]


class Finding(msgspec.Struct, frozen=True):
    """One line: where it belongs, how it stands, what was found, and what to do about it."""

    group: str
    level: Level
    what: str
    fix: str = ""


class Notes:
    """Collects the findings of one group."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.found: list[Finding] = []

    def ok(self, what: str) -> None:
        self.found.append(Finding(self.group, "ok", what))

    def warning(self, what: str, fix: str = "") -> None:
        self.found.append(Finding(self.group, "warning", what, fix))

    def problem(self, what: str, fix: str = "") -> None:
        self.found.append(Finding(self.group, "problem", what, fix))

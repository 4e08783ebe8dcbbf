"""What the guard found, in the words of logs, records and the admin API."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Severity = Literal["info", "low", "medium", "high"]
#: Findings of one kind about one entry that are kept.
MOST = 8


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing about a definition, a call's arguments or a result. ``kind`` is a stable word, ``says`` a sentence."""

    kind: str
    says: str
    severity: Severity = "medium"

    def note(self) -> dict[str, Any]:
        """As a member of ``guard`` in an audit record."""
        return {"kind": self.kind, "says": self.says[:300]}

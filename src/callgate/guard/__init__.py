"""Is it safe? What servers say of themselves, what goes to them, what comes back."""

from __future__ import annotations

from callgate.guard.calls import ENDS, WITHHELD, Outcome, Refused, quarantined
from callgate.guard.definitions import Difference, digest
from callgate.guard.findings import Finding
from callgate.guard.guard import Guard
from callgate.guard.kept import RESULTS, KeptResult
from callgate.guard.screening import Event

__all__ = [
    "ENDS",
    "RESULTS",
    "WITHHELD",
    "Difference",
    "Event",
    "Finding",
    "Guard",
    "KeptResult",
    "Outcome",
    "Refused",
    "digest",
    "quarantined",
]

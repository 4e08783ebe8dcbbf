"""The audit log: what happened, for whom, and why. Every call leaves one record, whatever became of it."""

from __future__ import annotations

from callgate.audit.encode import canonical
from callgate.audit.filters import read_filters
from callgate.audit.ids import LAST as LAST_ID
from callgate.audit.ids import new_id, read_id, show_id, time_of
from callgate.audit.journal import Journal
from callgate.audit.log import AuditStore, describe
from callgate.audit.record import Record
from callgate.store import AuditFilters as Filters
from callgate.store import AuditRow as Row

__all__ = [
    "LAST_ID",
    "AuditStore",
    "Filters",
    "Journal",
    "Record",
    "Row",
    "canonical",
    "describe",
    "new_id",
    "read_filters",
    "read_id",
    "show_id",
    "time_of",
]

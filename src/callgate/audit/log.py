"""The audit log as its readers see it, and what the audit room asks of a store."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from callgate.audit.ids import show_id, time_of
from callgate.store import AuditFilters, AuditRow


class AuditStore(Protocol):
    """Keeps rows. Everything blocks; writing belongs to one thread, reading is possible in any.

    ``append`` writes all rows or none, pulls them lazily, and returns how many were new. ``settle`` is the
    store's moment for housekeeping when nobody waits. ``prune`` deletes the oldest rows below an id, at most
    ``limit``. ``find`` gives the newest first, or with ``after_id`` the order of writing.
    """

    def append(self, rows: Iterable[AuditRow]) -> int: ...

    def settle(self) -> None: ...

    def prune(self, before_id: int, limit: int) -> int: ...

    def find(self, filters: AuditFilters) -> list[AuditRow]: ...

    def get(self, id: int) -> AuditRow | None: ...

    def close(self) -> None: ...


def describe(row: AuditRow) -> dict[str, Any]:
    """A row as one flat JSON object: ``id`` and ``time`` as people write them, the columns, then the body."""
    when = datetime.fromtimestamp(time_of(row.id), UTC).isoformat(timespec="milliseconds")
    return {
        "id": show_id(row.id),
        "time": when.replace("+00:00", "Z"),
        "tenant": row.tenant,
        "subject": row.subject,
        "server": row.server,
        "tool": row.tool,
        "outcome": row.outcome,
        **msgspec.json.decode(row.body, type=dict[str, Any]),
    }

"""What was used of quotas whose periods outlive a process. These functions block; they are called in a thread."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import NamedTuple

from callgate.store.sqlite import Database


class CountRow(NamedTuple):
    """What ``key`` has used of the limit ``name`` in the slot that begins at ``slot``, and when that does not count
    any more (seconds since the epoch).
    """

    name: str
    key: str
    slot: int
    used: float
    ends_at: float


_COLUMNS = "name, key, slot, used, ends_at"
_ADD = (
    f"INSERT INTO counts ({_COLUMNS}) VALUES (?, ?, ?, ?, ?) "  # noqa: S608
    "ON CONFLICT (name, key, slot) DO UPDATE SET used = used + excluded.used RETURNING used"
)


class SqliteCounts:
    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self, now: float) -> list[CountRow]:
        """Everything that has not ended."""
        with contextlib.closing(self._database.reader()) as connection:
            sql = f"SELECT {_COLUMNS} FROM counts WHERE ends_at > ?"  # noqa: S608
            return [CountRow(*row) for row in connection.execute(sql, (now,))]

    def add(self, rows: Iterable[CountRow]) -> list[float]:
        """Add to what is there, all in one transaction; returns what there is then, in the same order."""
        with contextlib.closing(self._database.writer("NORMAL")) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                totals = [float(connection.execute(_ADD, row).fetchone()[0]) for row in rows]
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise
        return totals

    def sweep(self, now: float) -> None:
        """Drop what has ended."""
        with contextlib.closing(self._database.writer("NORMAL")) as connection:
            connection.execute("DELETE FROM counts WHERE ends_at <= ?", (now,))

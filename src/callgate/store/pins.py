"""The definitions that servers have shown, by digest, and what became of each.

These functions block for a moment; the event loop calls them in a thread.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import msgspec

from callgate.store.sqlite import Database
from callgate.types import DEFAULT_TENANT

#: ``past``: approved once, and then another one was.
State = Literal["approved", "pending", "rejected", "past"]


class PinRow(msgspec.Struct, frozen=True):
    """One definition. ``name`` is the server's own, as policy writes it (``status``, ``prompt:review``); ``body`` is
    its JSON; times are seconds since the epoch (``decided_at`` 0: nobody has).
    """

    server: str
    name: str
    digest: str
    state: State
    body: str
    seen_at: float
    decided_at: float = 0.0
    decided_by: str = ""


_COLUMNS = "server, name, digest, state, body, seen_at, decided_at, decided_by"


class SqlitePins:
    """The definitions of one tenant. Every change raises ``version``, so that other processes notice it."""

    def __init__(self, database: Database, tenant: str = DEFAULT_TENANT) -> None:
        self._database = database
        self._tenant = tenant

    def all(self) -> tuple[int, tuple[PinRow, ...]]:
        """The version, and everything at that version, the oldest first."""
        sql = f"SELECT {_COLUMNS} FROM pins WHERE tenant = ? ORDER BY seen_at, server, name"  # noqa: S608
        with contextlib.closing(self._database.reader()) as connection:
            connection.execute("BEGIN")
            rows = tuple(PinRow(*row) for row in connection.execute(sql, (self._tenant,)))
            return self._version(connection), rows

    def version(self) -> int:
        with contextlib.closing(self._database.reader()) as connection:
            return self._version(connection)

    def change(self, server: str, change: Callable[[tuple[PinRow, ...]], Sequence[PinRow]]) -> tuple[PinRow, ...]:
        """Change what is known of one server in one step, while no other process can: ``change`` is given all rows of
        the server and returns those that it wants. Returns these.
        """
        sql = f"SELECT {_COLUMNS} FROM pins WHERE tenant = ? AND server = ? ORDER BY seen_at, name"  # noqa: S608
        with self._writing() as connection:
            before = tuple(PinRow(*row) for row in connection.execute(sql, (self._tenant, server)))
            after = tuple(change(before))
            version = self._version(connection) + 1
            kept = {(row.name, row.digest) for row in after}
            for row in before:
                if (row.name, row.digest) not in kept:
                    place = (self._tenant, server, row.name, row.digest)
                    connection.execute(
                        "DELETE FROM pins WHERE tenant = ? AND server = ? AND name = ? AND digest = ?", place
                    )
            known = set(before)
            for row in after:
                if row not in known:
                    values = (self._tenant, *msgspec.structs.astuple(row), version)
                    connection.execute(
                        f"INSERT OR REPLACE INTO pins (tenant, {_COLUMNS}, version) "  # noqa: S608
                        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                        values,
                    )
        return after

    def _version(self, connection: sqlite3.Connection) -> int:
        row = connection.execute("SELECT MAX(version) FROM pins WHERE tenant = ?", (self._tenant,)).fetchone()
        return int(row[0] or 0)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, or none of it; what is approved survives the power."""
        with contextlib.closing(self._database.writer("FULL")) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

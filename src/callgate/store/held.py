"""What is held for somebody for a while, sealed: codes, refresh tokens, browser sessions, grants of users.

These functions block for a moment; the event loop calls them in a thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Protocol

import msgspec

from callgate.store.sqlite import Database
from callgate.types import DEFAULT_TENANT


class HeldRow(msgspec.Struct, frozen=True):
    """One thing. ``id`` is a digest, ``owner`` says whose it is, ``key_id`` names the key that opens ``sealed``;
    ``expires_at`` is seconds since the epoch.
    """

    kind: str
    id: str
    owner: str
    key_id: str
    sealed: bytes
    expires_at: float


#: What becomes of a row: another one in its place, or ``None`` to drop it. It runs while no other change can.
Change = Callable[[HeldRow | None], HeldRow | None]


class HeldRows(Protocol):
    """Where they are kept. Of changes made at once, also by several processes, one waits for the other."""

    def find(self, kind: str, id: str) -> HeldRow | None: ...

    def of(self, owner: str, kind: str) -> tuple[HeldRow, ...]: ...

    def change(self, kind: str, id: str, change: Change) -> HeldRow | None: ...

    def drop_owner(self, owner: str, kind: str = "") -> int: ...

    def sweep(self, now: float) -> int: ...

    def reseal(self, again: Callable[[HeldRow], HeldRow | None]) -> int: ...

    def key_ids(self) -> frozenset[str]: ...


_COLUMNS = "kind, id, owner, key_id, sealed, expires_at"


class SqliteHeld:
    """What one tenant holds, in SQLite. ``FULL`` writes: what was taken once stays taken."""

    def __init__(self, database: Database, tenant: str = DEFAULT_TENANT) -> None:
        self._database = database
        self._tenant = tenant

    def find(self, kind: str, id: str) -> HeldRow | None:
        with self._database.reading() as connection:
            return self._find(connection, kind, id)

    def of(self, owner: str, kind: str) -> tuple[HeldRow, ...]:
        """Everything of one kind that ``owner`` has."""
        sql = f"SELECT {_COLUMNS} FROM held WHERE tenant = ? AND owner = ? AND kind = ? ORDER BY id"  # noqa: S608
        with self._database.reading() as connection:
            return tuple(HeldRow(*row) for row in connection.execute(sql, (self._tenant, owner, kind)))

    def change(self, kind: str, id: str, change: Change) -> HeldRow | None:
        """Change one row in one step; returns what was there before."""
        with self._database.changing() as connection:
            before = self._find(connection, kind, id)
            after = change(before)
            if after is not None and after is not before:
                values = (self._tenant, *msgspec.structs.astuple(after))
                sql = f"INSERT OR REPLACE INTO held (tenant, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
                connection.execute(sql, values)
            elif after is None and before is not None:
                connection.execute(
                    "DELETE FROM held WHERE tenant = ? AND kind = ? AND id = ?", (self._tenant, kind, id)
                )
        return before

    def drop_owner(self, owner: str, kind: str = "") -> int:
        """Drop everything that ``owner`` has, or everything of one kind; returns how much."""
        with self._database.changing() as connection:
            gone = connection.execute(
                "DELETE FROM held WHERE tenant = ? AND owner = ? AND (? = '' OR kind = ?)",
                (self._tenant, owner, kind, kind),
            )
            return gone.rowcount

    def sweep(self, now: float) -> int:
        """Drop what has expired."""
        with self._database.changing() as connection:
            gone = connection.execute("DELETE FROM held WHERE tenant = ? AND expires_at <= ?", (self._tenant, now))
            return gone.rowcount

    def reseal(self, again: Callable[[HeldRow], HeldRow | None]) -> int:
        """Seal every row anew, all or none, and drop those for which there is none; returns how many are left."""
        with self._database.changing() as connection:
            sql = f"SELECT {_COLUMNS} FROM held WHERE tenant = ?"  # noqa: S608
            before = [HeldRow(*row) for row in connection.execute(sql, (self._tenant,))]
            after = [(row, again(row)) for row in before]
            for old, new in after:
                place = (self._tenant, old.kind, old.id)
                if new is None:
                    connection.execute("DELETE FROM held WHERE tenant = ? AND kind = ? AND id = ?", place)
                elif new is not old:
                    connection.execute(
                        "UPDATE held SET key_id = ?, sealed = ? WHERE tenant = ? AND kind = ? AND id = ?",
                        (new.key_id, new.sealed, *place),
                    )
        return sum(new is not None for _, new in after)

    def key_ids(self) -> frozenset[str]:
        """The keys that anything in the database is sealed with, a secret too, of whichever tenant."""
        with self._database.reading() as connection:
            found = connection.execute("SELECT key_id FROM held UNION SELECT key_id FROM secrets")
            return frozenset(str(row[0]) for row in found)

    def _find(self, connection: sqlite3.Connection, kind: str, id: str) -> HeldRow | None:
        sql = f"SELECT {_COLUMNS} FROM held WHERE tenant = ? AND kind = ? AND id = ?"  # noqa: S608
        row = connection.execute(sql, (self._tenant, kind, id)).fetchone()
        return None if row is None else HeldRow(*row)

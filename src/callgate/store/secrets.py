"""Sealed secrets: rows that nobody can read who has only the database.

These functions block for a moment; the event loop calls them in a thread.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from callgate.store.sqlite import Database
from callgate.types import DEFAULT_TENANT


class SealedSecret(msgspec.Struct, frozen=True):
    """One secret as it is kept. ``key_id`` names the key that opens ``sealed``; times are seconds since the epoch."""

    name: str
    version: int
    key_id: str
    sealed: bytes
    created_at: float
    updated_at: float


#: Seals version so-and-so of a secret: gives the name of the key, and the sealed bytes.
Seal = Callable[[int], tuple[str, bytes]]


class SecretRows(Protocol):
    """Where sealed secrets are kept. Of changes made at once, also by several processes, one waits for the other:
    what is given to ``put`` and ``reseal`` runs while no other change can.
    """

    def find(self, name: str) -> SealedSecret | None: ...

    def all(self) -> tuple[SealedSecret, ...]: ...

    def put(self, name: str, seal: Seal) -> SealedSecret: ...

    def remove(self, name: str) -> bool: ...

    def reseal(self, begin: Callable[[], Callable[[SealedSecret], tuple[str, bytes]]]) -> int: ...

    def settled(self, act: Callable[[tuple[SealedSecret, ...]], None]) -> None: ...


_COLUMNS = "name, version, key_id, sealed, created_at, updated_at"


class SqliteSecrets:
    """The secrets of one tenant in SQLite."""

    def __init__(self, database: Database, tenant: str = DEFAULT_TENANT) -> None:
        self._database = database
        self._tenant = tenant

    def find(self, name: str) -> SealedSecret | None:
        sql = f"SELECT {_COLUMNS} FROM secrets WHERE tenant = ? AND name = ?"  # noqa: S608 - the values are never part of the text
        with self._database.reading() as connection:
            row = connection.execute(sql, (self._tenant, name)).fetchone()
        return None if row is None else SealedSecret(*row)

    def all(self) -> tuple[SealedSecret, ...]:
        """Every secret, by name."""
        with self._database.reading() as connection:
            return self._rows(connection)

    def put(self, name: str, seal: Seal) -> SealedSecret:
        """Keep a new version of a secret in place of the old one. On disk when it returns."""
        now = time.time()
        with self._database.changing() as connection:
            known = connection.execute(
                "SELECT version, created_at FROM secrets WHERE tenant = ? AND name = ?", (self._tenant, name)
            ).fetchone()
            version, created = (known[0] + 1, known[1]) if known else (1, now)
            row = SealedSecret(name, version, *seal(version), created, now)
            connection.execute(
                f"INSERT OR REPLACE INTO secrets (tenant, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                (self._tenant, *msgspec.structs.astuple(row)),
            )
        return row

    def remove(self, name: str) -> bool:
        """Drop a secret; false when there is none."""
        with self._database.changing() as connection:
            gone = connection.execute("DELETE FROM secrets WHERE tenant = ? AND name = ?", (self._tenant, name))
            return gone.rowcount > 0

    def reseal(self, begin: Callable[[], Callable[[SealedSecret], tuple[str, bytes]]]) -> int:
        """Seal every secret anew, all or none; ``begin`` gives the function that seals one. Returns how many."""
        with self._database.changing() as connection:
            seal = begin()
            rows = self._rows(connection)
            for row in rows:
                connection.execute(
                    "UPDATE secrets SET key_id = ?, sealed = ? WHERE tenant = ? AND name = ?",
                    (*seal(row), self._tenant, row.name),
                )
        return len(rows)

    def settled(self, act: Callable[[tuple[SealedSecret, ...]], None]) -> None:
        """Do something with the rows while nobody can change them."""
        with self._database.changing() as connection:
            act(self._rows(connection))

    def _rows(self, connection: sqlite3.Connection) -> tuple[SealedSecret, ...]:
        sql = f"SELECT {_COLUMNS} FROM secrets WHERE tenant = ? ORDER BY name"  # noqa: S608
        return tuple(SealedSecret(*row) for row in connection.execute(sql, (self._tenant,)))

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import callgate.store.audit as module
from callgate.audit import AuditStore
from callgate.errors import Overloaded
from callgate.store import AuditFilters, AuditRow, Database, SqliteAudit, open_database
from callgate.store.tables import audit


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return open_database(tmp_path)


@pytest.fixture
def store(database: Database) -> Iterator[SqliteAudit]:
    store = SqliteAudit(database)
    yield store
    store.close()


def row(id: int, **fields: Any) -> AuditRow:
    known = {"tenant": "default", "subject": "ann", "server": "git", "tool": "status", "outcome": "ok", "body": "{}"}
    return AuditRow(id, **(known | fields))


def ids(store: SqliteAudit, **filters: Any) -> list[int]:
    return [found.id for found in store.find(AuditFilters(**filters))]


def test_the_room_gets_what_it_asks_for(store: SqliteAudit) -> None:
    owned: AuditStore = store  # checked by mypy
    assert owned.get(1) is None


def test_the_statements_write_the_columns_of_the_table() -> None:
    assert ("seq", *AuditRow._fields) == tuple(column.name for column in audit.columns)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 31, 32, 33, 63, 500])
def test_batches_of_any_size_are_written_whole(store: SqliteAudit, count: int) -> None:
    rows = [row(number, body=f'{{"n":{number}}}') for number in range(count)]
    assert store.append(iter(rows)) == count
    assert store.find(AuditFilters(limit=10_000)) == rows[::-1]


def test_a_batch_is_written_whole_or_not_at_all(store: SqliteAudit) -> None:
    def rows() -> Iterator[AuditRow]:
        yield from (row(number) for number in range(40))
        raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        store.append(rows())
    assert ids(store) == []
    assert store.append([row(1)]) == 1


def test_a_batch_written_twice_is_there_once(store: SqliteAudit) -> None:
    assert store.append([row(1), row(2)]) == 2
    assert store.append([row(2, tool="other"), row(3)]) == 1
    assert ids(store) == [3, 2, 1]
    assert store.get(2) == row(2)


def test_a_locked_database_fails_the_batch_and_can_be_tried_again(database: Database, monkeypatch: Any) -> None:
    monkeypatch.setattr("callgate.store.sqlite.BUSY_MS", 1)
    store, other = SqliteAudit(database), database.writer()
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        store.append([row(1)])
    other.execute("ROLLBACK")
    assert store.append([row(1)]) == 1
    other.close()
    store.close()


def test_reading_does_not_wait_for_the_writer(database: Database, store: SqliteAudit) -> None:
    store.append([row(1)])
    other = database.writer()
    other.execute("BEGIN IMMEDIATE")
    other.execute("DELETE FROM audit")
    assert ids(store) == [1]
    other.close()


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, [6, 5, 4, 3, 2, 1]),
        ({"tenant": "acme"}, [2]),
        ({"subject": "bob"}, [3]),
        ({"server": "docs"}, [5, 4]),
        ({"tool": "docs/search"}, [4]),
        ({"tool": "docs/*"}, [5, 4]),
        ({"tool": "*/s*"}, [4, 3, 2, 1]),
        ({"tool": "search"}, [4]),
        ({"tool": "[dr]*"}, []),
        ({"tool": "[x]?"}, [6]),
        ({"tool": "' OR 1=1 --"}, []),
        ({"outcomes": ("denied", "failed")}, [5, 1]),
        ({"since_id": 3}, [6, 5, 4, 3]),
        ({"until_id": 3}, [3, 2, 1]),
        ({"before_id": 3}, [2, 1]),
        ({"since_id": 2, "before_id": 5, "server": "git"}, [3, 2]),
        ({"limit": 2}, [6, 5]),
        ({"limit": 0}, [6]),
    ],
)
def test_filters(store: SqliteAudit, filters: dict[str, Any], found: list[int]) -> None:
    store.append(
        [
            row(1, outcome="denied"), row(2, tenant="acme"), row(3, subject="bob"),
            row(4, server="docs", tool="search"), row(5, server="docs", tool="fetch", outcome="failed"),
            row(6, tool="[x]y"),
        ]
    )  # fmt: skip
    assert ids(store, **filters) == found


def test_a_follower_sees_slow_calls_too(store: SqliteAudit) -> None:
    """A call's id is given when it starts, and it is written when it ends."""
    store.append([row(10), row(30)])
    assert ids(store, after_id=0) == [10, 30]
    store.append([row(40), row(20)])
    assert ids(store, after_id=30) == [40, 20]
    assert ids(store, after_id=30, limit=1) == [40]
    assert ids(store, after_id=40) == [20]
    assert ids(store, after_id=20) == []


def test_a_follower_whose_last_record_is_gone_goes_on_by_time(store: SqliteAudit) -> None:
    store.append([row(10), row(30), row(20)])
    assert ids(store, after_id=15) == [30, 20]


def test_the_oldest_are_pruned_in_pieces(store: SqliteAudit) -> None:
    store.append([row(number) for number in (5, 1, 4, 2, 3)])
    assert store.prune(before_id=5, limit=3) == 3
    assert ids(store) == [5, 4]
    assert store.prune(before_id=5, limit=3) == 1
    assert store.prune(before_id=5, limit=3) == 0
    assert ids(store) == [5]


def test_the_write_ahead_log_is_moved_once_enough_has_gathered(database: Database, store: SqliteAudit) -> None:
    small = database.path.stat().st_size
    store.append([row(1, body="x" * 1000)])
    store.settle()
    assert database.path.stat().st_size == small
    store.append([row(number, body="x" * 10_000) for number in range(2, 500)])
    store.settle()
    assert database.path.stat().st_size > module.CHECKPOINT_BYTES


def test_a_search_that_takes_too_long_is_stopped(store: SqliteAudit, monkeypatch: pytest.MonkeyPatch) -> None:
    store.append([row(number) for number in range(20_000)])
    monkeypatch.setattr(module, "SEARCH_SECONDS", 0.0)
    with pytest.raises(Overloaded, match="took longer") as caught:
        ids(store, subject="nobody")
    assert "since" in caught.value.hint


def test_other_errors_of_a_search_are_not_hidden(database: Database, store: SqliteAudit) -> None:
    database.writer().execute("DROP TABLE audit").connection.close()
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        ids(store)


def test_closing_ends_writing_not_reading(store: SqliteAudit) -> None:
    store.append([row(1)])
    store.close()
    store.close()
    assert ids(store) == [1]

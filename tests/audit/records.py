"""Records, a real database, and a store that fails on demand, for the tests of this folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from callgate.audit import Record, Row, new_id
from callgate.store import SqliteAudit
from callgate.types import Front, Principal

ANN = Principal("user:ann", "k1", roles=("dev",), via="jwt", issuer="https://idp.example")


def record(**fields: Any) -> Record:
    known: dict[str, Any] = {
        "id": new_id(),
        "principal": ANN,
        "front": Front(),
        "method": "tools/call",
        "server": "git",
        "tool": "status",
        "arguments": {"repo": "x"},
        "outcome": "ok",
    }
    return Record(**(known | fields))


class StubbornDisk(SqliteAudit):
    """The real store on a disk that fails while ``says`` is set (the edge of the house: a full disk, a lock)."""

    says: BaseException | None = None
    hold: Callable[[], object] | None = None

    def append(self, rows: Iterable[Row]) -> int:
        if self.hold is not None:
            self.hold()
        if self.says is not None:
            raise self.says
        return super().append(rows)


def soon(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait in a thread until something is so; ten seconds are only ever used up by a failing test."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)

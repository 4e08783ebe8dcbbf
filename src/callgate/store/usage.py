"""What was used, added up from the audit log."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from typing import NamedTuple

from callgate.errors import Overloaded
from callgate.store.sqlite import Database

SEARCH_SECONDS = 10.0
#: Most combinations of a name and a tool.
MOST = 50_000
GROUPS = {
    "subject": "subject",
    "agent": "COALESCE(json_extract(body, '$.chain[#-1].sub'), subject)",
    "server": "server",
    "tool": "server || '/' || tool",
}


class UsedRow(NamedTuple):
    """The calls of one name to one tool: how many, by what became of them, and bytes (``good`` ones only)."""

    name: str
    server: str
    tool: str
    calls: int
    good: int
    refused: int
    denied: int
    bytes_in: int
    bytes_out: int


class Whose(NamedTuple):
    """One caller's own calls."""

    subject: str
    issuer: str
    via: str


def used(
    database: Database, by: str, tenant: str, between: tuple[int, int], whose: Whose | None = None
) -> list[UsedRow]:
    """Blocks; raises ``Overloaded`` when it takes more than ten seconds. ``between`` are ids (they sort by time)."""
    good = "outcome IN ('ok', 'tool_error')"
    mine, values = "", list[object]()
    if whose is not None:
        mine = (
            " AND subject = ? AND COALESCE(json_extract(body, '$.issuer'), '') = ?"
            " AND COALESCE(json_extract(body, '$.via'), '') = ?"
        )
        values = list(whose)
    sql = f"""
        SELECT {GROUPS[by]}, server, tool, COUNT(*), SUM({good}), SUM(outcome = 'refused'), SUM(outcome = 'denied'),
               SUM(CASE WHEN {good} THEN COALESCE(json_extract(body, '$.bytes_in'), 0) ELSE 0 END),
               SUM(CASE WHEN {good} THEN COALESCE(json_extract(body, '$.bytes_out'), 0) ELSE 0 END)
        FROM audit WHERE tenant = ? AND id >= ? AND id <= ? AND server <> '' AND outcome <> 'gap'{mine}
        GROUP BY 1, 2, 3 LIMIT {MOST}
    """  # noqa: S608 - no value is part of the text
    with contextlib.closing(database.reader()) as connection:
        end = time.monotonic() + SEARCH_SECONDS
        connection.set_progress_handler(lambda: time.monotonic() > end, 10_000)
        try:
            return [UsedRow._make(row) for row in connection.execute(sql, (tenant, *between, *values))]
        except sqlite3.OperationalError as error:
            if "interrupted" not in str(error):
                raise
            raise Overloaded(
                f"Adding up took longer than {SEARCH_SECONDS:g} s and was stopped.", hint="Ask for less with `since`."
            ) from error

"""``python -m tests.matrix.table [PATTERN…]``: look at the pairs (all, or those whose name matches), print Markdown.

A cell says ``yes``, ``no`` (expected to work, does not), ``—`` (the SDKs have no words for it) or ``error`` (cannot
work, and says so).
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path

from tests.matrix.cells import ABSENT, DOORS, SAW, UNABLE, Cell, Pair, features, pairs, unable
from tests.matrix.looking import Report, Stand


def word(cell: Cell, report: Report) -> str:
    """What the table says of this cell."""
    if cell.feature not in features(cell.pair):
        return "—"
    outcome = report.get("features", {}).get(cell.feature, {"error": report.get("error", "")})
    if said := unable(cell):
        return "error" if re.search(said.says, outcome.get("error", "")) else "**no**"
    return "yes" if outcome == {"saw": SAW[cell.feature]} else "**no**"


def table(door: str, reports: dict[Pair, Report]) -> Iterator[str]:
    yield f"\n## {door}: {DOORS[door]}\n"
    yield f"| client | server | {' | '.join(SAW)} |"
    yield "|" + " --- |" * (2 + len(SAW))
    for pair, report in reports.items():
        if pair.door == door:
            words = " | ".join(word(Cell(pair, feature), report) for feature in SAW)
            yield f"| {pair.client.name} | {pair.server.name} | {words} |"


def failures(reports: dict[Pair, Report]) -> Iterator[str]:
    """What each **no** saw instead."""
    for pair, report in reports.items():
        for feature in features(pair):
            if word(Cell(pair, feature), report) == "**no**":
                outcome = report.get("features", {}).get(feature, report.get("error"))
                yield f"* {pair}-{feature}: {outcome}"


def main(patterns: list[str]) -> int:
    chosen = [
        pair
        for pair in pairs()
        if features(pair) and any(fnmatchcase(str(pair), pattern) for pattern in patterns or ["*"])
    ]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        stand = Stand(Path(folder) / "matrix")
        try:
            with ThreadPoolExecutor(2) as pool:
                reports = dict(zip(chosen, pool.map(stand.look, chosen), strict=True))
        finally:
            stand.close()
    for door in dict.fromkeys(pair.door for pair in chosen):
        print("\n".join(table(door, reports)))
    print("\nWhere there is a dash or an error:\n")
    print("\n".join(dict.fromkeys(f"* {said.reason}" for said in [*ABSENT, *UNABLE])))
    missed = list(failures(reports))
    if missed:
        print("\nWhat does not work:\n\n" + "\n".join(missed))
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

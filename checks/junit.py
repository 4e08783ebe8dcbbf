"""Sum up test reports: ``python checks/junit.py FILE …`` prints ``N passed, N failed, N skipped``.

Stands alone, so that it runs whatever state the project is in. A report that is missing counts nothing.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

SUITE = re.compile(r"<testsuite\b[^>]*>")


def count(report: str) -> Counter[str]:
    """The counts of one report; its attributes are read as text, for the reports are our own."""
    total: Counter[str] = Counter()
    for suite in SUITE.findall(report):
        for key in ("tests", "failures", "errors", "skipped"):
            if found := re.search(rf'\b{key}="(\d+)"', suite):
                total[key] += int(found[1])
    return total


def main(names: list[str]) -> int:
    total: Counter[str] = Counter()
    for path in map(Path, names):
        if path.exists():
            total += count(path.read_text(encoding="utf-8"))
    bad = total["failures"] + total["errors"]
    print(f"{total['tests'] - bad - total['skipped']} passed, {bad} failed, {total['skipped']} skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

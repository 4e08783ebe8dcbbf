"""The ledger of rules (``docs/rules/*.toml``): every numbered rule, its level, and what it says.

One file is one page, one table in it one topic. A rule that cannot apply to callgate says so in ``na``;
one that waits for a room which is not built yet says for which in ``later``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ID = re.compile(r"^[A-Z]+-[1-9][0-9]*$")
LEVELS = ("MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "MAY", "OWN", "CONVENTION")
STATEMENT = 120


@dataclass(frozen=True)
class Rule:
    id: str
    page: str
    topic: str
    level: str
    says: str
    na: str = ""
    later: str = ""


class LedgerError(Exception):
    """The ledger itself is wrong."""


def read(root: Path) -> dict[str, Rule]:
    """Every rule by id, in the order of the pages; a mistake raises ``LedgerError``."""
    rules: dict[str, Rule] = {}
    for path in sorted((root / "docs" / "rules").glob("*.toml"), key=_order):
        for rule in _page(path):
            if rule.id in rules:
                raise LedgerError(f"{path.name}: {rule.id} stands twice")
            rules[rule.id] = rule
    return rules


def _order(path: Path) -> tuple[int, str]:
    known = ["protocol", "identity", "context", "runtime", "workflow"]
    return (known.index(path.stem) if path.stem in known else len(known), path.stem)


def _page(path: Path) -> Iterator[Rule]:
    page = tomllib.loads(path.read_text(encoding="utf-8"))
    title = page.pop("title")
    for topic, entries in page.items():
        for number, entry in entries.items():
            rule = Rule(id=number, page=title, topic=topic, **entry)
            _check(rule, path.name)
            yield rule


def _check(rule: Rule, file: str) -> None:
    if not ID.match(rule.id):
        raise LedgerError(f"{file}: {rule.id} is no rule id")
    if rule.level not in LEVELS:
        raise LedgerError(f"{file}: {rule.id}: no such level: {rule.level}")
    if not 0 < len(rule.says) <= STATEMENT:
        raise LedgerError(f"{file}: {rule.id}: the statement has {len(rule.says)} characters, at most {STATEMENT}")

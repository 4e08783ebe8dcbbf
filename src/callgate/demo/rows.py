"""Audit records as rows for people: who called what, what came of it, and which rule said so."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from callgate.audit import Row as AuditRow
from callgate.audit import describe, show_id, time_of

Verdict = Literal["allowed", "denied", "filtered", "refused", "error", "failed"]
VERDICTS: dict[str, Verdict] = {"ok": "allowed", "tool_error": "error", "denied": "denied", "refused": "refused"}
NO_RULE = "(default)"


class Row(NamedTuple):
    """One line of the view. ``when`` is seconds since the epoch, ``took`` seconds, ``id`` the call id."""

    when: float
    who: str
    call: str
    verdict: Verdict
    rule: str = ""
    took: float = 0.0
    why: str = ""
    id: str = ""


def from_record(row: AuditRow) -> Row:
    """The row of one record. What clients and servers wrote is made fit for a terminal."""
    record = describe(row)
    verdict = VERDICTS.get(row.outcome, "failed")
    rule = record.get("rule", "")
    if not rule and verdict != "refused":
        rule = NO_RULE
    took = record.get("duration_us", 0) / 1e6
    who = "stranger" if row.subject == "unauthenticated" else printable(row.subject.rpartition(":")[2])
    why = "" if verdict == "allowed" else _why(record, rule)
    return Row(time_of(row.id), who, _call(record), verdict, printable(rule), took, why, show_id(row.id))


def filtered(who: str, shown: int, of: int, when: float, took: float) -> Row:
    """The row of a list: how many of all tools somebody was shown."""
    verdict: Verdict = "filtered" if shown < of else "allowed"
    return Row(when, who, f"tools/list {shown} of {of} tools", verdict, "", took, "what it may never call is hidden")


def printable(text: str) -> str:
    """
    >>> printable("a\\x1b[2Jb")
    'a�[2Jb'
    """
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)


def _call(record: Mapping[str, Any]) -> str:
    if not record["tool"]:
        return "(no valid key)"
    name = f"{record['server']}/{record['tool']}" if record["server"] else record["tool"]
    given = record.get("args")
    words = _words(given.items()) if isinstance(given, dict) else ([json.dumps(given)] if given else [])
    return printable(" ".join([name, *words]))


def _words(arguments: Iterable[tuple[str, Any]]) -> list[str]:
    """``name=value``, as `callgate call` takes them; the short ones first, because a line has an end."""
    return sorted((f"{name}={_value(value)}" for name, value in arguments), key=len)


def _value(value: Any) -> str:
    plain = isinstance(value, str) and value != "" and not any(one.isspace() or one in "\"'" for one in value)
    return value if plain else json.dumps(value, ensure_ascii=False)


def _why(record: Mapping[str, Any], rule: str) -> str:
    if record["outcome"] == "tool_error":
        return "the tool says that it failed"
    reason = str(record.get("reason", ""))
    return printable(reason.removeprefix(f"denied by {rule}").removeprefix(": "))

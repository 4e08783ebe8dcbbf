"""Audit records as rows, and rows on a board of a given width."""

from __future__ import annotations

import io
import sys
from typing import Any

import msgspec
import pytest

from callgate.audit import Row as AuditRow
from callgate.demo.board import Board
from callgate.demo.rows import Row, filtered, from_record


def record(outcome: str = "ok", tool: str = "refund", subject: str = "agent:support", **body: Any) -> AuditRow:
    server = "shop" if tool else ""
    return AuditRow(1 << 40, "default", subject, server, tool, outcome, msgspec.json.encode(body).decode())


def board(monkeypatch: pytest.MonkeyPatch, columns: int) -> tuple[Board, io.StringIO]:
    out = io.StringIO()
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "stdout", out)
    return Board(), out


def test_short_arguments_come_first_and_spaces_are_quoted() -> None:
    row = from_record(record(args={"text": "three words here", "order": 17, "to": "kim"}, rule="r", duration_us=1500))
    assert row.call == 'shop/refund to=kim order=17 text="three words here"'
    assert (row.who, row.verdict, row.rule, row.took) == ("support", "allowed", "r", 0.0015)


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [("ok", "allowed"), ("tool_error", "error"), ("denied", "denied"), ("refused", "refused"), ("timeout", "failed")],
)
def test_outcomes_have_their_words(outcome: str, verdict: str) -> None:
    assert from_record(record(outcome)).verdict == verdict


def test_a_denial_names_its_reason_once() -> None:
    row = from_record(record("denied", rule="big", reason="denied by big: too much"))
    assert (row.rule, row.why) == ("big", "too much")


def test_the_default_has_a_name() -> None:
    assert from_record(record("denied", reason="no rule allows it")).rule == "(default)"


def test_a_stranger_has_no_name_of_their_own() -> None:
    row = from_record(record("refused", tool="", subject="unauthenticated"))
    assert (row.who, row.call, row.rule) == ("stranger", "(no valid key)", "")


def test_a_list_with_everything_in_it_is_not_filtered() -> None:
    assert filtered("a", 9, 10, 0.0, 0.0).verdict == "filtered"
    assert filtered("a", 10, 10, 0.0, 0.0).verdict == "allowed"


def test_what_callers_write_does_not_reach_the_terminal_as_it_is() -> None:
    """The attack: clear the screen and forge a row, by arguments, tool and subject."""
    evil = "\x1b[2J\r\n\u202eallowed"
    row = from_record(record("denied", tool=evil, subject=f"agent:{evil}", args={evil: evil}, rule=evil, reason=evil))
    assert not [text for text in (row.who, row.call, row.rule, row.why) if not text.isprintable()]


def test_markup_is_shown_and_not_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, out = board(monkeypatch, 80)
    shown.row(Row(0.0, "[red]eve", "shop/x a=[link=http://x]y", "denied"))
    assert "[red]eve" in out.getvalue()
    assert "a=[link=http://x]y" in out.getvalue()


@pytest.mark.parametrize("columns", [60, 80, 100, 120, 200])
def test_a_row_is_one_line_of_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    shown, out = board(monkeypatch, columns)
    shown.heading()
    shown.row(
        Row(0.0, "agent" * 9, "server/tool 寿司=寿司 " * 20, "denied", "a-very-long-rule-name", 12345.6, "why " * 40)
    )
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert max(len(line) + line.count("寿") + line.count("司") for line in lines) <= columns


@pytest.mark.parametrize(("columns", "shows"), [(80, False), (120, True)])
def test_a_wide_terminal_shows_reasons(monkeypatch: pytest.MonkeyPatch, columns: int, shows: bool) -> None:
    shown, out = board(monkeypatch, columns)
    shown.row(Row(0.0, "a", "b/c", "denied", "r", 0.0, "because of it"))
    assert ("because of it" in out.getvalue()) is shows


def test_an_excerpt_in_the_log_keeps_its_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, out = board(monkeypatch, 60)
    shown.remark("error", f"{'word ' * 30}\n 38 | {'x' * 100}\n")
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 60
    assert len([line for line in lines if "38 |" in line or "xxx" in line]) == 1

"""How errors look; the rest is in ``tests/golden/config``."""

from __future__ import annotations

import re

from callgate.config import parse_document, render
from callgate.errors import ConfigError, Place, UsageError


def test_an_error_without_a_place() -> None:
    assert render(UsageError("no such flag")) == "error[CG0200]: no such flag"
    assert (
        render(UsageError("no such flag", hint="try\nthis"))
        == "error[CG0200]: no such flag\n  = help: try\n          this"
    )


def test_colour_changes_nothing_but_colour() -> None:
    error = ConfigError("two\tthings", hint="mend", place=Place("x.yaml", 7, 3, 2, "  ab"))
    coloured = render(error, colour=True)
    assert "\x1b[1;31m^^" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == render(error)


def test_the_mark_stands_below_wide_letters() -> None:
    error = parse_document("日本: [é, 'x']", "x.yaml").wrong("this one", ("日本", 1))
    lines = render(error).splitlines()
    assert lines[3:5] == [" 1 | 日本: [é, 'x']", "   |" + " " * 11 + "^^^"]


def test_line_numbers_of_any_length_line_up() -> None:
    error = ConfigError("here", place=Place("x.yaml", 12345, 1, 1, "a"))
    assert render(error).splitlines()[1:] == ["     --> x.yaml:12345:1", "      |", "12345 | a", "      | ^"]


def test_a_mark_far_right_is_in_the_window() -> None:
    text = "a" * 500 + "HERE" + "b" * 500
    line, mark = render(ConfigError("x", place=Place("x.yaml", 1, 501, 4, text))).splitlines()[3:5]
    start = mark.index("^")
    assert line[start : start + 4] == "HERE"
    assert len(line) < 140


def test_hostile_text_cannot_steer_the_terminal() -> None:
    shown = render(ConfigError("a\x1b[2Jb\u202e", hint="\x07", place=Place("f\x1b]0;x", 1, 1, 3, "\x1b[31m\u200b")))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", shown)

"""The ledger, the markers, and the page made of both."""

from __future__ import annotations

from pathlib import Path

import pytest

from checks import ledger, rules
from checks.project import ROOT
from tests.repo.house import project

LEDGER = """
title = "Door"

["Bell"]
BELL-1 = {level = "MUST", says = "It rings."}
BELL-2 = {level = "OWN", says = "It stops | at night."}
BELL-3 = {level = "MAY", says = "It plays a tune.", na = "There is no speaker."}
"""
TEST = """
import pytest
from pytest import mark

@pytest.mark.rule("BELL-1")
def test_it_rings(): ...

class TestNight:
    @mark.rule("BELL-1", "BELL-2")
    async def test_quiet(self): ...

@pytest.mark.parametrize("hour", [1, pytest.param(2, marks=pytest.mark.rule("BELL-2"))])
def test_hours(hour): ...
"""


def door(folder: Path, test: str = TEST, page: str = LEDGER) -> Path:
    return project(folder, {"docs/rules/door.toml": page, "tests/test_door.py": test})


def test_markers_are_read_with_their_tests(tmp_path: Path) -> None:
    found = [(proof.rule, proof.test) for proof in rules.proofs(door(tmp_path))]
    assert found == [
        ("BELL-1", "test_it_rings"),
        ("BELL-1", "TestNight.test_quiet"),
        ("BELL-2", "TestNight.test_quiet"),
        ("BELL-2", "test_hours"),
    ]


def test_a_marker_of_a_whole_file_counts(tmp_path: Path) -> None:
    found = rules.proofs(door(tmp_path, 'import pytest\npytestmark = [pytest.mark.rule("BELL-1")]\n'))
    assert [(proof.rule, proof.test, proof.file) for proof in found] == [("BELL-1", "", "tests/test_door.py")]


def test_the_page_counts_links_and_gives_reasons(tmp_path: Path) -> None:
    folder = door(tmp_path, '@pytest.mark.rule("BELL-1")\ndef test_it_rings(): ...\n')
    text = rules.page(ledger.read(folder), rules.proofs(folder))
    assert "| Door | 3 | 1 | 1 | 1 |" in text
    assert "| BELL-1 | MUST | It rings. | proved: [test_it_rings](../tests/test_door.py) |" in text
    assert "| BELL-2 | OWN | It stops \\| at night. | not yet |" in text
    assert "| BELL-3 | MAY | It plays a tune. | not applicable: There is no speaker. |" in text


def test_a_stale_page_fails_until_it_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = door(tmp_path)
    assert rules.main(["--check"], folder) == 1
    assert "is stale" in capsys.readouterr().out
    assert rules.main(["--write"], folder) == 0
    assert rules.main(["--check"], folder) == 0


@pytest.mark.parametrize(
    ("marker", "complaint"),
    [
        ('"BELL-9"', "no rule is called BELL-9"),
        ('"BELL-3"', "BELL-3 is listed as not applicable"),
        ("ID", "takes rule ids, written out"),
        ("", "takes rule ids, written out"),
    ],
)
def test_a_wrong_marker_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str], marker: str, complaint: str) -> None:
    folder = door(tmp_path, f"@pytest.mark.rule({marker})\ndef test_it(): ...\n")
    assert rules.main(["--check"], folder) == 1
    assert complaint in capsys.readouterr().out


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ('bell = {level = "MUST", says = "It rings."}', "is no rule id"),
        ('BELL-1 = {level = "PERHAPS", says = "It rings."}', "no such level"),
        (f'BELL-1 = {{level = "MUST", says = "{"x" * 121}"}}', "121 characters"),
        ('BELL-1 = {level = "MUST", says = ""}', "0 characters"),
    ],
)
def test_a_wrong_ledger_fails(tmp_path: Path, entry: str, complaint: str) -> None:
    with pytest.raises(ledger.LedgerError, match=complaint):
        ledger.read(door(tmp_path, page=f'title = "Door"\n["Bell"]\n{entry}\n'))


def test_an_id_stands_once_in_all_pages(tmp_path: Path) -> None:
    folder = project(tmp_path, {"docs/rules/a.toml": LEDGER, "docs/rules/b.toml": LEDGER})
    with pytest.raises(ledger.LedgerError, match="BELL-1 stands twice"):
        ledger.read(folder)


def test_the_real_ledger_is_whole() -> None:
    """No number is left out: every series counts from 1 without gaps."""
    series: dict[str, list[int]] = {}
    for name in ledger.read(ROOT):
        prefix, _, number = name.rpartition("-")
        series.setdefault(prefix, []).append(int(number))
    assert len(series) > 70
    assert {
        prefix for prefix, numbers in series.items() if sorted(numbers) != list(range(1, len(numbers) + 1))
    } == set()


def test_a_rule_that_waits_says_for_what_and_a_proof_ends_the_waiting(tmp_path: Path) -> None:
    page = 'title = "Door"\n["Bell"]\nBELL-1 = {level = "MUST", says = "It rings.", later = "comes with the wires."}\n'
    folder = door(tmp_path, "", page)
    assert "not yet: comes with the wires." in rules.page(ledger.read(folder), rules.proofs(folder))
    proved = door(tmp_path, '@pytest.mark.rule("BELL-1")\ndef test_it_rings(): ...\n', page)
    assert rules.problems(ledger.read(proved), rules.proofs(proved)) == [
        "tests/test_door.py:1: BELL-1 is listed as not proved yet, yet a test proves it"
    ]

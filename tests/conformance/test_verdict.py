"""The judgement over an outcome of the suite: what is read, what is expected, what is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.run import KNOWN
from tests.conformance.suite import REVISIONS, Outcome, outcome
from tests.conformance.verdict import Outcomes, as_json, expected, page, surprises, table

OUTPUT = [
    "=== Running scenario: ping ===",
    "✓ ping: 2 passed, 0 failed",
    "✗ caching: 1 passed, 3 failed",
    "✓ tasks-extra: 1 passed, 0 failed",
    "Total: 4 passed, 3 failed",
    "  ✗ caching (extension)",
]
REVISION = REVISIONS[0]


@pytest.fixture
def half() -> Outcome:
    return outcome(REVISION, ["ping", "caching", "tools-list"], OUTPUT)


def test_a_scored_scenario_that_did_not_run_counts_as_failed(half: Outcome) -> None:
    assert half.failing == {"caching", "tools-list"}
    assert [scenario.name for scenario in half.unscored] == ["tasks-extra"]


def known(*names: str) -> dict[str, frozenset[str]]:
    return {REVISION: frozenset(names)}


def told(outcomes: Outcomes, excused: dict[str, frozenset[str]]) -> set[tuple[str, str]]:
    return {(surprise.scenario, surprise.kind) for surprise in surprises(outcomes, excused)}


def test_what_is_listed_may_fail_and_nothing_else(half: Outcome) -> None:
    through: Outcomes = {("callgate", REVISION): half}
    assert told(through, known("caching", "tools-list")) == set()
    assert told(through, known("caching")) == {("tools-list", "fails")}


def test_what_is_listed_must_not_pass(half: Outcome) -> None:
    excused = known("caching", "tools-list", "ping")
    assert told({("callgate", REVISION): half}, excused) == {("ping", "passes")}


def test_a_listed_scenario_that_the_suite_does_not_know_is_reported(half: Outcome) -> None:
    excused = known("caching", "tools-list", "no-such-scenario")
    assert told({("callgate", REVISION): half}, excused) == {("no-such-scenario", "fails")}


def test_directly_nothing_is_excused(half: Outcome) -> None:
    excused = known("caching", "tools-list")
    assert told({("direct", REVISION): half}, excused) == {("caching", "fails"), ("tools-list", "fails")}


def test_the_table_the_json_and_the_page_say_the_same(half: Outcome) -> None:
    outcomes: Outcomes = {("direct", REVISION): half}
    assert "caching     fails (3 of 4)  –" in table(outcomes, REVISION)
    assert as_json(outcomes)["direct"][REVISION]["scored"]["caching"]["failed"] == 3
    assert "| `caching` | fails (3 of 4) | – |" in page(outcomes)
    assert f"| {REVISION} | 1/3 | – |" in page(outcomes)


def test_the_file_names_revisions_that_exist(tmp_path: Path) -> None:
    file = tmp_path / "expected-failures.yaml"
    file.write_text("2031-01-01: [ping]\n", "utf-8")
    with pytest.raises(ValueError, match="2031-01-01"):
        expected(file)
    assert set(expected(KNOWN)) == set(REVISIONS)

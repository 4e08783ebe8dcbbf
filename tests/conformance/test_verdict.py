"""The judgement over an outcome of the suite: what is read, what is expected, what is reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conformance.page import page
from tests.conformance.run import KNOWN, arguments
from tests.conformance.suite import ANY, REVISIONS, SETS, Leg, Outcome, Scenario, idle, outcome, statuses
from tests.conformance.verdict import Asked, Known, Outcomes, as_json, expected, surprises, table

OUTPUT = [
    "=== Running scenario: ping ===",
    "✓ ping: 2 passed, 0 failed",
    "✗ caching: 1 passed, 3 failed",
    "✓ tasks-extra: 1 passed, 0 failed",
    "✓ skills-extra: 1 passed, 0 failed",
    "Total: 4 passed, 3 failed",
    "  ✗ caching (extension)",
]
REVISION = REVISIONS[0]
THROUGH = Asked("server", "callgate", REVISION)
DIRECT = Asked("server", "direct", REVISION)


@pytest.fixture
def half() -> Outcome:
    return outcome(REVISION, ["ping", "caching", "tools-list"], OUTPUT, frozenset({"skills-extra"}))


def test_a_scored_scenario_that_did_not_run_counts_as_failed(half: Outcome) -> None:
    assert half.failing == {"caching", "tools-list"}
    assert [scenario.name for scenario in half.unscored] == ["tasks-extra", "skills-extra"]


def known(*scored: str, beside: tuple[str, ...] = ("skills-extra",)) -> dict[tuple[Leg, str], Known]:
    return {("server", REVISION): Known(frozenset(scored), frozenset(beside))}


def told(outcomes: Outcomes, excused: dict[tuple[Leg, str], Known]) -> set[tuple[str, str]]:
    return {(surprise.scenario, surprise.kind) for surprise in surprises(outcomes, excused)}


def test_what_is_listed_may_fail_and_nothing_else(half: Outcome) -> None:
    assert told({THROUGH: half}, known("caching", "tools-list")) == set()
    assert told({THROUGH: half}, known("caching")) == {("tools-list", "fails")}


def test_what_is_listed_must_not_pass(half: Outcome) -> None:
    excused = known("caching", "tools-list", "ping")
    assert told({THROUGH: half}, excused) == {("ping", "passes")}


def test_a_listed_scenario_that_the_suite_does_not_know_is_reported(half: Outcome) -> None:
    excused = known("caching", "tools-list", "no-such-scenario")
    assert told({THROUGH: half}, excused) == {("no-such-scenario", "fails")}


def test_what_is_not_scored_is_judged_by_its_own_list(half: Outcome) -> None:
    scored = ("caching", "tools-list")
    assert told({THROUGH: half}, known(*scored, beside=())) == {("skills-extra", "fails")}
    both = ("skills-extra", "tasks-extra")
    assert told({THROUGH: half}, known(*scored, beside=both)) == {("tasks-extra", "passes")}
    assert told({THROUGH: half}, known(*scored, *both)) >= {("skills-extra", "fails")}


def test_directly_nothing_is_excused(half: Outcome) -> None:
    excused = known("caching", "tools-list")
    assert told({DIRECT: half}, excused) == {("caching", "fails"), ("tools-list", "fails"), ("skills-extra", "fails")}


def test_scenarios_in_folders_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "auth" / "basic-2026-01-02T03-04-05-678Z"
    folder.mkdir(parents=True)
    (folder / "checks.json").write_text('[{"id": "one", "status": "SUCCESS"}]', "utf-8")
    assert statuses(tmp_path) == {"auth/basic": ["SUCCESS"]}


def test_a_scenario_of_which_everything_was_skipped_shows_nothing(tmp_path: Path, half: Outcome) -> None:
    for folder, ended in (
        ("server-tasks-extra-2026-01-02T03-04-05-678Z", ["SUCCESS", "SKIPPED"]),
        ("skills-extra-2026-01-02T03-04-05-678Z", ["SKIPPED", "INFO", "SKIPPED"]),
    ):
        (tmp_path / folder).mkdir()
        checks = [{"id": "one", "status": status} for status in ended]
        checks.append({"id": "wire-schema-valid", "status": "SUCCESS"})
        (tmp_path / folder / "checks.json").write_text(json.dumps(checks), "utf-8")
    assert set(statuses(tmp_path)) == {"tasks-extra", "skills-extra"}
    assert idle(tmp_path) == {"skills-extra"}
    assert {scenario.name: scenario.good for scenario in half.unscored} == {"tasks-extra": True, "skills-extra": False}


def test_the_table_the_json_and_the_page_say_the_same(half: Outcome) -> None:
    outcomes: Outcomes = {DIRECT: half}
    assert "caching       fails (3 of 4)  –" in table(outcomes, "server", REVISION)
    assert as_json(outcomes)["server"]["direct"][REVISION]["scored"]["caching"]["failed"] == 3
    assert "| `caching` | fails (3 of 4) | – |" in page(outcomes)
    assert "| `skills-extra` | not offered | – |" in page(outcomes)
    assert f"| Server scenarios, {REVISION} | 1/3 | – |" in page(outcomes)


def test_what_the_sdk_cannot_play_is_named_and_not_counted() -> None:
    played = Outcome(REVISION, (Scenario("initialize", True, 1, 0),), (Scenario("auth/dpop", True, 9, 0),))
    outcomes: Outcomes = {Asked("client", "callgate", REVISION): played}
    assert f"| Client scenarios, {REVISION} | – | 1/1 |" in page(outcomes)
    assert "drafts: `auth/dpop`, `auth/dpop-nonce`, `auth/wif-jwt-bearer`." in page(outcomes)
    assert "| `auth/dpop` | – | passes |" in page(outcomes)


def test_an_authorization_server_is_asked_once_and_in_no_revision() -> None:
    failing = Scenario("authorization-code-grant", False, 1, 2)
    asked = Asked("authorization", "callgate", ANY)
    outcomes: Outcomes = {asked: Outcome(ANY, (failing,), ())}
    assert "| Authorization server scenarios | – | 0/1 |" in page(outcomes)
    assert "| `authorization-code-grant` | – | fails (2 of 3) |" in page(outcomes)
    assert table(outcomes, "authorization", ANY).startswith("Authorization scenarios\n")
    none = expected(KNOWN)
    assert [str(each) for each in surprises(outcomes, none)] == [
        "authorization any authorization-code-grant: fails through callgate"
    ]


@pytest.mark.parametrize("given", ["direct", "gateway --revision 2025-11-25", "gateway --url http://127.0.0.1:1/mcp"])
def test_the_authorization_leg_has_a_callgate_of_its_own(given: str) -> None:
    with pytest.raises(SystemExit):
        arguments([*given.split(), "--leg", "authorization"])
    assert "authorization" not in arguments(given.split()).legs
    assert "authorization" in arguments(["all"]).legs


def test_the_file_names_legs_and_revisions_that_exist(tmp_path: Path) -> None:
    file = tmp_path / "expected-failures.yaml"
    for strange in (
        "server: {2031-01-01: [ping]}",
        "proxy: {}",
        "authorization: {2031-01-01: [a]}",
        "extensions: {server: {2031-01-01: [ping]}}",
    ):
        file.write_text(strange + "\n", "utf-8")
        with pytest.raises(ValueError, match=r"2031-01-01|proxy"):
            expected(file)
    file.write_text("client: {2025-11-25: [a]}\nextensions: {client: {2025-11-25: [b]}}\n", "utf-8")
    assert expected(file)["client", "2025-11-25"] == Known(frozenset("a"), frozenset("b"))
    assert set(expected(KNOWN)) == {(leg, each) for leg, sets in SETS.items() for each in sets}

"""How the suite is run, with a program in its place that does what the suite does: writes checks, says how it went."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conformance.suite import Suite

REQUIREMENTS = """\
server: [ping]
client: [initialize, auth/basic, sse-retry]
not_scored:
  - {scenario: extra, leg: client, reason: extension}
  - {scenario: auth/jwt, leg: client, reason: extension}
  - {scenario: other, leg: server, reason: extension}
"""
PLAYED = """\
#!{python}
import json, pathlib, sys
given = dict(zip(sys.argv, sys.argv[1:]))
name, folder = given["--scenario"], pathlib.Path(given["-o"])
before = len(list(folder.glob(name + "-*")))
ended = {{"sse-retry": "SUCCESS" if before else "WARNING", "extra": "SKIPPED"}}.get(name, "SUCCESS")
found = folder / f"{{name}}-2026-01-01T00-00-0{{before}}-000Z"
found.mkdir(parents=True)
checks = [{{"id": "one", "status": ended}}, {{"id": "wire-schema-valid", "status": "SUCCESS"}}]
(found / "checks.json").write_text(json.dumps(checks))
print(sys.argv)
sys.exit(ended == "WARNING")
"""


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    package = tmp_path / "package"
    (package / "requirements").mkdir(parents=True)
    (package / "requirements" / "2025-11-25.yaml").write_text(REQUIREMENTS, "utf-8")
    node = tmp_path / "node"
    node.write_text(PLAYED.format(python=sys.executable), "utf-8")
    node.chmod(0o755)
    return Suite(node, package)


def test_scenarios_are_played_one_by_one_without_those_that_are_left_out(suite: Suite, tmp_path: Path) -> None:
    started: list[tuple[str, int]] = []
    results = tmp_path / "results"

    def progress(name: str, number: int) -> None:
        started.append((name, number))

    outcome = suite.play("a client", "2025-11-25", results, progress, frozenset({"auth/jwt"}))
    assert started == [("initialize", 1), ("auth/basic", 2), ("sse-retry", 3), ("extra", 4)]
    assert [(scenario.name, scenario.good) for scenario in outcome.scored] == [
        ("initialize", True),
        ("auth/basic", True),
        ("sse-retry", True),
    ]
    assert "'--command', 'a client'" in (results / "auth-basic.txt").read_text("utf-8")


def test_what_measures_time_gets_a_second_try_and_what_was_skipped_is_not_good(suite: Suite, tmp_path: Path) -> None:
    outcome = suite.play("a client", "2025-11-25", tmp_path / "results", lambda name, number: None)
    assert outcome.failing == frozenset()
    extra = outcome.unscored[0]
    assert (extra.good, extra.idle) == (False, True)

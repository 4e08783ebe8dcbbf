"""`callgate policy diff`, `replay` and `coverage`, from files and at a running gateway."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.office import BOB, EVE, POLICY, Done, Office, run

NARROWER = POLICY.replace("rules:\n", "rules:\n  - {id: nothing-more, deny: ['notes/*']}\n", 1)


def test_diff_over_the_configuration(tmp_path: Path) -> None:
    """Without a gateway that has run no tools are known; then that is said."""
    (tmp_path / "old.yaml").write_text(POLICY)
    (tmp_path / "new.yaml").write_text(NARROWER)
    (tmp_path / "data").mkdir()
    (tmp_path / "callgate.yaml").write_text("data_dir: data\n")
    done = run("policy", "diff", "old.yaml", "new.yaml", "-c", "callgate.yaml", folder=tmp_path)
    assert done.status == 0
    assert "No tools are known" in done.err


def test_coverage_exits_1_for_untested_rules(tmp_path: Path) -> None:
    (tmp_path / "new.yaml").write_text(NARROWER)
    (tmp_path / "callgate.yaml").write_text("data_dir: .\n")
    done = run("policy", "coverage", "new.yaml", "-c", "callgate.yaml", "-o", "json", folder=tmp_path)
    assert done.status == 1
    assert "nothing-more" in done.err
    assert {each["rule"]: each["tests"] for each in json.loads(done.out)}["nothing-more"] == 0


SHUT = POLICY.replace("rules:\n", "rules:\n  - {id: shut, deny: ['notes/*']}\n", 1)


@pytest.mark.parametrize("of", ["gateway", "files"])
def test_diff_and_replay_know_the_tools_and_the_calls_of_a_gateway(office: Office, tmp_path: Path, of: str) -> None:
    """Asked of the running gateway, or read from its configuration and its data folder."""
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(POLICY)
    new.write_text(SHUT)
    office.call("notes/read", "title=a")
    more = ("-o", "json", *(("-c", "callgate.yaml") if of == "files" else ()))

    def done(*arguments: str) -> Done:
        return office.cli("policy", *arguments, *more, token=EVE)

    found = done("diff", str(old), str(new))
    assert found.status == 1, found
    rows = json.loads(found.out)
    assert {each["rule_after"] for each in rows} == {"shut"}
    assert {"ann", "(role dev)", "bob"} & {each["subject"] for each in rows}
    same = done("diff", str(old), str(old))
    assert (same.status, json.loads(same.out), "0 differences" in same.err) == (0, [], True)
    found = done("replay", str(new), "--since", "1h")
    assert found.status == 1, found
    assert ("allow", "deny", "shut") in {(e["before"], e["after"], e["rule_after"]) for e in json.loads(found.out)}
    assert "allow → deny" in found.err
    assert {row["rule"]: row["tools"] for row in json.loads(done("coverage", str(new)).out)}["shut"] > 0


def test_only_who_reads_everything_is_told_of_all_calls(office: Office, tmp_path: Path) -> None:
    """Somebody else judges its own calls, and only the tools that it may see."""
    new = tmp_path / "new.yaml"
    new.write_text(SHUT)
    office.call("notes/read", "title=a")
    found = office.cli("policy", "replay", str(new), "--since", "1h", "--all", "-o", "json", token=BOB)
    assert {each["subject"] for each in json.loads(found.out)} <= {"bob"}

"""The commands that read files: policy, config; and what every command shares."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from callgate.cli import reference
from tests.office import POLICY, Done, run
from tests.processes import environment

FAILING = POLICY.replace("expect: deny, by: no-burning", "expect: allow")


def test_policy_test_runs_the_tests_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(POLICY)
    done = run("policy", "test", "p.yaml", folder=tmp_path)
    assert done.status == 0
    assert [row[0] for row in done.rows] == ["pass", "pass"]
    assert "2 tests, 0 failed" in done.err


def test_policy_test_exits_1_when_one_fails_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(FAILING)
    done = run("policy", "test", "p.yaml", "-o", "json", folder=tmp_path)
    assert done.status == 1
    failed = [each for each in json.loads(done.out) if each["result"] == "FAIL"]
    assert [(each["expected"], each["got"], each["by"]) for each in failed] == [("allow", "deny", "no-burning")]
    assert failed[0]["place"].startswith("p.yaml:")


def test_policy_test_without_a_file_takes_the_configured_policy(tmp_path: Path) -> None:
    (tmp_path / "callgate.yaml").write_text("policy: p.yaml\n")
    (tmp_path / "p.yaml").write_text(FAILING)
    assert run("policy", "test", folder=tmp_path).status == 1
    (tmp_path / "callgate.yaml").write_text("servers: {}\n")
    none = run("policy", "test", folder=tmp_path)
    assert (none.status, "No policy is configured" in none.err) == (3, True)


def test_a_broken_policy_exits_3_with_its_place_and_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("version: 1\nrules:\n  - id: a\n    alow: ['*/*']\n")
    done = run("policy", "test", "p.yaml", folder=tmp_path)
    assert done.status == 3
    assert "--> p.yaml:4:5" in done.err
    assert "`allow`" in done.err


def test_policy_explain_names_the_deciding_rule_and_the_failing_clause(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(POLICY)

    def explained(*arguments: str) -> Done:
        return run("policy", "explain", "--as", "bob", *arguments, "p.yaml", folder=tmp_path)

    denied = explained("--role", "dev", "notes/burn")
    assert denied.status == 0
    assert "denied by no-burning: books are not burnt" in denied.out
    assert "it is for roles dev; the caller has none" in explained("notes/erase").out
    assert "allowed by everybody-reads" in explained("--read-only", "notes/read").out
    asked = explained("--role", "dev", "notes/lend", "days=9", "-o", "json")
    assert json.loads(asked.out)["verdict"]["effect"] == "ask"


def test_config_show_names_the_source_of_every_value_and_masks_secrets(tmp_path: Path) -> None:
    (tmp_path / "callgate.yaml").write_text("servers:\n  s:\n    command: x\n    env: {API_TOKEN: hunter2}\n")
    done = run("config", "show", "--origin", folder=tmp_path, env={"CALLGATE_AUDIT__DURABILITY": "strict"})
    rows = {row[0]: row[1:] for row in done.rows}
    assert done.status == 0
    assert rows["servers.s.command"] == ["x", "callgate.yaml:3"]
    assert rows["audit.durability"] == ["strict", "environment CALLGATE_AUDIT__DURABILITY"]
    assert rows["listen"][1] == "default"
    assert "hunter2" not in done.out
    plain = run("config", "show", "-o", "json", folder=tmp_path)
    assert {"key": "servers.s.command", "value": "x"} in json.loads(plain.out)


def test_config_schema_prints_the_published_schema(tmp_path: Path) -> None:
    done = run("config", "schema", folder=tmp_path)
    assert json.loads(done.out)["title"] == "callgate.yaml"


@pytest.mark.parametrize("command", [("config", "show"), ("up",), ("stdio",)])
def test_a_mistake_in_the_configuration_exits_3(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "callgate.yaml").write_text("sevrers: {}\n")
    done = run(*command, folder=tmp_path)
    assert done.status == 3
    assert "--> callgate.yaml:1:1" in done.err
    assert "`servers`" in done.err
    assert done.out == ""


def test_up_says_which_port_is_taken(tmp_path: Path) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        (tmp_path / "state").mkdir()
        (tmp_path / "callgate.yaml").write_text("data_dir: state\n")
        done = run("up", "--port", str(other.getsockname()[1]), "--admin-port", "0", folder=tmp_path)
    assert done.status == 3
    assert "another program uses this port" in done.err
    assert "--port" in done.err


def test_the_demo_takes_no_configuration(tmp_path: Path) -> None:
    assert run("up", "--demo", "-c", "callgate.yaml", folder=tmp_path).status == 2


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (("lss",), '"ls"'),
        (("polcy", "test"), '"policy"'),
        (("policy", "tset"), '"test"'),
        (("up", "--prot", "1"), "--port"),
        (("logs", "--folow"), "--follow"),
    ],
)
def test_an_unknown_command_or_option_exits_2_with_the_nearest_name(
    tmp_path: Path, arguments: tuple[str, ...], near: str
) -> None:
    done = run(*arguments, folder=tmp_path)
    assert done.status == 2
    assert f"Did you mean {near}?" in done.err
    assert done.err.startswith("error[CG0200]")


def test_version_and_help_import_no_command(tmp_path: Path) -> None:
    from callgate import __version__

    heavy = (
        "sqlalchemy",
        "starlette",
        "uvicorn",
        "cel_expr_python",
        "cryptography",
        "yaml",
        "asyncio",
        "callgate.config",
    )
    program = (
        "import sys; from callgate.cli import main; code = main(sys.argv[1:]);"
        f"print(code, sorted(set({heavy!r}) & set(sys.modules)), file=sys.stderr)"
    )
    for arguments in (["--help"], ["--version"], ["policy", "--help"]):
        ran = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
        assert ran.stderr == "0 []\n"
        assert __version__ in ran.stdout if arguments == ["--version"] else "Usage: callgate" in ran.stdout


def test_the_commands_that_ask_a_gateway_do_not_import_one(tmp_path: Path) -> None:
    program = (
        "import sys, callgate.cli.ls, callgate.cli.call, callgate.cli.logs, callgate.cli.why;"
        "heavy = {'starlette', 'uvicorn', 'sqlite3', 'cryptography', 'callgate.gateway', 'callgate.policy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=30
    )
    assert (ran.stdout, ran.returncode) == ("[]\n", 0)


def test_the_reference_names_every_command_and_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reference.main([str(tmp_path)]) == 0
    page = tmp_path / "cli.md"
    text = page.read_text(encoding="utf-8")
    for title in ("callgate up", "callgate call", "callgate policy explain", "callgate config show"):
        assert f"\n## {title}\n" in text
    assert "`--follow`, `-f`" in text and "CALLGATE_TOKEN" in text
    assert reference.main(["--check", str(tmp_path)]) == 0
    page.write_text(text + "by hand\n", encoding="utf-8")
    assert reference.main(["--check", str(tmp_path)]) == 1
    assert "differs from the commands" in capsys.readouterr().err
    assert reference.main(["--chek"]) == 2

"""`callgate secret …`: what it takes, what it prints, and what it never prints."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.office import Done, run
from tests.processes import environment

CANARY = "canary-93c1e7"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    servers = 'servers:\n  docs: {url: "http://127.0.0.1:9/mcp", headers: {Authorization: "secret:docs-token"}}\n'
    servers += "  mail: {command: cat, env: {A: 'secret:docs-token', B: 'secret:absent', C: 'secret:outside'}}\n"
    (tmp_path / "callgate.yaml").write_text("data_dir: state\n" + servers)
    return tmp_path


def secret(folder: Path, *arguments: str, stdin: str = "", **env: str) -> Done:
    done = run("secret", *arguments, folder=folder, stdin=stdin, env=env)
    assert CANARY not in done.out + done.err, done
    return done


def listed(folder: Path) -> dict[str, dict[str, object]]:
    done = secret(folder, "ls", "-o", "json", CALLGATE_SECRET_OUTSIDE="x")
    return {row.pop("name"): row for row in json.loads(done.out)}


def test_set_reads_stdin_and_ls_tells_names_only(folder: Path) -> None:
    assert secret(folder, "set", "docs-token", stdin=f"{CANARY}\n").err == "docs-token is set (version 1).\n"
    again = secret(folder, "set", "docs-token", "-o", "json", stdin=CANARY)
    assert json.loads(again.out) == {"name": "docs-token", "version": 2}
    rows = listed(folder)
    assert {name: (row["version"], row["source"], row["used_by"]) for name, row in rows.items()} == {
        "docs-token": (2, "store", ["docs", "mail"]),
        "absent": (0, "missing", ["mail"]),
        "outside": (0, "environment", ["mail"]),
    }
    assert secret(folder, "ls").rows[0][:2] == ["docs-token", "2"]


@pytest.mark.parametrize(
    "arguments",
    [("docs-token", CANARY), (f"docs-token={CANARY}",), ("docs-token", f"--value={CANARY}"), ("a", "b", CANARY)],
)
def test_a_value_on_the_command_line_is_refused_and_not_repeated(folder: Path, arguments: tuple[str, ...]) -> None:
    done = secret(folder, "set", *arguments, stdin="another")
    assert done.status == 2
    assert "docs-token" not in {name for name, row in listed(folder).items() if row["source"] == "store"}


def test_a_value_in_the_place_of_the_name_is_not_repeated(folder: Path) -> None:
    assert secret(folder, "set", f"{CANARY} with spaces", stdin="x").status == 2


@pytest.mark.parametrize("name", ["../docs", "a/b", "..", "/etc/passwd", ".hidden"])
def test_names_that_lead_elsewhere_are_refused(folder: Path, name: str) -> None:
    assert [secret(folder, verb, name, stdin="x").status for verb in ("set", "rm")] == [2, 2]
    assert sorted(path.name for path in folder.iterdir()) == ["callgate.yaml", "state"]


@pytest.mark.parametrize("stdin", ["", "\n", "x" * (64 * 1024 + 10)])
def test_nothing_and_too_much_are_refused(folder: Path, stdin: str) -> None:
    assert secret(folder, "set", "docs-token", stdin=stdin).status == 2


def test_rm_and_what_is_not_there(folder: Path) -> None:
    secret(folder, "set", "docs-token", stdin=CANARY)
    missing = secret(folder, "rm", "docs-tokn")
    assert (missing.status, "Did you mean `docs-token`?" in missing.err) == (4, True)
    assert json.loads(secret(folder, "rm", "docs-token", "-o", "json").out) == {"name": "docs-token"}
    assert listed(folder)["docs-token"]["source"] == "missing"


def test_rotate_key_and_a_key_that_others_read(folder: Path) -> None:
    secret(folder, "set", "docs-token", stdin=CANARY)
    key = (folder / "state" / "secrets.key").read_text()
    assert json.loads(secret(folder, "rotate-key", "-o", "json").out) == {"secrets": 1}
    assert (folder / "state" / "secrets.key").read_text() != key
    (folder / "state" / "secrets.key").chmod(0o644)
    refused = secret(folder, "rotate-key")
    assert (refused.status, "chmod 600" in refused.err) == (3, True)


def test_the_key_may_come_from_the_environment_and_a_misspelt_one_is_not_shown(folder: Path) -> None:
    key = base64.b64encode(os.urandom(32)).decode()
    secret(folder, "set", "docs-token", stdin=CANARY, CALLGATE_SECRETS_KEY=key)
    assert not (folder / "state" / "secrets.key").exists()
    assert secret(folder, "rotate-key", CALLGATE_SECRETS_KEY=key).status == 2
    wrong = secret(folder, "ls", CALLGATE_SECRETS_KEYS=CANARY)
    assert (wrong.status, "names no setting" in wrong.err) == (3, True)


def test_a_wrong_configuration_is_told_as_everywhere(folder: Path) -> None:
    (folder / "callgate.yaml").write_text("data_dir: nowhere\n")
    assert secret(folder, "set", "docs-token", stdin=CANARY).status == 3


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(("again", "status"), [(CANARY, 0), ("something else", 2)])
def test_on_a_terminal_the_value_is_asked_for_twice_and_not_shown(folder: Path, again: str, status: int) -> None:
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "callgate", "secret", "set", "docs-token"],
        cwd=folder, env=environment({"HOME": str(folder)}), stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True, preexec_fn=_own_terminal,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    for question, value in ((b"Value of docs-token: ", CANARY), (b"Once more: ", again)):
        while question not in shown:
            shown += os.read(ours, 4096)
        os.write(ours, f"{value}\n".encode())
    assert process.wait(20) == status
    try:
        while more := os.read(ours, 4096):
            shown += more
    except OSError:  # the other end has closed the terminal
        pass
    os.close(ours)
    assert CANARY.encode() not in shown
    assert (listed(folder)["docs-token"]["source"] == "store") is (status == 0)


def _own_terminal() -> None:
    """Make stdin the terminal that `/dev/tty` leads to."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)

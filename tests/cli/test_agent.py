"""`callgate agent`: the registry as the configuration has it, and secrets that nobody keeps."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.office import run

CONFIG = {
    "identity": {
        "oauth": {},
        "agents": {
            "planner": {"owner": "ann", "secret_sha256": "0" * 64, "roles": ["planner"], "may_delegate_to": ["coder"]},
            "coder": {"jwks_uri": "https://coder.example.org/jwks", "status": "suspended"},
        },
    }
}


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "callgate.yaml"
    path.write_text(json.dumps(CONFIG))
    return str(path)


@pytest.mark.key("identity.agents.owner", "identity.agents.secret_sha256")
def test_the_agents_without_their_hashes(file: str) -> None:
    done = run("agent", "ls", "-c", file, folder=Path(file).parent)
    assert done.status == 0, done.err
    assert [row[:5] for row in done.rows] == [
        ["planner", "active", "ann", "planner", "secret"],
        ["coder", "suspended", "", "", "jwks"],
    ]
    shown = run("agent", "show", "planner", "-c", file, "-o", "json", folder=Path(file).parent)
    assert json.loads(shown.out)["subject"] == "agent:planner"
    assert "0" * 64 not in done.out + shown.out


def test_an_unknown_agent_names_the_nearest(file: str) -> None:
    done = run("agent", "show", "planer", "-c", file, folder=Path(file).parent)
    assert (done.status, done.out) == (4, "")
    assert "Did you mean `planner`?" in done.err


def test_a_secret_and_its_line(tmp_path: Path) -> None:
    done = run("agent", "secret", "planner", folder=tmp_path)
    (secret,) = done.out.split()
    assert f"secret_sha256: {hashlib.sha256(secret.encode()).hexdigest()}" in done.err and secret not in done.err
    made = json.loads(run("agent", "secret", "planner", "-o", "json", folder=tmp_path).out)
    assert made["secret"] != secret
    assert made["secret_sha256"] == hashlib.sha256(made["secret"].encode()).hexdigest()

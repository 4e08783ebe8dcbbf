"""The policy that callgate is measured with does what the page says: it lets the calls through, by its last rule."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.governance import KEY, Shape, http_server, policy, settings, stdio_server, write
from callgate.config import load, parse_document
from callgate.policy import load_policy
from callgate.types import Call, Front, Principal, Tool


def call(server: str = "bench", tool: str = "echo", roles: tuple[str, ...] = ("bench",)) -> Call:
    who = Principal(subject="agent:bench", key="k", roles=roles)
    one = Tool(server=server, name=tool, exposed=f"{server}__{tool}", definition=b"{}")
    return Call(id=1, principal=who, tool=one, arguments={}, front=Front(), received=0)


@pytest.mark.parametrize("rules", [1, 10, 100, 1000])
def test_the_last_of_the_rules_decides(rules: int) -> None:
    written = policy(rules)
    assert len(written["rules"]) == rules
    loaded = load_policy([parse_document(json.dumps(written), "policy.yaml")])
    verdict = loaded.decide(call())
    assert (verdict.effect, verdict.rule) == ("allow", "bench")
    assert loaded.decide(call(roles=())).effect == "deny"


def test_other_rules_would_decide_other_calls() -> None:
    loaded = load_policy([parse_document(json.dumps(policy(100)), "policy.yaml")])
    assert loaded.decide(call(roles=("bench", "suspended-3"))).rule == "rule-3"
    assert loaded.decide(call(tool="drop_1_table")).rule == "rule-1"


@pytest.mark.parametrize("shape", [Shape(), Shape(rules=0), Shape(durability="strict")])
def test_callgate_accepts_the_configuration(tmp_path: Path, shape: Shape) -> None:
    (tmp_path / "data").mkdir()
    servers = {"bench": http_server(9), "pipe": stdio_server(["python", "-m", "bench.upstream_stdio"])}
    file = write(tmp_path / "callgate.yaml", settings(servers, shape, tmp_path / "data"))
    loaded = load(file, env={}, cwd=tmp_path)
    assert loaded.settings.audit.durability == shape.durability
    assert len(loaded.settings.identity.keys) == bool(shape.rules)
    assert bool(loaded.policy) == bool(shape.rules)


def test_the_key_itself_is_not_in_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "callgate.yaml", settings({}, Shape(), tmp_path))
    assert KEY not in file.read_text(encoding="utf-8")

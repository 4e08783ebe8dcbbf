"""What lists show, and what is kept between calls."""

from __future__ import annotations

import gc
from datetime import UTC, datetime
from typing import Any

import pytest

from callgate.policy import Policy, open_policy
from callgate.policy.bounded import Bounded
from callgate.types import Front, Principal, Tool
from tests.policy.cast import call, of_rules, policy, someone, stranger, tool

READ = tool("git/status", read_only=True)
PUSH = tool("git/push")
DELETE = tool("git/delete_tag")
TOOLS = [READ, PUSH, DELETE]


def names(made: Policy, who: Principal, front: Front | None = None) -> list[str]:
    return [found.name for found in made.visible(who, TOOLS, front or Front())]


ALL = {"id": "all", "allow": ["*/*"]}


def allowing(when: str) -> dict[str, Any]:
    return {"id": "a", "allow": ["*/*"], "when": when}


def denying(when: str, *tools: str) -> dict[str, Any]:
    return {"id": "d", "deny": tools or ["*/*"], "when": when}


@pytest.mark.parametrize(
    ("rules", "shown"),
    [
        ([], []),
        ([ALL], ["status", "push", "delete_tag"]),
        ([{"id": "a", "ask": ["git/push"]}], ["push"]),
        ([ALL, {"id": "d", "deny": ["*/delete_*"]}], ["status", "push"]),
        ([allowing("tool.readOnly")], ["status"]),
        ([allowing("args.x > 1")], ["status", "push", "delete_tag"]),
        ([ALL, denying("args.x > 1")], ["status", "push", "delete_tag"]),
        ([ALL, denying("tool.name != 'push'")], ["push"]),
        ([ALL, denying("size(caller.subject) > size(tool.name)")], ["status", "delete_tag"]),
        ([allowing("size(tool.name) / size(caller.roles) == 1")], []),
        ([ALL, denying("tool.name.matches('(')", "*/p*")], ["status", "delete_tag"]),
        ([allowing("now.getHours() == 12 && tool.name == 'push'")], ["push"]),
        ([{"id": "a", "ask": ["*/*"], "when": "size(caller.subject) / size(caller.roles) == size(tool.name)"}], []),
    ],
)
def test_visible(rules: list[dict[str, Any]], shown: list[str]) -> None:
    made, who = of_rules(*rules), someone("alice")
    assert names(made, who) == shown
    assert names(made, who) == shown


def test_default_allow_shows_what_is_not_denied_for_certain() -> None:
    made = of_rules(
        {"id": "d", "deny": ["*/delete_*"]},
        {"id": "e", "deny": ["*/*"], "when": "args.x"},
        {"id": "f", "deny": ["*/*"], "when": "caller.subject == tool.name"},
        default="allow",
    )
    assert names(made, someone()) == ["status", "push"]
    assert names(made, someone("push")) == ["status"]
    assert names(open_policy(), stranger()) == ["status", "push", "delete_tag"]


def test_a_list_may_depend_on_the_request() -> None:
    made = of_rules({"id": "a", "allow": ["*/*"], "when": "request.transport == 'stdio'"})
    who = someone()
    assert names(made, who, Front(transport="stdio")) == ["status", "push", "delete_tag"]
    assert names(made, who, Front(transport="http")) == []
    assert made.list_key(who, Front(transport="stdio")) != made.list_key(who, Front(transport="http"))


def test_list_keys() -> None:
    made = of_rules(
        {"id": "a", "allow": ["git/*"], "to": {"roles": ["dev"]}},
        {"id": "b", "allow": ["git/*"], "to": {"roles": ["qa"]}, "when": "caller.claims.team == tool.name"},
        {"id": "c", "allow": ["git/*"], "to": {"roles": ["ops"]}, "when": "now.getHours() < 18"},
        {"id": "d", "allow": ["git/*"], "to": {"roles": ["night"]}, "when": "now.getHours() > args.hour"},
    )

    def key(*roles: str, **claims: Any) -> Any:
        return made.list_key(someone("x", *roles, claims=claims), Front())

    assert key("dev") == key("dev", team="push")  # claims count only where a rule looks at them
    assert key("dev") != key("other")
    assert key("qa", team="push") == key("qa", team="push")
    assert key("qa", team="push") != key("qa", team="status")
    assert key("qa", team=object()) is None
    assert key("ops") is None
    assert key("night") is not None
    assert key("dev") != of_rules({"id": "a", "allow": ["git/*"], "to": {"roles": ["dev"]}}).list_key(
        someone("x", "dev"), Front()
    )
    hash(key("qa", team="push"))


def test_time_moves_lists() -> None:
    moments = iter([datetime(2026, 1, 1, 9, tzinfo=UTC), datetime(2026, 1, 1, 20, tzinfo=UTC)])
    made = policy("rules: [{id: r, allow: ['git/push'], when: now.getHours() < 18}]", clock=lambda: next(moments))
    who = someone()
    assert names(made, who) == ["push"]
    assert names(made, who) == []


def test_new_roles_under_the_same_key_are_seen_at_once() -> None:
    made = of_rules({"id": "a", "allow": ["*/*"], "to": {"roles": ["dev"]}})
    before, after = Principal("alice", "k", roles=("dev",)), Principal("alice", "k", roles=())
    assert made.decide(call(before, "a/b")).effect == "allow"
    assert made.decide(call(after, "a/b")).effect == "deny"
    assert made.decide(call(before, "a/b")).effect == "allow"


def test_a_principal_at_the_address_of_a_dead_one_is_not_mistaken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callgate.policy.compile.MAX_CALLERS", 2)
    made = of_rules({"id": "a", "allow": ["*/*"], "to": {"roles": ["dev"]}})
    for at in range(500):
        who = someone(f"user{at}", *(["dev"] if at % 3 == 0 else []))
        assert made.decide(call(who, "a/b")).effect == ("allow" if at % 3 == 0 else "deny")
        del who
    gc.collect()


def test_a_tool_whose_server_changes_its_claims_is_judged_anew() -> None:
    made = of_rules({"id": "a", "allow": ["*/*"], "when": "tool.readOnly"})
    who = someone()
    verdicts = [made.decide(call(who, tool("git/x", read_only=claim))).effect for claim in (True, False, False, True)]
    assert verdicts == ["allow", "deny", "deny", "allow"]


def test_prepare_changes_nothing_but_the_time_of_the_first_list() -> None:
    made = of_rules({"id": "a", "allow": ["*/*"], "when": "tool.readOnly"})
    made.prepare(TOOLS)
    assert names(made, someone()) == ["status"]


def test_bounded_forgets_the_least_used() -> None:
    cache: Bounded[int, str] = Bounded(10)
    for at in range(1000):
        cache.put(at, str(at))
        assert cache.get(0) == "0"
    assert len(cache) <= 20
    assert cache.get(500) is None
    assert cache.get(999) == "999"


def test_many_tools_many_servers() -> None:
    made = of_rules({"id": "a", "allow": ["srv1?/get_*"]}, {"id": "b", "deny": ["*/*_3"]})
    tools = [Tool(f"srv{at % 30}", f"{verb}_{at // 30}", "x", b"{}") for at in range(900) for verb in ("get", "put")]
    shown = [one.native for one in made.visible(someone(), tools, Front())]
    assert shown == [f"srv{at % 30}/get_{at // 30}" for at in range(900) if 10 <= at % 30 < 20 and at // 30 not in (3,)]

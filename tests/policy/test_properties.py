"""Laws that hold for any policy: lists agree with calls, order changes nothing, masks agree with reading aloud."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callgate.policy import Explanation, Policy
from callgate.types import Actor, Call, Effect, Front, Principal, Tool
from tests.policy.cast import of_rules

SERVERS, NAMES, ROLES = ("git", "pay"), ("get", "delete_x", "push"), ("dev", "qa", "intern")
CONDITIONS = (
    "tool.readOnly",
    "!tool.destructive",
    "tool.name.startsWith(tool.description)",
    "tool.description.matches('(' + tool.description)",  # a fault, for the tool alone
    "'dev' in caller.roles",
    "caller.claims.team == 'x'",
    "caller.subject == tool.server",
    "1 / size(caller.roles) == 1 || tool.name == 'get'",
    "request.transport == 'stdio'",
    "args.amount > 5",
    "args.flag",
    "args.amount > 5 || tool.readOnly",
    "now.getHours() == 12",
    "now.getHours() == size(tool.name)",
    "size(chain) > 0 && 'intern' in chain[0].roles",
)

names = st.sampled_from(["get", "delete_x", "*", "*_x", "?ush", "[gp]*"])
tools = st.lists(st.tuples(st.sampled_from(["git", "pay", "*", "g*"]), names).map("/".join), min_size=1, max_size=2)
roles = st.lists(st.sampled_from([*ROLES, "*"]), min_size=1, max_size=2, unique=True)
to = st.one_of(
    st.fixed_dictionaries({"roles": roles}),
    st.fixed_dictionaries({"subjects": st.sampled_from([["anonymous"], ["git"], ["*"]])}),
    st.fixed_dictionaries({"agents": st.sampled_from([["agent:*"], ["git"]]), "roles": roles}),
)


@st.composite
def rules(draw: st.DrawFn) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for at in range(draw(st.integers(0, 5))):
        rule: dict[str, Any] = {"id": f"r{at}", draw(st.sampled_from(["allow", "deny", "ask"])): draw(tools)}
        if draw(st.booleans()):
            rule["to"] = draw(to)
        if draw(st.integers(0, 4)) == 0:
            rule["chain_any"] = {"roles": draw(roles)}
        if draw(st.booleans()):
            rule["when"] = draw(st.sampled_from(CONDITIONS))
        made.append(rule)
    return made


policies = st.tuples(rules(), st.sampled_from(["deny", "allow"]))
held = st.lists(st.sampled_from(ROLES), max_size=2).map(tuple)
callers = st.builds(
    Principal,
    subject=st.sampled_from(["alice", "git", "anonymous"]),
    key=st.just("k"),
    roles=held,
    claims=st.sampled_from([{}, {"team": "x"}, {"team": 1}]),
    chain=st.lists(st.builds(Actor, subject=st.sampled_from(["agent:a", "git"]), roles=held), max_size=2).map(tuple),
    via=st.sampled_from(["key", "anonymous"]),
)
fronts = st.builds(Front, transport=st.sampled_from(["http", "stdio"]))
arguments = st.sampled_from(
    [{}, {"amount": 6}, {"amount": 4}, {"amount": "x"}, {"flag": True}, {"flag": 1}, {"t": "x" * 70_000}]
)
CATALOG = [
    Tool(server, name, f"{server}__{name}", b"{}", description=text, read_only=reads, destructive=not reads)
    for server in SERVERS
    for name in NAMES
    for text, reads in (("g", True), ("p", False))
]


def verdict_aloud(explanation: Explanation) -> tuple[Effect, str]:
    """The verdict, read off what each rule made of the call, in the words of the language page."""
    traces = explanation.rules
    stands = {
        effect: [t.rule for t in traces if t.effect == effect and t.clause == ""] for effect in ("deny", "ask", "allow")
    }
    doubts = [t.rule for t in traces if t.effect == "ask" and t.result.startswith("undecided")]
    denies = [t.rule for t in traces if t.effect == "deny" and (t.clause == "" or t.result.startswith("undecided"))]
    if denies:
        return "deny", denies[0]
    if stands["ask"]:
        return "ask", stands["ask"][0]
    if stands["allow"] or explanation.default == "allow":
        if doubts:
            return "ask", doubts[0]
        return "allow", stands["allow"][0] if stands["allow"] else ""
    return "deny", ""


@settings(deadline=None)
@given(policies, callers, fronts, st.sampled_from(CATALOG), arguments)
@pytest.mark.rule("POL-1", "POL-2")
def test_masks_agree_with_reading_the_rules_one_by_one(
    made: tuple[list[dict[str, Any]], str], who: Principal, front: Front, tool: Tool, args: dict[str, Any]
) -> None:
    policy = of_rules(*made[0], default=made[1])
    asked = Call(1, who, tool, args, front, 0)
    first, second, explained = policy.decide(asked), policy.decide(asked), policy.explain(asked)
    assert first == second == explained.verdict
    assert (first.effect, first.rule) == verdict_aloud(explained)
    assert [trace.rule for trace in explained.rules if trace.decides] == ([first.rule] if first.rule else [])


def decided(policy: Policy, who: Principal, front: Front, tool: Tool, args: dict[str, Any]) -> tuple[Effect, str]:
    verdict = policy.decide(Call(1, who, tool, args, front, 0))
    return verdict.effect, verdict.rule


EVERY_ARGUMENTS: list[dict[str, Any]] = [{}, {"amount": 6}, {"amount": 4}, {"flag": True}, {"amount": 6, "flag": True}]


@settings(deadline=None)
@given(policies, callers, fronts)
@pytest.mark.rule("POL-5")
def test_what_lists_hide_is_denied_and_what_they_show_is_not_denied_for_certain(
    made: tuple[list[dict[str, Any]], str], who: Principal, front: Front
) -> None:
    policy = of_rules(*made[0], default=made[1])
    shown = policy.visible(who, CATALOG, front)
    assert shown == policy.visible(who, CATALOG, front)
    unconditional = {rule["id"] for rule in made[0] if "deny" in rule and "when" not in rule}
    for tool in CATALOG:
        verdicts = [decided(policy, who, front, tool, args) for args in EVERY_ARGUMENTS]
        if any(tool is one for one in shown):
            assert not any(rule in unconditional for _, rule in verdicts)
        else:
            assert {effect for effect, _ in verdicts} == {"deny"}


@settings(deadline=None)
@given(policies, st.randoms(use_true_random=False), callers, fronts, arguments)
@pytest.mark.rule("POL-1")
def test_the_order_of_rules_changes_nothing(
    made: tuple[list[dict[str, Any]], str], chance: Any, who: Principal, front: Front, args: dict[str, Any]
) -> None:
    shuffled = list(made[0])
    chance.shuffle(shuffled)
    one, other = of_rules(*made[0], default=made[1]), of_rules(*shuffled, default=made[1])
    for tool in CATALOG:
        assert decided(one, who, front, tool, args)[0] == decided(other, who, front, tool, args)[0]
    assert one.visible(who, CATALOG, front) == other.visible(who, CATALOG, front)


@settings(deadline=None)
@given(policies, st.lists(st.tuples(callers, fronts), min_size=2, max_size=6))
def test_equal_keys_see_equal_lists(
    made: tuple[list[dict[str, Any]], str], several: list[tuple[Principal, Front]]
) -> None:
    policy = of_rules(*made[0], default=made[1])
    seen: dict[Any, list[Tool]] = {}
    for who, front in several:
        key = policy.list_key(who, front)
        if key is not None:
            shown = policy.visible(who, CATALOG, front)
            assert seen.setdefault(key, shown) == shown

"""Laws that hold for any policy: lists agree with calls, order changes nothing, masks agree with reading aloud."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callgate.config import parse_document
from callgate.policy import Explanation, Policy, load_policy
from callgate.types import Actor, Call, Effect, Front, Principal, Tool
from tests.policy.cast import NOON, of_rules

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
    st.fixed_dictionaries({"claims": st.sampled_from([{"team": ["x"]}, {"team": [1]}, {"other": ["*"]}])}),
)
operations = st.lists(st.sampled_from(["read", "write", "delete"]), min_size=1, max_size=2, unique=True)


@st.composite
def rules(draw: st.DrawFn) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for at in range(draw(st.integers(0, 5))):
        rule: dict[str, Any] = {"id": f"r{at}", draw(st.sampled_from(["allow", "deny", "ask"])): draw(tools)}
        if draw(st.booleans()):
            rule["to"] = draw(to)
        if draw(st.integers(0, 4)) == 0:
            rule[draw(st.sampled_from(["chain_any", "chain_all", "chain_first"]))] = {"roles": draw(roles)}
        if draw(st.integers(0, 4)) == 0:
            rule["operations"] = draw(operations)
        if draw(st.integers(0, 6)) == 0:
            rule["virtual_servers"] = ["one"]
        if "allow" in rule and draw(st.integers(0, 4)) == 0:
            rule["needs"] = {"scopes": [draw(st.sampled_from(["s1", "s2"]))]}
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
    claims=st.sampled_from([{}, {"team": "x"}, {"team": 1}, {"scope": "s1"}]),
    chain=st.lists(st.builds(Actor, subject=st.sampled_from(["agent:a", "git"]), roles=held), max_size=2).map(tuple),
    via=st.sampled_from(["key", "jwt", "anonymous"]),
)
fronts = st.builds(Front, door=st.sampled_from(["", "virtual:one"]), transport=st.sampled_from(["http", "stdio"]))
arguments = st.sampled_from(
    [{}, {"amount": 6}, {"amount": 4}, {"amount": "x"}, {"flag": True}, {"flag": 1}, {"t": "x" * 70_000}]
)
CATALOG = [
    Tool(
        server,
        name,
        f"{server}__{name}",
        b"{}",
        description=text,
        read_only=reads,
        destructive=not reads,
        operation="read" if reads else "" if name == "get" else "delete",
    )
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
    lacks = [t.rule for t in traces if t.clause == "needs"]
    if denies:
        return "deny", denies[0]
    if stands["ask"]:
        return "ask", stands["ask"][0]
    if stands["allow"] or explanation.default == "allow":
        if doubts:
            return "ask", doubts[0]
        return "allow", stands["allow"][0] if stands["allow"] else ""
    return "deny", lacks[0] if lacks and explanation.verdict.scopes else ""


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


RANK = {"allow": 0, "ask": 1, "deny": 2}


@settings(deadline=None)
@given(policies, rules(), callers, fronts)
@pytest.mark.rule("POL-5")
def test_lists_and_calls_agree_and_lists_mark_what_depends_on_arguments(
    made: tuple[list[dict[str, Any]], str], lower: list[dict[str, Any]], who: Principal, front: Front
) -> None:
    """What is hidden is refused, and what is shown without a mark is allowed, whatever the arguments."""
    policy = layered(made, ("allow", lower))
    shown = {id(tool) for tool in policy.visible(who, CATALOG, front)}
    for tool in CATALOG:
        outlook = policy.outlook(who, tool, front)
        assert (outlook != "deny") == (id(tool) in shown)
        effects = {decided(policy, who, front, tool, args)[0] for args in EVERY_ARGUMENTS}
        if outlook in ("allow", "ask", "deny"):
            assert effects == {outlook}
        elif outlook == "scopes":
            assert effects == {"deny"}
            assert all(policy.decide(Call(1, who, tool, args, front, 0)).scopes for args in EVERY_ARGUMENTS)


def layered(upper: tuple[list[dict[str, Any]], str], *lower: tuple[str, list[dict[str, Any]]]) -> Policy:
    texts = [{"default": upper[1], "rules": upper[0]}]
    texts += [
        {"default": default, "rules": [{**rule, "id": f"{at}-{rule['id']}"} for rule in several]}
        for at, (default, several) in enumerate(lower)
    ]
    first, *rest = [parse_document(json.dumps(text), f"{at}.json") for at, text in enumerate(texts)]
    return load_policy([first, *(each.narrowing() for each in rest)], clock=lambda: NOON)


def never_more(before: Policy, after: Policy, who: Principal, front: Front) -> None:
    """Nothing that was refused or asked for is permitted, and no list shows what it did not show."""
    for tool in CATALOG:
        for args in EVERY_ARGUMENTS:
            one, other = (decided(each, who, front, tool, args)[0] for each in (before, after))
            assert RANK[other] >= RANK[one]
    seen = {id(tool) for tool in before.visible(who, CATALOG, front)}
    assert seen >= {id(tool) for tool in after.visible(who, CATALOG, front)}


@settings(deadline=None)
@given(policies, st.sampled_from(["deny", "allow"]), rules(), callers, fronts)
def test_another_layer_never_permits_more(
    made: tuple[list[dict[str, Any]], str], default: str, lower: list[dict[str, Any]], who: Principal, front: Front
) -> None:
    one = layered(made)
    two = layered(made, (default, lower))
    never_more(one, two, who, front)
    never_more(two, layered(made, (default, lower), ("allow", lower)), who, front)


@settings(deadline=None)
@given(policies, rules(), callers, fronts)
@pytest.mark.rule("POL-1")
def test_another_deny_rule_never_permits_more(
    made: tuple[list[dict[str, Any]], str], more: list[dict[str, Any]], who: Principal, front: Front
) -> None:
    denies = [
        {("deny" if key in ("allow", "ask") else key): value for key, value in rule.items() if key != "needs"}
        for rule in more
    ]
    added = [{**rule, "id": f"more-{rule['id']}"} for rule in denies]
    never_more(of_rules(*made[0], default=made[1]), of_rules(*made[0], *added, default=made[1]), who, front)


@settings(deadline=None)
@given(policies, rules(), callers, fronts, arguments)
@pytest.mark.rule("POL-11")
def test_shadow_rules_change_no_decision_and_no_list(
    made: tuple[list[dict[str, Any]], str],
    more: list[dict[str, Any]],
    who: Principal,
    front: Front,
    args: dict[str, Any],
) -> None:
    tried = [{**rule, "id": f"tried-{rule['id']}", "shadow": True} for rule in more]
    plain, beside = of_rules(*made[0], default=made[1]), of_rules(*made[0], *tried, default=made[1])
    real = of_rules(*made[0], *({**rule, "shadow": False} for rule in tried), default=made[1])
    assert plain.visible(who, CATALOG, front) == beside.visible(who, CATALOG, front)
    for tool in CATALOG:
        asked = Call(1, who, tool, args, front, 0)
        verdict, would = beside.decide(asked), real.decide(asked)
        assert (verdict.effect, verdict.rule) == decided(plain, who, front, tool, args)
        assert (verdict.shadow.effect if verdict.shadow else verdict.effect) == would.effect

"""Who may call what: precedence, matching, conditions that fail."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest

from callgate.policy import open_policy
from callgate.types import Front, Principal, Tool
from tests.policy.cast import call, of_rules, policy, someone, stranger, through, tool

ALLOW = {"id": "all", "allow": ["*/*"]}
SOME = {"id": "some", "ask": ["git/*"]}
NONE = {"id": "none", "deny": ["git/push"]}


@pytest.mark.rule("POL-1")
@pytest.mark.parametrize("rules", list(itertools.permutations([ALLOW, SOME, NONE])))
def test_deny_wins_over_ask_over_allow_in_any_order(rules: tuple[dict[str, Any], ...]) -> None:
    made = of_rules(*rules)
    verdicts = {name: made.decide(call(someone(), name)) for name in ("time/now", "git/status", "git/push")}
    assert {name: (verdict.effect, verdict.rule) for name, verdict in verdicts.items()} == {
        "time/now": ("allow", "all"),
        "git/status": ("ask", "some"),
        "git/push": ("deny", "none"),
    }


@pytest.mark.rule("POL-1")
def test_what_no_rule_matches_is_denied() -> None:
    verdict = of_rules({"id": "time", "allow": ["time/*"]}).decide(call(someone(), "git/push"))
    assert (verdict.effect, verdict.rule, verdict.reason) == ("deny", "", "no rule allows git/push")


def test_default_allow_lets_through_what_no_rule_names() -> None:
    made = of_rules(NONE, default="allow")
    assert made.decide(call(someone(), "git/status")).reason == "allowed by default"
    assert made.decide(call(someone(), "git/push")).effect == "deny"


def test_the_first_of_several_winning_rules_is_named() -> None:
    made = of_rules({"id": "one", "allow": ["*/*"], "when": "args.ok"}, {"id": "two", "allow": ["git/*"]})
    assert made.decide(call(someone(), "git/status", ok=True)).rule == "one"
    assert made.decide(call(someone(), "git/status", ok=False)).rule == "two"


def test_a_verdict_says_why_and_under_which_policy() -> None:
    made = of_rules(ALLOW, SOME, {**NONE, "reason": "releases go through CI"})
    allowed, asked, denied = (made.decide(call(someone(), name)) for name in ("a/b", "git/log", "git/push"))
    assert allowed.reason == "allowed by all"
    assert asked.reason == "approval asked for by some"
    assert denied.reason == "denied by none: releases go through CI"
    assert {allowed.policy, asked.policy, denied.policy} == {made.version}


def test_names_from_servers_do_not_reach_the_terminal_as_control_characters() -> None:
    reason = of_rules().decide(call(someone(), tool("git/\x1b[2Jpush"))).reason
    assert reason == "no rule allows git/\N{REPLACEMENT CHARACTER}[2Jpush"


def test_the_open_policy_allows_everybody_everything() -> None:
    verdict = open_policy().decide(call(stranger(), "git/push"))
    assert (verdict.effect, verdict.rule, verdict.policy) == ("allow", "", "none")
    assert verdict.reason == "no policy is configured"


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("git/status", "git/status", True),
        ("git/status", "git/Status", False),
        ("git/*", "git/deep/name", True),
        ("git/*", "github/status", False),
        ("g?t/s*s", "git/status", True),
        ("*/[ds]*", "git/delete", True),
        ("*/[!ds]*", "git/delete", False),
        ("*/delete_*", "git/delete_", True),
        ("*/delete_*", "git/xdelete_a", False),
        ("git/*", "git/a\nb", True),
    ],
)
def test_patterns(pattern: str, name: str, fits: bool) -> None:
    verdict = of_rules({"id": "r", "allow": [pattern]}).decide(call(someone(), name))
    assert verdict.effect == ("allow" if fits else "deny")


def test_a_tool_cannot_pose_as_one_of_another_server() -> None:
    evil = Tool("evil", "git/status", "x", b"{}")
    made = of_rules({"id": "git", "allow": ["git/*", "*/status"]})
    assert made.decide(call(someone(), evil)).effect == "deny"


@pytest.mark.parametrize(
    ("to", "who", "fits"),
    [
        ({"roles": ["dev", "qa"]}, someone("a", "qa"), True),
        ({"roles": ["dev", "qa"]}, someone("a", "ops"), False),
        ({"roles": ["team-*"]}, someone("a", "ops", "team-x"), True),
        ({"roles": ["dev"], "groups": ["eu"]}, someone("a", "dev", groups=("eu",)), True),
        ({"roles": ["dev"], "groups": ["eu"]}, someone("a", "dev", groups=("us",)), False),
        ({"subjects": ["agent:*"]}, someone("agent:ci"), True),
        ({"subjects": ["agent:*"]}, someone("bob"), False),
        ({"issuers": ["https://idp.example.org"]}, someone("a", issuer="https://idp.example.org"), True),
        ({"issuers": ["https://idp.example.org"]}, someone("a", issuer="https://idp.example.org.evil"), False),
        ({"agents": ["agent:coder"]}, through(("agent:planner", "p"), ("agent:coder", "c")), True),
        ({"agents": ["agent:planner"]}, through(("agent:planner", "p"), ("agent:coder", "c")), False),
        ({"agents": ["agent:ci"]}, someone("agent:ci"), True),
    ],
)
def test_to(to: dict[str, Any], who: Principal, fits: bool) -> None:
    verdict = of_rules({"id": "r", "allow": ["*/*"], "to": to}).decide(call(who, "git/status"))
    assert verdict.effect == ("allow" if fits else "deny")


@pytest.mark.parametrize(
    ("chain_any", "who", "fits"),
    [
        ({"roles": ["intern"]}, through(("agent:a", "intern"), ("agent:b", "senior")), True),
        ({"roles": ["intern"]}, through(("agent:b", "senior")), False),
        ({"roles": ["intern"], "subjects": ["agent:a"]}, through(("agent:a", "intern")), True),
        # One actor must fit both fields, not one each.
        ({"roles": ["intern"], "subjects": ["agent:b"]}, through(("agent:a", "intern"), ("agent:b", "x")), False),
        # The roles of the human at its start do not make a chain of interns.
        ({"roles": ["intern"]}, through(("agent:b", "senior"), roles=("intern",)), False),
        # Who comes without a chain acts for itself.
        ({"roles": ["intern"]}, someone("agent:a", "intern"), True),
    ],
)
def test_chain_any(chain_any: dict[str, Any], who: Principal, fits: bool) -> None:
    made = of_rules(ALLOW, {"id": "r", "deny": ["*/delete_*"], "chain_any": chain_any})
    assert made.decide(call(who, "git/delete_tag")).effect == ("deny" if fits else "allow")


@pytest.mark.parametrize(
    ("to", "allowed"),
    [
        (None, False),
        ({"subjects": ["*"]}, False),
        ({"subjects": ["anon*"]}, False),
        ({"agents": ["*"]}, False),
        ({"subjects": ["anonymous"]}, True),
        ({"subjects": ["bob", "anonymous"]}, True),
    ],
)
@pytest.mark.parametrize("effect", ["allow", "ask"])
def test_strangers_are_let_in_only_by_name(effect: str, to: dict[str, Any] | None, allowed: bool) -> None:
    rule = {"id": "r", effect: ["*/*"], **({"to": to} if to else {})}
    assert of_rules(rule).decide(call(stranger(), "git/status")).effect == (effect if allowed else "deny")


@pytest.mark.parametrize("to", [{}, {"to": {"subjects": ["*"]}}, {"to": {"agents": ["anon*"]}}])
def test_strangers_are_kept_out_by_any_deny_rule(to: dict[str, Any]) -> None:
    made = of_rules({"id": "r", "deny": ["git/*"], **to}, default="allow")
    assert made.decide(call(stranger(), "git/status")).effect == "deny"


FAULTY = [
    "args.missing > 1",  # no such argument
    "args.text > 5",  # wrong type
    "args.text",  # no boolean: a text is true in Python
    "args.number",
    "args.list",
    "1 / args.zero == 1",
    "args.list.all(a, args.list.all(b, args.list.all(c, a + b + c >= 0)))",  # more steps than the budget
    "caller.claims.missing == 'x'",
    "tool.description.matches('(' + tool.name)",
    "size(caller.subject) / (size(tool.name) - 6) == 1",
    "[0][size(request.door)+1] == 1",
    "duration(args.text) > duration('1s') || now < timestamp(args.text)",
]
ARGS: dict[str, Any] = {"text": "yes", "number": 1, "list": list(range(60)), "zero": 0}


@pytest.mark.rule("POL-2", "POL-3")
@pytest.mark.parametrize("when", FAULTY)
def test_a_condition_that_cannot_be_decided_never_allows(when: str) -> None:
    def effect(*rules: dict[str, Any], default: str = "deny") -> str:
        return of_rules(*rules, default=default).decide(call(someone(), "git/status", **ARGS)).effect

    faulty = {"id": "faulty", "when": when}
    assert effect({**faulty, "allow": ["*/*"]}) == "deny"
    assert effect({**faulty, "deny": ["*/*"]}, ALLOW) == "deny"
    assert effect({**faulty, "deny": ["*/*"]}, default="allow") == "deny"
    # An ask rule does not open what is closed, and does not leave open what it was to guard.
    assert effect({**faulty, "ask": ["*/*"]}) == "deny"
    assert effect({**faulty, "ask": ["*/*"]}, ALLOW) == "ask"
    assert effect({**faulty, "ask": ["*/*"]}, default="allow") == "ask"
    assert effect({**faulty, "ask": ["*/*"]}, SOME) == "ask"


@pytest.mark.rule("POL-2")
def test_the_verdict_names_the_fault_but_no_values() -> None:
    rule = {"id": "numbers", "when": "int(args.secret) > 1"}
    denied = of_rules(ALLOW, {**rule, "deny": ["*/*"]}).decide(call(someone(), "git/status", secret="s3cret"))
    assert denied.reason == "denied by numbers: its condition cannot be decided: cannot convert string to int"
    closed = of_rules({**rule, "allow": ["*/*"], "when": "args[args.secret] > 1"})
    reason = closed.decide(call(someone(), "git/status", secret="s3cret")).reason
    assert reason == "no rule allows git/status; the condition of numbers cannot be decided: Key not found in map"


@pytest.mark.rule("POL-3")
def test_only_true_holds() -> None:
    made = of_rules({"id": "r", "allow": ["*/*"], "when": "args.flag"})
    verdicts = {str(flag): made.decide(call(someone(), "a/b", flag=flag)).effect for flag in (True, False, 1, "true")}
    assert verdicts == {"True": "allow", "False": "deny", "1": "deny", "true": "deny"}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.rule("POL-12")
@pytest.mark.parametrize(
    ("args", "why"),
    [
        ({"amount": 1, "text": "x" * 70_000}, "the arguments are larger than 65536 bytes"),
        ({"amount": 1, "deep": nested(200)}, "nested too deeply"),
        ({"amount": 1, "deep": nested(20_000)}, "nested too"),
        ({"amount": 1, "odd": object()}, "the arguments are not JSON"),
        ({"amount": 1, "odd": "\ud800"}, "the arguments are not JSON"),
        ({"amount": 2**70}, "Integer value"),
    ],
    ids=["large", "deep", "very deep", "no JSON", "no text", "no number"],
)
def test_arguments_that_cannot_be_looked_at_fail_closed(args: dict[str, Any], why: str) -> None:
    allow = of_rules({"id": "small", "allow": ["*/*"], "when": "args.amount < 500"})
    deny = of_rules(ALLOW, {"id": "large", "deny": ["*/*"], "when": "args.amount > 500"})
    ask = of_rules(ALLOW, {"id": "large", "ask": ["*/*"], "when": "args.amount > 500"})
    verdicts = [made.decide(call(someone(), "pay/refund", **args)) for made in (allow, deny, ask)]
    assert [verdict.effect for verdict in verdicts] == ["deny", "deny", "ask"]
    assert all(why in verdict.reason for verdict in verdicts)


@pytest.mark.rule("POL-12")
def test_the_cap_is_measured_exactly_and_configurable() -> None:
    rule = "rules: [{id: r, allow: ['*/*'], when: args.a != ''}, {id: s, allow: ['*/*'], when: args.a == ''}]"
    assert policy(rule, max_arguments=9).decide(call(someone(), "a/b", a="x")).effect == "allow"
    assert policy(rule, max_arguments=8).decide(call(someone(), "a/b", a="x")).effect == "deny"


def test_rules_that_do_not_look_at_arguments_do_not_mind_their_size() -> None:
    assert of_rules(ALLOW).decide(call(someone(), "a/b", text="x" * 100_000)).effect == "allow"


def test_claims_are_bounded_too() -> None:
    made = of_rules({"id": "r", "allow": ["*/*"], "when": "caller.claims.team == 'x'"})
    assert made.decide(call(someone(claims={"team": "x"}), "a/b")).effect == "allow"
    verdict = made.decide(call(someone(claims={"team": "x", "more": "x" * 70_000}), "a/b"))
    assert verdict.effect == "deny"
    assert "the claims of the caller are larger than 65536 bytes" in verdict.reason


WHEN = [
    ("caller.subject == 'alice'", True),
    ("caller.issuer == 'https://idp' && caller.tenant == 'default' && caller.via == 'jwt'", True),
    ("'dev' in caller.roles && caller.groups.exists(g, g.startsWith('eu'))", True),
    ("caller.claims.level >= 3 && !has(caller.claims.nothing)", True),
    ("size(chain) == 0", True),
    ("tool.server == 'git' && tool.name == 'status'", True),
    ("tool.readOnly && !tool.destructive && tool.idempotent && !tool.openWorld", True),
    ("tool.description.contains('shows')", True),
    ("request.door == 'virtual:coder' && request.transport == 'stdio'", True),
    ("request.era == 'legacy' && request.version == '2025-06-18'", True),
    ("args.amount > 500 && args.amount < 600.5", True),
    ("args.?none.orValue('x') == 'x' && args.text.lowerAscii() == 'yes'", True),
    ("now > timestamp('2026-07-28T11:59:59Z') && now.getHours() == 12", True),
    ("caller.subject == tool.name", False),
    ("true", True),
]


@pytest.mark.parametrize(("when", "holds"), WHEN)
def test_what_conditions_see(when: str, holds: bool) -> None:
    who = someone("alice", "dev", groups=("eu-1",), issuer="https://idp", via="jwt", claims={"level": 3.0})
    what = tool(read_only=True, destructive=False, idempotent=True, open_world=False, description="shows things")
    front = Front("virtual:coder", "2025-06-18", "legacy", "stdio")
    made = of_rules({"id": "r", "allow": ["*/*"], "when": when}, {"id": "s", "deny": ["*/*"], "when": f"!({when})"})
    for _ in range(2):  # with and without caches
        verdict = made.decide(call(who, what, front, amount=600, text="YES"))
        assert (verdict.effect, verdict.rule) == (("allow", "r") if holds else ("deny", "s"))


def test_a_chain_is_seen_oldest_first() -> None:
    made = of_rules({"id": "r", "allow": ["*/*"], "when": "chain[0].subject == 'agent:a' && 'two' in chain[1].roles"})
    assert made.decide(call(through(("agent:a", "one"), ("agent:b", "two")), "a/b")).effect == "allow"
    assert made.decide(call(through(("agent:b", "two"), ("agent:a", "one")), "a/b")).effect == "deny"


def test_time_passes_between_calls() -> None:
    moments = iter([datetime(2026, 1, 1, 9, tzinfo=UTC), datetime(2026, 1, 1, 20, tzinfo=UTC)])
    made = policy("rules: [{id: r, allow: ['*/*'], when: now.getHours() < 18}]", clock=lambda: next(moments))
    who = someone()
    assert [made.decide(call(who, "a/b")).effect for _ in range(2)] == ["allow", "deny"]


def test_the_real_clock_is_the_default() -> None:
    made = policy(
        "rules: [{id: r, allow: ['*/*'], when: now > timestamp('2025-01-01T00:00:00Z')}]", clock=_real_clock()
    )
    assert made.decide(call(someone(), "a/b")).effect == "allow"


def _real_clock() -> Any:
    return open_policy().clock


@pytest.mark.parametrize("to", [None, {"subjects": ["*"]}])
def test_a_stranger_cannot_walk_around_an_ask_rule_that_asks_everybody_else(to: dict[str, Any] | None) -> None:
    made = of_rules(
        {"id": "all", "allow": ["*/*"], "to": {"subjects": ["anonymous", "*"]}},
        {"id": "pushes", "ask": ["git/push"], **({"to": to} if to else {})},
    )
    verdict = made.decide(call(stranger(), "git/push"))
    assert (verdict.effect, verdict.rule) == ("deny", "pushes")
    assert made.decide(call(stranger(), "git/status")).effect == "allow"
    assert made.decide(call(someone(), "git/push")).effect == "ask"
    assert [each.name for each in made.visible(stranger(), [tool("git/push"), tool("git/status")], Front())] == [
        "status"
    ]

"""Explanations (their text: ``tests/golden/policy``; that they agree with the verdict: ``test_properties.py``)."""

from __future__ import annotations

from typing import Any

import pytest

from callgate.policy import open_policy, render_explanation
from tests.policy.cast import call, of_rules, someone, stranger, through, tool


@pytest.mark.rule("POL-9")
@pytest.mark.parametrize(
    ("rule", "who", "clause"),
    [
        ({"allow": ["time/*"], "to": {"roles": ["dev"]}}, someone(), "tool"),
        ({"allow": ["git/*"], "to": {"roles": ["dev"], "groups": ["eu"]}}, someone(), "to.roles"),
        ({"allow": ["git/*"], "to": {"roles": ["dev"], "groups": ["eu"]}}, someone("a", "dev"), "to.groups"),
        ({"allow": ["git/*"], "to": {"agents": ["bot"]}}, through(("agent:x", "r")), "to.agents"),
        ({"allow": ["git/*"], "to": {"issuers": ["https://idp"]}}, someone(), "to.issuers"),
        ({"allow": ["git/*"], "to": {"subjects": ["bob"]}}, someone(), "to.subjects"),
        ({"allow": ["git/*"]}, stranger(), "to"),
        ({"allow": ["git/*"], "chain_any": {"roles": ["x"]}, "when": "true"}, through(("agent:x", "r")), "chain_any"),
        ({"allow": ["git/*"], "when": "tool.readOnly"}, someone(), "when"),
        ({"allow": ["git/*"], "when": "args.x"}, someone(), "when"),
        ({"allow": ["git/*"]}, someone(), ""),
    ],
)
def test_the_first_failing_clause_is_named(rule: dict[str, Any], who: Any, clause: str) -> None:
    made = of_rules({"id": "r", **rule})
    trace = made.explain(call(who, "git/status")).rules[0]
    assert (trace.rule, trace.clause, trace.decides) == ("r", clause, clause == "")
    assert trace.detail


@pytest.mark.rule("POL-9")
def test_conditions_show_what_they_saw() -> None:
    made = of_rules({"id": "r", "allow": ["*/*"], "when": "args.amount < 5 && tool.name != 'args.other'"})
    trace = made.explain(call(someone(), "pay/refund", amount=3)).rules[0]
    assert trace.inputs == (("args.amount", "3"), ("tool.name", '"refund"'))
    assert trace.result == "true"
    assert trace.condition == "args.amount < 5 && tool.name != 'args.other'"


def test_long_values_are_cut() -> None:
    made = of_rules({"id": "r", "allow": ["*/*"], "when": "args.text == 'a'"})
    ((_, value),) = made.explain(call(someone(), "a/b", text="x" * 500)).rules[0].inputs
    assert len(value) == 120
    assert value.endswith("x…")


def test_values_that_are_no_json_are_not_shown() -> None:
    made = of_rules({"id": "r", "allow": ["*/*"], "when": "args.text == 'a'"})
    ((_, value),) = made.explain(call(someone(), "a/b", text=object())).rules[0].inputs
    assert value == "(the arguments are not JSON)"


def test_nothing_that_is_printed_controls_the_terminal() -> None:
    made = of_rules(
        {"id": "r", "allow": ["*/*"], "to": {"subjects": ["x"]}}, {"id": "s", "deny": ["*/*"], "when": "args.a == 'b'"}
    )
    text = render_explanation(made.explain(call(someone("eve\x1b[2J"), tool("a/b\x07"), a="\x1b[31m\u202e")))
    assert all(character.isprintable() or character == "\n" for character in text)


def test_the_open_policy_explains_itself() -> None:
    assert open_policy().explain(call(stranger(), "git/push")).lines() == [
        "anonymous calls git/push",
        "  allow: no policy is configured (policy none)",
        "",
        "no rule decides; the default is allow",
    ]

"""Files that narrow, and files and rules that are only tried out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from callgate.config import parse_document
from callgate.errors import ConfigError
from callgate.policy import Policy, load_policy
from callgate.types import Front
from tests.policy.cast import NOON, call, of_rules, policy, someone, tool


def layered(upper: dict[str, Any], *lower: dict[str, Any]) -> Policy:
    documents = [parse_document(json.dumps(upper), "org.json")]
    documents += [
        parse_document(json.dumps(each), f"team{at}.json").narrowing() for at, each in enumerate(lower, start=1)
    ]
    return load_policy(documents, clock=lambda: NOON)


ORG = {"rules": [{"id": "org", "allow": ["git/*"]}, {"id": "org-ask", "ask": ["git/push"]}]}
TEAM = {
    "default": "deny",
    "rules": [{"id": "team", "allow": ["git/status", "git/push", "time/now"]}, {"id": "no-log", "deny": ["git/log"]}],
}


def test_a_lower_layer_takes_away_and_never_gives() -> None:
    made = layered(ORG, TEAM)
    verdicts = {
        name: made.decide(call(someone(), name)) for name in ("git/status", "git/push", "git/log", "git/x", "time/now")
    }
    assert {name: (verdict.effect, verdict.rule) for name, verdict in verdicts.items()} == {
        "git/status": ("allow", "org"),
        "git/push": ("ask", "org-ask"),
        "git/log": ("deny", "no-log"),
        "git/x": ("deny", ""),
        "time/now": ("deny", ""),
    }
    assert verdicts["git/x"].reason == "no rule of team1.json allows git/x"
    assert {verdict.policy for verdict in verdicts.values()} == {made.version}
    tools = [tool(name) for name in verdicts]
    assert [each.native for each in made.visible(someone(), tools, Front())] == ["git/status", "git/push"]
    assert made.explain(call(someone(), "git/log")).verdict == verdicts["git/log"]


def test_a_lower_layer_that_allows_by_default_only_denies_and_asks() -> None:
    made = layered(ORG, {"default": "allow", "rules": [{"id": "t", "ask": ["git/status"]}]})
    assert [made.decide(call(someone(), name)).effect for name in ("git/status", "git/log", "x/y")] == [
        "ask",
        "allow",
        "deny",
    ]


def test_ids_are_unique_over_layers_and_tests_meet_all_of_them() -> None:
    with pytest.raises(ConfigError, match="used twice"):
        layered(ORG, {"default": "allow", "rules": [{"id": "org", "deny": ["a/b"]}]})
    tests = [{"as": {"subject": "a"}, "call": "git/log", "expect": "deny", "by": "no-log"}]
    assert layered(ORG, {**TEAM, "tests": tests}).first_failure() is None


def test_a_layer_must_say_its_default_and_have_something_above_it() -> None:
    with pytest.raises(ConfigError, match="must say its `default`"):
        layered(ORG, {"rules": []})
    with pytest.raises(ConfigError, match="nothing that this file could narrow"):
        load_policy([parse_document("default: allow", "team.yaml").narrowing()])


def test_the_version_tells_a_layer_from_a_file_beside() -> None:
    beside = policy(json.dumps(ORG), json.dumps(TEAM))
    assert beside.decide(call(someone(), "time/now")).effect == "allow"
    assert beside.version != layered(ORG, TEAM).version


SHADOW = {"id": "tried", "deny": ["git/push"], "shadow": True}


@pytest.mark.rule("POL-11")
def test_a_shadow_rule_decides_nothing_and_is_told_what_it_would_have_done() -> None:
    made = of_rules({"id": "all", "allow": ["*/*"]}, SHADOW)
    push, status = made.decide(call(someone(), "git/push")), made.decide(call(someone(), "git/status"))
    assert (push.effect, push.rule) == ("allow", "all")
    assert push.shadow is not None
    assert (push.shadow.effect, push.shadow.rule) == ("deny", "tried")
    assert status.shadow is None
    assert [each.native for each in made.visible(someone(), [tool("git/push")], Front())] == ["git/push"]
    assert [trace.shadow for trace in made.explain(call(someone(), "git/push")).rules] == [False, True]


@pytest.mark.rule("POL-11")
def test_a_shadow_rule_that_would_allow_opens_nothing() -> None:
    made = of_rules({"id": "tried", "allow": ["*/*"], "shadow": True})
    verdict = made.decide(call(someone(), "git/push"))
    assert verdict.effect == "deny"
    assert verdict.shadow is not None
    assert verdict.shadow.effect == "allow"
    assert made.visible(someone(), [tool("git/push")], Front()) == []


@pytest.mark.rule("POL-11")
def test_a_file_in_shadow_mode_is_as_if_it_were_not_there() -> None:
    force, tried = (
        "rules: [{id: a, allow: ['git/*']}]",
        "{mode: shadow, rules: [{id: b, allow: ['x/*']}, {id: c, deny: ['git/push']}]}",
    )
    made, alone = policy(force, tried), policy(force)
    for name in ("git/status", "git/push", "x/y", "z/z"):
        assert made.decide(call(someone(), name)).effect == alone.decide(call(someone(), name)).effect
    told = [made.decide(call(someone(), name)).shadow for name in ("git/status", "git/push", "x/y", "z/z")]
    assert [each and (each.effect, each.rule) for each in told] == [None, ("deny", "c"), ("allow", "b"), None]
    assert made.enforced
    assert made.version != policy(force, tried.replace("mode: shadow, ", "")).version


@pytest.mark.rule("POL-11")
def test_a_policy_that_is_nothing_but_tried_out_is_no_policy() -> None:
    made = policy("{mode: shadow, rules: [{id: a, allow: ['git/*']}]}")
    verdict = made.decide(call(someone(), "x/y"))
    assert (made.enforced, verdict.effect, verdict.shadow and verdict.shadow.effect) == (False, "allow", "deny")


def test_tests_of_what_is_tried_out_see_it_as_if_it_counted() -> None:
    made = policy(
        """
rules:
  - {id: all, allow: ["*/*"]}
  - {id: tried, deny: [git/push], shadow: true}
tests:
  - {as: {subject: a}, call: git/push, expect: deny, by: tried}
  - {as: {subject: a}, call: git/push, expect: allow, by: all}
"""
    )
    assert [result.passed for result in made.run_tests()] == [True, True]

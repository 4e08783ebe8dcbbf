"""Whom a rule is for: claims, chains, doors, tenants, scopes."""

from __future__ import annotations

from typing import Any

import pytest

from callgate.errors import ConfigError, Denied
from callgate.policy import settle
from callgate.types import Actor, Front, Principal
from tests.policy.cast import call, of_rules, policy, someone, stranger, through, tool

T = tool("git/push")


def effect(rule: dict[str, Any], who: Principal, door: str = "") -> str:
    return of_rules({"id": "r", **rule}).decide(call(who, T, Front(door=door))).effect


@pytest.mark.parametrize(
    ("claims", "held", "fits"),
    [
        ({"team": ["payments"]}, {"team": "payments"}, True),
        ({"team": ["pay*", "core"]}, {"team": "payments"}, True),
        ({"team": ["payments"]}, {"team": "Payments"}, False),
        ({"team": ["payments"]}, {"team": ["core", "payments"]}, True),
        ({"team": ["payments"]}, {}, False),
        ({"team": ["*"]}, {}, False),
        ({"team": ["*"]}, {"team": {"payments": 1}}, False),
        ({"team": ["*"]}, {"team": None}, False),
        ({"email_verified": [True]}, {"email_verified": True}, True),
        ({"email_verified": [True]}, {"email_verified": False}, False),
        ({"level": [3]}, {"level": 3}, True),
        ({"team": ["a"], "level": [3]}, {"team": "a", "level": 2}, False),
    ],
)
def test_claims(claims: dict[str, Any], held: dict[str, Any], fits: bool) -> None:
    who = someone("alice", claims=held)
    assert effect({"allow": ["*/*"], "to": {"claims": claims}}, who) == ("allow" if fits else "deny")


def test_chain_all_and_chain_first() -> None:
    two = through(("agent:a", "vetted"), ("agent:b", "vetted"))
    mixed = through(("agent:a", "vetted"), ("agent:b", "intern"))
    every, first = {"chain_all": {"roles": ["vetted"]}}, {"chain_first": {"subjects": ["agent:a"]}}
    assert [effect({"allow": ["*/*"], **every}, who) for who in (two, mixed)] == ["allow", "deny"]
    assert [effect({"allow": ["*/*"], **first}, who) for who in (two, mixed)] == ["allow", "allow"]
    assert effect({"allow": ["*/*"], "chain_first": {"subjects": ["agent:b"]}}, two) == "deny"
    assert effect({"allow": ["*/*"], **every}, someone("alice", "vetted")) == "allow"  # acts for itself


@pytest.mark.rule("DEL-10")
def test_actors_that_a_foreign_token_names_do_not_help_to_fit_a_chain() -> None:
    who = someone("alice", asserted=(Actor("agent:a", roles=("vetted",)),))
    for clause in ("chain_any", "chain_all", "chain_first"):
        assert effect({"allow": ["*/*"], clause: {"roles": ["vetted"]}}, who) == "deny"


def test_a_rule_for_a_door_counts_at_that_door_only() -> None:
    rule = {"allow": ["*/*"], "virtual_servers": ["cod*"]}
    doors = ("virtual:coder", "virtual:other", "", "server:coder")
    assert [effect(rule, someone(), door) for door in doors] == ["allow", "deny", "deny", "deny"]
    made = of_rules({"id": "r", **rule})
    who = someone()  # one caller at two doors
    assert made.decide(call(who, T, Front(door="virtual:coder"))).effect == "allow"
    assert made.decide(call(who, T, Front(door=""))).effect == "deny"
    assert made.visible(who, [T], Front(door="")) == []
    assert made.list_key(who, Front(door="virtual:coder")) != made.list_key(who, Front(door=""))


def test_a_rule_for_a_tenant() -> None:
    rule = {"allow": ["*/*"], "tenants": ["acme"]}
    assert effect(rule, someone(tenant="acme")) == "allow"
    assert effect(rule, someone(tenant="other")) == "deny"


NEEDS = {"id": "pay", "allow": ["git/*"], "needs": {"scopes": ["pay:transfer"]}}


def token(scope: str) -> Principal:
    return someone("alice", via="jwt", claims={"scope": scope})


@pytest.mark.rule("POL-4")
def test_a_rule_that_needs_scopes_allows_only_tokens_that_have_them() -> None:
    made = of_rules(NEEDS)
    assert made.decide(call(token("tools pay:transfer"), T)).effect == "allow"
    refused = made.decide(call(token("tools"), T))
    assert (refused.effect, refused.rule, refused.scopes) == ("deny", "pay", ("pay:transfer",))
    with pytest.raises(Denied):
        settle(call(token("tools"), T), refused)
    assert made.visible(token("tools"), [T], Front()) == [T]  # or nobody could ask for the scope
    assert made.outlook(token("tools"), T, Front()) == "scopes"
    assert made.explain(call(token("tools"), T)).rules[0].clause == "needs"


@pytest.mark.rule("POL-4")
@pytest.mark.parametrize("who", [someone("a", claims={"scope": "x"}), stranger()])
def test_who_has_no_token_is_not_told_to_get_a_better_one(who: Principal) -> None:
    refused = of_rules(NEEDS).decide(call(who, T))
    assert (refused.effect, refused.scopes) == ("deny", ())
    assert of_rules(NEEDS).visible(who, [T], Front()) == []


def test_scopes_do_not_lift_a_denial_and_are_not_asked_for_where_another_rule_allows() -> None:
    denied = of_rules(NEEDS, {"id": "no", "deny": ["git/push"]}).decide(call(token(""), T))
    assert (denied.rule, denied.scopes) == ("no", ())
    assert of_rules(NEEDS, {"id": "all", "allow": ["*/*"]}).decide(call(token(""), T)).rule == "all"
    asked = of_rules(NEEDS, {"id": "ask", "ask": ["*/*"]}).decide(call(token("pay:transfer"), T))
    assert asked.effect == "ask"
    late = of_rules({**NEEDS, "when": "args.n == 1"})
    assert late.decide(call(token(""), T, n=2)).scopes == ()
    assert late.decide(call(token(""), T, n=1)).scopes == ("pay:transfer",)


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("{id: r, deny: [a/b], needs: {scopes: [x]}}", "belongs to `allow` rules only"),
        ("{id: r, allow: [a/b], needs: {scopes: ['a b']}}", "is not a scope"),
        ("{id: r, allow: [a/b], needs: {}}", "names nobody"),
        ("{id: r, allow: [a/b], to: {claims: {}}}", "names nobody"),
        ("{id: r, allow: [a/b], to: {claims: {team: []}}}", "at least 1"),
        ("{id: r, allow: [a/b], to: {claims: {team: ['[a']}}}", "is not a pattern"),
        ("{id: r, allow: [a/b], virtual_servers: ['[x']}", "is not a pattern"),
        ("{id: r, allow: [a/b], operations: [wipe]}", "must be one of"),
        ("{id: r, allow: [a/b], redact: [$.x]}", "belongs to `result` rules only"),
        ("{id: r, allow: [a/b], block: true}", "belongs to `result` rules only"),
        ("{id: r, result: [a/b]}", "does nothing with results"),
        ("{id: r, result: [a/b], redact: [x]}", "is not a path into JSON"),
        ("{id: r, result: [a/b], redact: ['$..a..b']}", "is not a path into JSON"),
    ],
)
def test_mistakes(rule: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        policy(f"rules: [{rule}]")
    assert told in str([problem.message for problem in caught.value.problems] or caught.value.message)

"""What another policy would change: over known callers and tools, over recorded calls, over its own tests."""

from __future__ import annotations

from typing import Any

from callgate.policy import coverage, differences, imagined, recorded_callers, replay
from callgate.types import Actor
from tests.policy.cast import of_rules, policy, someone, tool

ALL = {"id": "all", "allow": ["git/*"], "to": {"roles": ["dev"]}}
TOOLS = [tool("git/log", operation="read"), tool("git/push", operation="write")]
DEV = someone("dana", "dev")


def changed(old: list[dict[str, Any]], new: list[dict[str, Any]], *doors: str) -> list[tuple[str, ...]]:
    found = differences(of_rules(*old), of_rules(*new), [DEV, someone("nina")], TOOLS, doors or ("",))
    return [(each.subject, each.tool, each.before, each.after, each.rule_before, each.rule_after) for each in found]


def test_equal_policies_differ_in_nothing() -> None:
    assert changed([ALL], [{**ALL, "id": "other"}]) == []


def test_who_loses_and_who_gains_what() -> None:
    assert changed([ALL], [ALL, {"id": "no", "deny": ["git/push"]}]) == [
        ("dana", "git/push", "allow", "deny", "all", "no")
    ]
    assert changed(
        [ALL], [{**ALL, "to": {"roles": ["*"]}}, {"id": "n", "ask": ["git/log"], "to": {"subjects": ["nina"]}}]
    ) == [("nina", "git/log", "deny", "ask", "", "n")]


def test_conditions_over_arguments_are_compared_by_their_text() -> None:
    old, new = {**ALL, "when": "args.n < 3"}, {**ALL, "when": "args.n < 4"}
    assert changed([old], [{**old, "id": "x"}]) == []
    assert [each[:4] for each in changed([old], [new])] == [
        ("dana", "git/log", "arguments", "arguments"),
        ("dana", "git/push", "arguments", "arguments"),
    ]


def test_doors() -> None:
    found = changed([ALL], [{**ALL, "virtual_servers": ["coder"]}], "", "virtual:coder")
    assert [each[:2] for each in found] == [("dana", "git/log"), ("dana", "git/push")]


def test_callers_are_made_of_the_roles_and_groups_that_rules_name() -> None:
    made = of_rules(
        ALL, {"id": "g", "deny": ["*/*"], "to": {"groups": ["ext", "x*"]}, "chain_any": {"roles": ["intern"]}}
    )
    found = {who.subject: (who.roles, who.groups) for who in imagined([made, made])}
    assert found == {
        "anonymous": ((), ()), "(anybody)": ((), ()), "(role dev)": (("dev",), ()), "(role intern)": (("intern",), ()),
        "(group ext)": ((), ("ext",)),
    }  # fmt: skip


def record(tool: str, outcome: str = "ok", **more: Any) -> dict[str, Any]:
    server, _, name = tool.partition("/")
    return {
        "id": "c1", "time": "2026-07-28T12:00:00.000Z", "tenant": "default", "subject": "dana", "server": server,
        "tool": name, "outcome": outcome, "policy": "v1", "rule": "old", "roles": ["dev"], "via": "key", **more,
    }  # fmt: skip


def judged(rules: list[dict[str, Any]], *records: dict[str, Any]) -> list[tuple[Any, ...]]:
    found = replay(of_rules(*rules), records, {each.native: each for each in TOOLS})
    return [(each.tool, each.before, each.after, each.rule_after, each.unsure) for each in found]


def test_recorded_calls_are_judged_anew() -> None:
    assert judged(
        [ALL, {"id": "no", "deny": ["git/push"]}, {"id": "ask", "ask": ["git/log"], "when": "args.n > 3"}],
        record("git/push"), record("git/log", args={"n": 1}), record("git/log", args={"n": 4}),
        record("git/log", "denied", error_code=-31403), record("git/log", "denied", error_code=-31428, args={"n": 9}),
    ) == [
        ("git/push", "allow", "deny", "no", ()),
        ("git/log", "allow", "allow", "all", ()),
        ("git/log", "allow", "ask", "ask", ()),
        ("git/log", "deny", "ask", "ask", ()),
        ("git/log", "ask", "ask", "ask", ()),
    ]  # fmt: skip


def test_what_was_never_judged_is_left_out() -> None:
    assert judged([ALL], record("git/log", "refused", policy=""), record("/x")) == []


def test_what_cannot_be_judged_exactly_is_said() -> None:
    def unsure(rule: dict[str, Any], **more: Any) -> tuple[str, ...]:
        return judged([{"id": "r", "allow": ["*/*"], **rule}], record(more.pop("tool", "git/log"), **more))[0][-1]  # type: ignore[no-any-return]

    over_args = {"when": "args.n > 3"}
    assert unsure(over_args, args={"n": 1}) == ()
    assert unsure(over_args) == ()  # there were none
    assert unsure(over_args, args='{"n"… [cut: 9000 bytes]', args_sha256="aa") == ("arguments were not kept whole",)
    assert unsure(over_args, args_sha256="aa") == ("arguments were not kept whole",)
    assert unsure(over_args, args={"n": "[redacted]"}) == ("arguments were redacted",)
    assert unsure({}, args_sha256="aa") == ()
    assert unsure({"to": {"groups": ["g"]}}) == ("groups and claims are not kept",)
    assert unsure({"to": {"claims": {"a": ["b"]}}}) == ("groups and claims are not kept",)
    assert unsure({"when": "caller.claims.x == 1"}) == ("groups and claims are not kept",)
    assert unsure({"when": "tool.readOnly"}) == ()
    assert unsure({"when": "tool.readOnly"}, tool="git/gone") == ("the tool is not known now",)
    assert unsure({"operations": ["read"]}, tool="git/gone") == ("the tool is not known now",)


def test_the_clock_is_that_of_the_call() -> None:
    night = record("git/log", time="2026-07-28T23:00:00.000Z")
    rule = {**ALL, "when": "now.getHours() < 18"}
    assert [each[2] for each in judged([rule], record("git/log"), night)] == ["allow", "deny"]


def test_shadow_rules_count_when_calls_are_judged_anew() -> None:
    assert judged([ALL, {"id": "no", "deny": ["*/*"], "shadow": True}], record("git/log"))[0][2] == "deny"


def test_callers_of_the_record() -> None:
    chain = [{"sub": "agent:a", "iss": "us", "roles": ["bot"]}]
    found = recorded_callers(
        [record("git/log"), record("git/push"), record("git/log", chain=chain), record("x/y", policy="")]
    )
    assert [(who.subject, who.chain) for who in found] == [("dana", ()), ("dana", (Actor("agent:a", "us", ("bot",)),))]


def test_coverage() -> None:
    made = policy(
        """
rules:
  - {id: all, allow: ["git/*"], to: {roles: [dev]}}
  - {id: idle, deny: ["gone/*"]}
  - {id: cut, result: ["git/log"], truncate: 1KiB}
tests:
  - {as: {subject: a, roles: [dev]}, call: git/log, expect: allow}
  - {as: {subject: a}, call: git/log, expect: deny}
"""
    )
    assert [(each.rule, each.tests, each.tools) for each in coverage(made, TOOLS)] == [
        ("all", 1, 2), ("idle", 0, 0), ("cut", 0, 1),
    ]  # fmt: skip
    assert {each.tools for each in coverage(made, [])} == {None}

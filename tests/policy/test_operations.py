"""Rules over what a tool does: ``operations``, and whose word counts for it."""

from __future__ import annotations

from typing import Any

import pytest

from callgate.catalog import Classes, entries
from callgate.config import Server, ToolClass
from callgate.policy import believing
from callgate.types import Front, Listing, Tool
from tests.policy.cast import call, of_rules, policy, someone, tool

READS = {"id": "reads", "allow": ["git/*"], "operations": ["read"]}


def listed(server: Server, **annotations: Any) -> Tool:
    """The tool ``git/wipe`` as policy knows it."""
    definition = {"name": "wipe", "inputSchema": {"type": "object"}, "annotations": annotations}
    listing = Listing("git", (definition,), "modern", "2026-07-28")
    return entries(listing, Classes(server, believed=True))[0]


@pytest.mark.rule("POL-6")
@pytest.mark.parametrize("rule", [READS, {"id": "r", "allow": ["git/*"], "when": "tool.readOnly"}])
def test_a_server_that_lies_about_reading_gains_nothing_where_it_is_not_believed(rule: dict[str, Any]) -> None:
    made = of_rules(rule)
    lie = listed(Server(url="http://x", annotations="ignored"), readOnlyHint=True, destructiveHint=False)
    assert (lie.read_only, lie.destructive, lie.operation) == (False, True, "")
    assert made.decide(call(someone(), lie)).effect == "deny"
    assert made.visible(someone(), [lie], Front()) == []


@pytest.mark.rule("POL-6")
def test_the_operator_knows_better_than_a_believed_server() -> None:
    made = of_rules(READS, {"id": "r", "allow": ["git/*"], "when": "tool.readOnly"})
    said = Server(url="http://x", annotations="trusted", classify={"wi*": ToolClass(operation="delete")})
    lie = listed(said, readOnlyHint=True)
    assert (lie.read_only, lie.destructive, lie.operation) == (False, True, "delete")
    assert made.decide(call(someone(), lie)).effect == "deny"


@pytest.mark.parametrize(
    ("said", "annotations", "known"),
    [
        ({}, {"readOnlyHint": True}, (True, True, "read")),
        ({}, {"destructiveHint": False}, (False, False, "write")),
        ({}, {"destructiveHint": True}, (False, True, "delete")),
        ({}, {}, (False, True, "")),
        ({}, {"readOnlyHint": "yes"}, (False, True, "")),
        ({"*": ToolClass(operation="read")}, {}, (True, False, "read")),
        ({"*": ToolClass(read_only=True)}, {}, (True, False, "read")),
        ({"*": ToolClass(operation="read"), "w*": ToolClass(operation="execute")}, {}, (False, True, "execute")),
        ({"*": ToolClass(operation="read"), "w*": ToolClass(read_only=False)}, {}, (False, True, "")),
        ({"*": ToolClass(operation="read"), "r*": ToolClass(operation="execute")}, {}, (True, False, "read")),
        ({"*": ToolClass(read_only=False, destructive=False)}, {"readOnlyHint": True}, (False, False, "write")),
    ],
)
def test_what_is_known_of_a_tool(
    said: dict[str, ToolClass], annotations: dict[str, Any], known: tuple[Any, ...]
) -> None:
    found = listed(Server(url="http://x", classify=said), **annotations)
    assert (found.read_only, found.destructive, found.operation) == known


def test_what_nobody_has_said_takes_the_stricter_way() -> None:
    """Like a condition that cannot be decided (rule POL-2)."""
    unknown, reading, deleting = (tool("git/x", operation=each) for each in ("", "read", "delete"))
    everything = {"id": "all", "allow": ["*/*"]}
    no_deletes = of_rules(everything, {"id": "d", "deny": ["*/*"], "operations": ["delete", "execute"]})
    assert [no_deletes.decide(call(someone(), t)).effect for t in (unknown, reading, deleting)] == [
        "deny",
        "allow",
        "deny",
    ]
    assert no_deletes.visible(someone(), [unknown, reading, deleting], Front()) == [reading]
    asked = of_rules(everything, {"id": "a", "ask": ["*/*"], "operations": ["write"]})
    assert [asked.decide(call(someone(), t)).effect for t in (unknown, reading)] == ["ask", "allow"]
    only = of_rules({"id": "a", "ask": ["*/*"], "operations": ["write"]})
    assert only.decide(call(someone(), unknown)).effect == "deny"
    assert "nobody has said" in only.decide(call(someone(), unknown)).reason


def test_an_operation_and_a_condition_must_both_fit() -> None:
    made = of_rules({**READS, "when": "args.n < 3"})
    reading = tool("git/x", operation="read")
    assert made.decide(call(someone(), reading, n=2)).effect == "allow"
    assert made.decide(call(someone(), reading, n=3)).effect == "deny"
    assert made.decide(call(someone(), tool("git/x"), n=2)).effect == "deny"
    assert [trace.clause for trace in made.explain(call(someone(), tool("git/x"), n=2)).rules] == ["when"]
    other = made.explain(call(someone(), tool("git/x", operation="write"), n=2)).rules[0]
    assert (other.clause, other.detail) == ("operations", "it is for tools that read; this one does write")


def test_a_policys_tests_say_what_a_tool_does() -> None:
    made = policy(
        """
rules: [{id: reads, allow: ["git/*"], operations: [read]}]
tests:
  - {as: {subject: a}, call: git/log, tool: {operation: read}, expect: allow, by: reads}
  - {as: {subject: a}, call: git/log, tool: {readOnly: true}, expect: allow, by: reads}
  - {as: {subject: a}, call: git/log, expect: allow, by: reads}
  - {as: {subject: a}, call: git/log, tool: {operation: write}, expect: deny}
  - {as: {subject: a}, call: git/log, tool: {readOnly: false}, expect: deny}
"""
    )
    results = made.run_tests()
    assert [(each.passed, bool(each.note)) for each in results] == [
        (True, False), (True, False), (True, True), (True, False), (True, False),
    ]  # fmt: skip


def test_rules_that_rest_on_what_is_known_of_tools_are_named() -> None:
    made = of_rules(
        READS,
        {"id": "c", "allow": ["*/*"], "when": "tool.destructive == false"},
        {"id": "n", "allow": ["*/*"], "when": "tool.name == 'x'"},
        {"id": "d", "deny": ["*/*"], "when": "tool.destructive"},
    )
    assert believing(made) == ("reads", "c")

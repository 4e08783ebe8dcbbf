"""The tests that policy files carry (their verdicts: ``tests/golden/policy``)."""

from __future__ import annotations

import pytest

from tests.policy.cast import policy

RULES = """
rules:
  - {id: readers, allow: ["git/*"], to: {roles: [dev]}}
tests:
  - {name: developers read, as: {subject: alice, roles: [dev]}, call: git/status, expect: allow, by: readers}
"""


@pytest.mark.rule("POL-7")
def test_a_policy_with_a_failing_test_says_so() -> None:
    made = policy(RULES, "tests: [{name: guests read, call: git/status, expect: allow, by: readers}]")
    failure = made.first_failure()
    assert failure is not None
    assert (failure.name, failure.passed, failure.expected, failure.got) == ("guests read", False, "allow", "deny")
    assert (failure.expected_by, failure.by) == ("readers", "")
    assert (failure.place.file, failure.place.line) == ("policy2.yaml", 1)
    assert failure.reason == "no rule allows git/status"
    assert [result.passed for result in made.run_tests()] == [True, False]


@pytest.mark.rule("POL-7")
def test_a_policy_whose_tests_pass_has_no_failure() -> None:
    assert policy(RULES).first_failure() is None
    assert policy("rules: []").first_failure() is None


def test_the_deciding_rule_counts() -> None:
    text = RULES + "  - {as: {subject: a, roles: [dev]}, call: git/log, expect: allow, by: other}\n"
    made = policy(text, "rules: [{id: other, allow: ['git/*']}]")
    assert [result.passed for result in made.run_tests()] == [True, False]


def test_everything_that_a_test_may_say_reaches_the_rules() -> None:
    made = policy("""
rules:
  - id: exact
    allow: ["git/*"]
    when: >-
      tool.readOnly && !tool.destructive && tool.idempotent && !tool.openWorld && tool.description == 'd'
      && request.door == 'server:git' && request.version == '2025-06-18' && request.era == 'legacy'
      && request.transport == 'stdio' && caller.issuer == 'i' && caller.tenant == 't' && caller.via == 'operator'
      && caller.groups == ['g'] && caller.claims.c == 1 && chain[0] == {'subject': 's', 'issuer': 'j', 'roles': ['r']}
      && args.a == [1] && now == timestamp('2026-01-01T00:00:00Z')
tests:
  - as: {subject: x, issuer: i, tenant: t, via: operator, groups: [g], claims: {c: 1},
         chain: [{subject: s, issuer: j, roles: [r]}]}
    call: git/log
    tool: {readOnly: true, destructive: false, idempotent: true, openWorld: false, description: d}
    request: {door: "server:git", version: "2025-06-18", era: legacy, transport: stdio}
    args: {a: [1]}
    now: 2026-01-01T00:00:00Z
    expect: allow
""")
    assert made.first_failure() is None


@pytest.mark.parametrize("said", ["{readOnly: false}", "{destructive: true}"])
def test_what_a_test_says_of_a_tool_is_not_overruled(said: str) -> None:
    made = policy(f"""
rules: [{{id: readers, allow: ["*/*"], when: tool.readOnly}}]
tests: [{{as: {{subject: a}}, call: git/status, tool: {said}, expect: allow}}]
""")
    assert made.first_failure() is not None

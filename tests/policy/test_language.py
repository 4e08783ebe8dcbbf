"""What a policy file says, once it is read (mistakes: ``tests/golden/policy``)."""

from __future__ import annotations

import pytest

from callgate.config import parse_document
from callgate.errors import ConfigError
from callgate.policy import load_policy, open_policy
from tests.policy.cast import call, policy, someone

FILE = """
version: 1
default: deny
rules:
  - {id: readers, allow: ["git/*"], when: tool.readOnly}
  - {id: pay, ask: [payments/refund], approvers: {roles: [lead]}, ttl: 1h 30m, reason: money}
"""


def test_rules_keep_their_order_and_place() -> None:
    readers, pay = policy(FILE).rules
    assert (readers.id, readers.effect, readers.tools) == ("readers", "allow", ("git/*",))
    assert readers.when is not None
    assert readers.when.text == "tool.readOnly"
    assert (pay.effect, pay.ttl, pay.reason) == ("ask", 5400.0, "money")
    assert pay.approvers is not None
    assert pay.approvers.roles == ("lead",)
    assert (pay.place.file, pay.place.line) == ("policy.yaml", 6)


@pytest.mark.parametrize(
    ("texts", "default"),
    [
        (["rules: []"], "deny"),
        ([""], "deny"),
        (["default: allow"], "allow"),
        (["default: allow", "rules: []"], "allow"),
        (["default: allow", "default: deny"], "deny"),
        (["default: deny", "default: allow"], "deny"),
    ],
)
def test_default(texts: list[str], default: str) -> None:
    made = policy(*texts)
    assert made.default == default
    assert made.decide(call(someone(), "a/b")).effect == default


def test_no_documents_allow_nothing() -> None:
    assert load_policy([]).decide(call(someone(), "a/b")).effect == "deny"


def test_the_version_is_that_of_what_decides() -> None:
    version = policy(FILE).version
    assert len(version) == 12
    assert set(version) <= set("0123456789abcdef")
    assert (
        policy(
            "# a comment\n" + FILE.replace("1h 30m", "90m").replace("[payments/refund]", "['payments/refund']")
        ).version
        == version
    )
    assert policy(FILE + "tests: [{as: {subject: a}, call: git/x, expect: deny}]").version == version
    assert policy("", FILE).version == version
    assert policy(FILE.replace("default: deny", "default: allow")).version != version
    assert policy(FILE.replace("git/*", "git/?")).version != version
    assert policy(FILE.replace("money", "more")).version != version
    assert open_policy().version == "none"


def test_a_file_that_cannot_be_read_does_not_hide_mistakes_of_another_nor_make_new_ones() -> None:
    broken = parse_document("rules: [{id: a, alow: ['*/*']}]", "broken.yaml")
    other = parse_document(
        "{rules: [{id: b, allow: [git]}], tests: [{as: {subject: x}, call: git/x, expect: deny, by: a}]}", "other.yaml"
    )
    with pytest.raises(ConfigError) as caught:
        load_policy([broken, other])
    assert [problem.place.file for problem in caught.value.problems if problem.place] == ["broken.yaml", "other.yaml"]
    assert caught.value.exit_code == 3


def test_a_policy_that_is_no_mapping() -> None:
    with pytest.raises(ConfigError, match="must be a mapping"):
        policy("[1, 2]")
    with pytest.raises(ConfigError):
        policy("rules: [1, {id: a, allow: ['*/*'], to: [dev]}]")


def test_the_inline_policy_keeps_its_places() -> None:
    inside = parse_document("listen: x\npolicy:\n  rules:\n    - {id: a, allow: [git]}\n", "callgate.yaml").at(
        ("policy",)
    )
    with pytest.raises(ConfigError) as caught:
        load_policy([inside])
    place = caught.value.problems[0].place
    assert place is not None
    assert (place.file, place.line, place.column) == ("callgate.yaml", 4, 23)

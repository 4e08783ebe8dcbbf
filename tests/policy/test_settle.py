"""Permission comes out of one function, and a refusal tells the caller nothing but its kind."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import callgate
from callgate.errors import AwaitingApproval, Denied
from callgate.policy import settle
from callgate.types import Verdict
from tests.policy.cast import call, of_rules, someone

SOURCE = Path(callgate.__file__).parent


def test_what_is_allowed_may_leave() -> None:
    asked = call(someone(), "git/status")
    verdict = of_rules({"id": "all", "allow": ["*/*"]}).decide(asked)
    permitted = settle(asked, verdict)
    assert permitted.call is asked
    assert permitted.verdict is verdict


@pytest.mark.rule("POL-10")
def test_a_refusal_names_only_its_kind() -> None:
    made = of_rules({"id": "secret-rule", "deny": ["git/push"], "reason": "codename tulip"})
    for name in ("git/push", "git/nothing-allows-this"):
        asked = call(someone(), name)
        with pytest.raises(Denied) as caught:
            settle(asked, made.decide(asked))
        assert str(caught.value) == "The policy does not allow this call."
        assert caught.value.data == {"kind": "denied"}
        assert not caught.value.hint
        assert not isinstance(caught.value, AwaitingApproval)
        assert caught.value.verdict == made.decide(asked)  # the whole reason, for the audit log


@pytest.mark.rule("POL-10")
def test_a_question_names_only_its_kind() -> None:
    asked = call(someone(), "git/push")
    verdict = of_rules({"id": "secret-rule", "ask": ["git/push"], "reason": "codename tulip"}).decide(asked)
    with pytest.raises(AwaitingApproval) as caught:
        settle(asked, verdict)
    assert str(caught.value) == "A human must approve this call first."
    assert caught.value.data == {"kind": "approval"}
    assert caught.value.verdict is verdict
    assert caught.value.exit_code == 6


def test_an_effect_that_nobody_knows_is_a_refusal() -> None:
    with pytest.raises(Denied):
        settle(call(someone(), "git/push"), Verdict("redact"))  # type: ignore[arg-type]


def makers(tree: ast.AST) -> list[int]:
    """Lines that make a ``Permitted``, or could by other means."""
    lines = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        named = any(
            isinstance(part, ast.Name) and part.id == "Permitted" for given in node.args for part in ast.walk(given)
        )
        if name == "Permitted" or (named and name not in ("isinstance", "issubclass")):
            lines.append(node.lineno)
    return lines


def test_nothing_else_makes_permission() -> None:
    files = sorted(SOURCE.rglob("*.py"))
    found = {str(path.relative_to(SOURCE)): makers(ast.parse(path.read_text(encoding="utf-8"))) for path in files}
    assert [path for path, lines in found.items() if lines] == [str(Path("policy", "settle.py"))]
    assert len(found[str(Path("policy", "settle.py"))]) == 1


@pytest.mark.parametrize(
    "line", ["Permitted(a, b)", "types.Permitted(a, b)", "msgspec.convert(x, Permitted)", "f(type=Permitted(a))"]
)
def test_the_search_finds_other_ways(line: str) -> None:
    assert makers(ast.parse(line)) == [1]

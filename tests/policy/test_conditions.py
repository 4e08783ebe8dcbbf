"""CEL behind our interface: when it is imported, what a condition depends on, and its mistakes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from callgate.errors import ConfigError
from callgate.policy import conditions
from callgate.policy.conditions import VARIABLES, ConditionError, Fault, Inputs, Variable, compile_condition
from tests.policy.cast import call, of_rules, someone


def run(code: str) -> str:
    lead = "import sys; from callgate.config import parse_document; from callgate.policy import load_policy\n"
    done = subprocess.run([sys.executable, "-c", lead + code], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_a_policy_without_conditions_does_not_load_cel() -> None:
    code = """
load_policy([parse_document("rules: [{id: a, allow: ['*/*']}]", "p.yaml")])
print([name for name in sys.modules if "cel" in name.split("_")[0]])
"""
    assert run(code) == "[]"


def test_without_cel_a_condition_is_a_mistake_with_the_remedy() -> None:
    code = """
sys.modules["cel_expr_python"] = None
from callgate.errors import ConfigError
try:
    load_policy([parse_document("rules: [{id: a, allow: ['*/*'], when: tool.readOnly}]", "p.yaml")])
except ConfigError as error:
    print(error.message, "|", error.hint, "|", error.place.line, error.place.column)
"""
    assert run(code) == (
        "`when` needs the CEL library, which is not installed | install it: pip install cel-expr-python | 1 33"
    )


@pytest.fixture
def without_cel(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def forget() -> None:
        conditions._library.cache_clear()
        conditions._environment.cache_clear()

    monkeypatch.setitem(sys.modules, "cel_expr_python.cel", None)
    forget()
    yield
    monkeypatch.undo()
    forget()


@pytest.mark.usefixtures("without_cel")
def test_without_cel_policies_without_conditions_still_work() -> None:
    assert of_rules({"id": "a", "allow": ["*/*"]}).decide(call(someone(), "a/b")).effect == "allow"
    with pytest.raises(ConfigError, match="2 problems") as caught:
        of_rules({"id": "a", "allow": ["*/*"], "when": "true"}, {"id": "b", "allow": ["x"]})
    assert "needs the CEL library" in caught.value.problems[0].message


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("true", set()),
        ("tool.readOnly", {"tool.readOnly"}),
        ("tool . readOnly", {"tool.readOnly"}),
        ("'args.now' == tool.name", {"tool.name"}),
        ("[1].all(args, args > 0)", set()),
        ("args.now == 1", {"args"}),
        ("has(caller.claims.roles) && caller.claims.tool.name == 'chain'", {"caller.claims"}),
        ("caller.roles == chain[0].roles", {"caller.roles", "chain"}),
        ("now > timestamp(request.version)", {"now", "request.version"}),
    ],
)
def test_needs_are_exactly_what_is_used(text: str, needs: set[str]) -> None:
    assert compile_condition(text).needs == needs


@pytest.mark.parametrize("name", VARIABLES)
def test_every_variable_is_readable_and_of_its_type(name: str) -> None:
    constructors = {"string": "string", "bool": "bool", "timestamp": "google.protobuf.Timestamp"}
    type_ = constructors.get(VARIABLES[name].type, VARIABLES[name].type.partition("(")[0])
    assert compile_condition(f"type({name}) == {type_}").holds(Inputs()) is True


def test_a_value_of_another_type_than_declared_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Variable("caller", "string", lambda inputs: None)
    monkeypatch.setattr("callgate.policy.conditions.VARIABLES", {**VARIABLES, "caller.subject": wrong})
    assert isinstance(compile_condition("caller.subject == 'a'").holds(Inputs(someone())), Fault)


@pytest.mark.parametrize(
    ("text", "line", "column", "length"),
    [
        ("tool.readonly", 1, 1, 13),
        ("true &&\n  tool.nam == 'x'", 2, 3, 8),
        ("tool  .  nam == 'x'", 1, 7, 8),  # written with blanks: the place the checker names
        ("1 +", 1, 4, 1),
        ("tool.name", 1, 1, 9),
        ("args.a == 1 && foo(3)", 1, 16, 3),
    ],
)
def test_mistakes_have_a_place(text: str, line: int, column: int, length: int) -> None:
    with pytest.raises(ConditionError) as caught:
        compile_condition(text)
    assert (caught.value.line, caught.value.column, caught.value.length) == (line, column, length)


def test_an_expression_that_is_too_long_or_deep_is_a_mistake() -> None:
    for text in ("(" * 500 + "true" + ")" * 500, "true && " * 40_000 + "true"):
        with pytest.raises(ConditionError) as caught:
            compile_condition(text)
        assert caught.value.line == 1

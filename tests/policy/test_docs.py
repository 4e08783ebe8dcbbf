"""``docs/policy.md`` says what the code does."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from callgate.catalog import Classes
from callgate.config import load, parse_document
from callgate.policy import Policy, load_policy, render_explanation
from callgate.policy.check import call_of
from callgate.policy.conditions import MAX_ARGUMENTS, MAX_DEPTH, VARIABLES
from callgate.policy.language import CallerText, RequestText, RuleText, TestText, To, ToolText

PAGE = (Path(__file__).parents[2] / "docs" / "policy.md").read_text(encoding="utf-8")


def block(language: str, at: int = 0) -> str:
    return str(re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[at])


@pytest.fixture
def example() -> Policy:
    ten = datetime(2026, 7, 28, 10, tzinfo=UTC)
    return load_policy([parse_document(block("yaml"), "policy.yaml")], clock=lambda: ten)


def test_the_example_passes_its_own_tests(example: Policy) -> None:
    assert len(example.tests) == 9
    assert example.first_failure() is None


def test_the_example_of_operations_scopes_and_results_passes_its_own_tests() -> None:
    made = load_policy([parse_document(block("yaml", 2), "policy.yaml")])
    assert len(made.tests) == 3
    assert made.first_failure() is None
    assert [rule.id for rule in made.results] == ["no-salaries", "short-answers"]


def test_the_settings_on_the_page_load(tmp_path: Path) -> None:
    for name, text in (("org", "default: deny"), ("team-a", "default: allow"), ("team-b", "default: deny")):
        (tmp_path / f"{name}.yaml").write_text(text)
    file = tmp_path / "callgate.yaml"
    file.write_text(f"data_dir: .\n{block('yaml', 1)}\n{block('yaml', 3)}")
    loaded = load(file, env={}, cwd=tmp_path, system=tmp_path / "none.yaml")
    facts = Classes(loaded.settings.servers["git"]).facts("force_push", {"readOnlyHint": True})
    assert (facts.operation, facts.read_only, facts.idempotent) == ("delete", False, True)
    assert [document.narrows for document in loaded.policy] == [False, True, True]
    assert load_policy(loaded.policy).default == "deny"


def test_the_explanation_is_what_is_printed(example: Policy) -> None:
    text = render_explanation(example.explain(call_of(example.tests[4])))
    assert text.replace(example.version, "VERSION") == block("text")


def test_every_name_of_conditions_is_on_the_page_and_none_besides() -> None:
    table = PAGE.partition("## Conditions")[2].partition("\n\n**")[0]
    rows = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([^`]+)`", row)} == set(VARIABLES)


@pytest.mark.parametrize("part", [RuleText, TestText, To, CallerText, ToolText, RequestText])
def test_every_key_is_on_the_page(part: type[msgspec.Struct]) -> None:
    assert [field.encode_name for field in msgspec.structs.fields(part) if f"`{field.encode_name}`" not in PAGE] == []


def test_the_bounds_are_those_of_the_code() -> None:
    assert f"{MAX_ARGUMENTS // 1024} KiB" in PAGE
    assert f"{MAX_DEPTH} levels" in PAGE

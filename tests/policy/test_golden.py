"""Whole policies: ``tests/golden/policy/*.case`` hold files and what is said about them.

A case begins with a comment and has parts ``--- NAME``: policy files, and one of

* ``error``: what loading them must show;
* ``results``: what their own tests give, a line each;
* ``explain``: the explanation of the call of the first test.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from callgate.config import parse_document, render
from callgate.errors import ConfigError
from callgate.policy import Policy, TestResult, load_policy, render_explanation
from callgate.policy.check import call_of
from tests.policy.cast import NOON

CASES = Path(__file__).parent.parent / "golden" / "policy"


def parts(text: str) -> dict[str, str]:
    found = re.split(r"^--- (.+)\n", text, flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


def cases(kind: str) -> list[str]:
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(CASES.glob("*.case"))}
    return [name for name, text in texts.items() if kind in parts(text)]


def opened(name: str, kind: str) -> tuple[dict[str, str], str]:
    case = parts((CASES / f"{name}.case").read_text(encoding="utf-8"))
    return case, case.pop(kind).rstrip("\n")


def loaded(files: dict[str, str]) -> Policy:
    return load_policy(
        [parse_document(text, file) for file, text in files.items()], clock=lambda: NOON, max_arguments=256
    )


def told(result: TestResult) -> str:
    """One line: what a person must know of a result."""
    line = f"{'ok  ' if result.passed else 'FAIL'} line {result.place.line}: {result.name}: {result.reason}"
    wanted = f"{result.expected} by {result.expected_by}" if result.expected_by else result.expected
    line += "" if result.passed else f" (expected {wanted})"
    return f"{line} [{result.note}]" if result.note else line


@pytest.mark.rule("POL-7")
@pytest.mark.parametrize("name", cases("error"))
def test_error(name: str) -> None:
    files, expected = opened(name, "error")
    with pytest.raises(ConfigError) as caught:
        loaded(files)
    assert render(caught.value) == expected
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("name", cases("results"))
def test_results(name: str) -> None:
    files, expected = opened(name, "results")
    assert "\n".join(told(result) for result in loaded(files).run_tests()) == expected


@pytest.mark.rule("POL-9")
@pytest.mark.parametrize("name", cases("explain"))
def test_explain(name: str) -> None:
    files, expected = opened(name, "explain")
    made = loaded(files)
    text = render_explanation(made.explain(call_of(made.tests[0])))
    assert re.sub(r"policy [0-9a-f]{12}", "policy VERSION", text).rstrip("\n") == expected


def test_there_are_cases() -> None:
    assert all(len(cases(kind)) >= 3 for kind in ("error", "results", "explain"))

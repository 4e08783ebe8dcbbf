"""The size law finds what is too big, and exceptions that nothing needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from checks.size_law import problems
from tests.repo.house import project

LONG_FUNCTION = "def long():\n" + "    print(1)\n" * 40
REASON = 'why = "a table"\n'


def test_a_tidy_project_passes(tmp_path: Path) -> None:
    function = "def short(a, b, c, d, e):\n" + "    print(1)\n" * 39
    method = "class Page:\n    def turn(self, a, b, c, d, e):\n        pass\n"
    assert problems(project(tmp_path, {"src/a/page.py": function + method})) == []


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("src/a/page.py", "x = 1\n" * 401, "401 lines, at most 400"),
        ("src/a/page.py", LONG_FUNCTION, "long: 41 lines, at most 40"),
        ("src/a/page.py", "class A:\n    async " + LONG_FUNCTION.replace("\n", "\n    "), "A.long: 41 lines"),
        ("src/a/page.py", "if True:\n    def f(a, b, c, d, e, g): ...\n", "f: 6 parameters, at most 5"),
        ("src/a/page.py", "class ToolManager: ...\n", "class ToolManager: use a word of the domain"),
        ("src/a/utils.py", "", "name the file after what is in it"),
        ("src/helpers/page.py", "", "name the file after what is in it"),
    ],
)
def test_a_violation_is_found(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    (found,) = problems(project(tmp_path, {name: text}))
    assert complaint in found
    assert found.startswith(name)


def test_other_folders_are_free(tmp_path: Path) -> None:
    assert problems(project(tmp_path, {"tests/utils.py": LONG_FUNCTION})) == []


def test_an_exception_with_a_reason_counts(tmp_path: Path) -> None:
    listed = f'["src/a/page.py:long"]\nlines = 60\n{REASON}'
    assert problems(project(tmp_path, {"src/a/page.py": LONG_FUNCTION, "checks/size_law.toml": listed})) == []


def test_an_exception_may_be_stricter_than_the_law(tmp_path: Path) -> None:
    listed = f'["src/a/page.py"]\nlines = 10\n{REASON}'
    found = problems(project(tmp_path, {"src/a/page.py": "x = 1\n" * 11, "checks/size_law.toml": listed}))
    assert found == ["src/a/page.py: 11 lines, at most 10"]


@pytest.mark.parametrize(
    ("listed", "complaint"),
    [
        (f'["src/a/page.py:short"]\nlines = 60\n{REASON}', "not needed any more"),
        (f'["src/a/gone.py"]\nlines = 600\n{REASON}', "not needed any more"),
        ('["src/a/page.py:long"]\nlines = 60\n', "needs a reason"),
    ],
)
def test_an_idle_exception_fails(tmp_path: Path, listed: str, complaint: str) -> None:
    text = "def short(): ...\n" + (LONG_FUNCTION if ":long" in listed else "")
    (found,) = problems(project(tmp_path, {"src/a/page.py": text, "checks/size_law.toml": listed}))
    assert complaint in found

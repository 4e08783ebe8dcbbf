"""Documents that drift from the code or from each other are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from checks import docs_match
from checks.project import ROOT
from tests.repo.house import project

TIDY = {
    "Makefile": "demo:\n\ttrue\n\ntest: demo\n\ttrue\n",
    "README.md": "# A\n\nRun `make demo`, then read [more](docs/ARCHITECTURE.md#the-rooms).\n",
    "src/callgate/policy/__init__.py": "",
    "docs/ARCHITECTURE.md": "# B\n\n## The rooms\n\n| `policy/` | may they |\n\n"
    "[deep](adr/001.md), [out](https://example.org/x), `[no](link)`\n",
    "docs/adr/001.md": "# C\n\n```md\n[not](a-link.md)\n```\n",
}


def test_a_tidy_project_passes(tmp_path: Path) -> None:
    assert docs_match.problems(project(tmp_path, TIDY)) == []


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("docs/adr/001.md", "[gone](../gone.md)\n", "docs/adr/001.md: the link ../gone.md leads nowhere"),
        ("docs/adr/001.md", "[gone](../ARCHITECTURE.md#gone)\n", "there is no such heading"),
        ("docs/alone.md", "# Nobody links here\n", "docs/alone.md: no page leads here"),
        ("src/callgate/guard/__init__.py", "", "the room guard/ is missing in the table"),
        ("CONTRIBUTING.md", "```sh\nmake coffee\n```\n", "CONTRIBUTING.md: `make coffee` is no target"),
    ],
)
def test_drift_is_found(tmp_path: Path, file: str, text: str, complaint: str) -> None:
    (found,) = docs_match.problems(project(tmp_path, {**TIDY, file: text}))
    assert complaint in found


def test_a_line_for_a_room_that_is_gone_is_found(tmp_path: Path) -> None:
    files = {name: text for name, text in TIDY.items() if not name.startswith("src/")}
    assert docs_match.problems(project(tmp_path, files)) == ["docs/ARCHITECTURE.md: there is no room policy/"]


def test_prose_about_making_is_no_target(tmp_path: Path) -> None:
    assert docs_match.problems(project(tmp_path, {**TIDY, "NOTES.md": "We make coffee.\n"})) == []


def test_a_stale_generated_page_is_found_and_written(tmp_path: Path) -> None:
    files = {**TIDY, "checks/rules.py": GENERATOR, "docs/page.txt": "old"}
    folder = project(tmp_path, files)
    (found,) = docs_match.problems(folder)
    assert found == "checks.rules: stale"
    assert docs_match.main(["--write"], folder) == 0
    assert docs_match.problems(folder) == []


def test_a_generator_that_breaks_is_a_problem(tmp_path: Path) -> None:
    (found,) = docs_match.problems(project(tmp_path, {**TIDY, "checks/rules.py": "import nothing_like_that\n"}))
    assert "nothing_like_that" in found


GENERATOR = """
import pathlib, sys
page = pathlib.Path("docs/page.txt")
if "--write" in sys.argv:
    page.write_text("new")
elif page.read_text() != "new":
    sys.exit("stale")
"""


def test_the_real_pages_have_no_broken_links() -> None:
    assert docs_match.broken_links(ROOT) == []

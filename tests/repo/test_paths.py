"""Files that name a machine or a package registry are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from checks.paths import problems
from tests.repo.house import project


@pytest.mark.parametrize(
    "text",
    [
        "see https://files.python" + "hosted.org/x",
        "index-url = https://py" + "pi.org/simple",
        "../sha" + "red/design/contract.md",
        "cd /ho" + "me/alice/callgate",
        "/Us" + "ers/alice/callgate",
    ],
)
def test_a_file_that_names_a_machine_is_found(tmp_path: Path, text: str) -> None:
    (found,) = problems(project(tmp_path, {"docs/a.md": f"first\n{text}\n"}))
    assert found.startswith("docs/a.md:2: ")


def test_the_folder_of_the_project_itself_is_found(tmp_path: Path) -> None:
    assert problems(project(tmp_path, {"run.sh": f"{tmp_path}/run\n"}))


def test_ordinary_paths_and_hosts_pass(tmp_path: Path) -> None:
    text = "https://example.org/mcp ~/.config/callgate /etc/callgate/callgate.yaml uvx mcp-server-time\n"
    assert problems(project(tmp_path, {"a.md": text})) == []


def test_binary_files_are_left_alone(tmp_path: Path) -> None:
    folder = project(tmp_path, {})
    (folder / "a.bin").write_bytes(b"\0" + str(tmp_path).encode())
    assert problems(folder) == []

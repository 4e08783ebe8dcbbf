"""What conftest adds: unknown rule ids stop the collection, and in CI a skip is a failure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from checks.project import ROOT
from tests.conftest import allowed_skips

MARKED = 'import pytest\n@pytest.mark.rule("{}")\ndef test_it() -> None: ...\n'
SKIPPED = 'import pytest\n@pytest.mark.skip(reason="no door here")\ndef test_it() -> None: ...\n'


def run(
    folder: Path, test: str, allowed: str = "", *options: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """pytest, with our conftest and ledger, on one test file."""
    (folder / "tests").mkdir()
    (folder / "checks").symlink_to(ROOT / "checks")
    (folder / "docs").symlink_to(ROOT / "docs")
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "tests" / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text(encoding="utf-8"))
    (folder / "tests" / "allowed-skips.txt").write_text(allowed)
    (folder / "tests" / "test_one.py").write_text(test)
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTEST_ADDOPTS", "CALLGATE_CI")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "tests"]
    return subprocess.run(
        command, cwd=folder, env={**kept, **environment}, capture_output=True, text=True, timeout=60, check=False
    )


def test_an_unknown_rule_stops_the_run(tmp_path: Path) -> None:
    ran = run(tmp_path, MARKED.format("HTTP-999"))
    assert ran.returncode == 4
    assert "no rule is called HTTP-999" in ran.stdout + ran.stderr


def test_a_known_rule_runs(tmp_path: Path) -> None:
    assert run(tmp_path, MARKED.format("HTTP-9")).returncode == 0


def test_a_skip_is_quiet_at_home(tmp_path: Path) -> None:
    assert run(tmp_path, SKIPPED).returncode == 0


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_skip_fails_in_ci(tmp_path: Path, workers: str) -> None:
    ran = run(tmp_path, SKIPPED, "", "-n", workers, CALLGATE_CI="1")
    assert ran.returncode == 1
    assert "SKIPPED IN CI tests/test_one.py::test_it: Skipped: no door here" in ran.stdout


def test_a_missing_import_skips_a_file_and_fails_in_ci(tmp_path: Path) -> None:
    test = 'import pytest\npytest.importorskip("no_such_library")\ndef test_it() -> None: ...\n'
    ran = run(tmp_path, test, CALLGATE_CI="1")
    assert ran.returncode == 1
    assert "SKIPPED IN CI tests/test_one.py" in ran.stdout


def test_a_listed_skip_passes_in_ci(tmp_path: Path) -> None:
    assert run(tmp_path, SKIPPED, "tests/test_one.py::*  there is no door\n", CALLGATE_CI="1").returncode == 0


def test_a_listed_skip_needs_a_reason() -> None:
    assert allowed_skips("# comment\n\na::b  because\n") == ["a::b"]
    with pytest.raises(pytest.UsageError, match="no reason for a::b"):
        allowed_skips("a::b\n")

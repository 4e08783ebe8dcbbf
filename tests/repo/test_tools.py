"""The shell of the project: the set-up script, the Makefile, the sums of CI."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from checks import junit
from checks.project import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the Makefile is for POSIX systems")
REPORT = '<testsuites><testsuite errors="1" failures="2" skipped="3" tests="10"></testsuite></testsuites>'


def tools(folder: Path, *names: str) -> str:
    """A folder with these programs of the machine and no others, for PATH."""
    folder.mkdir()
    for name in names:
        found = shutil.which(name)
        assert found, name
        (folder / name).symlink_to(found)
    return str(folder)


def test_without_python_the_set_up_says_what_to_install(tmp_path: Path) -> None:
    path = tools(tmp_path / "bin", "sh")
    ran = subprocess.run(
        ["sh", str(ROOT / "tools/venv"), str(tmp_path / "venv")],
        cwd=ROOT, env={"PATH": path}, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ran.returncode == 1
    assert "Python 3.11 or newer" in ran.stderr
    assert not (tmp_path / "venv").exists()


def test_a_python_that_is_named_and_does_not_run_is_refused(tmp_path: Path) -> None:
    path = tools(tmp_path / "bin", "sh")
    ran = subprocess.run(
        ["sh", str(ROOT / "tools/venv"), str(tmp_path / "venv")],
        cwd=ROOT, env={"PATH": path, "PYTHON": "python9"}, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ran.returncode == 1
    assert "called python9" in ran.stderr


@pytest.mark.parametrize("target", ["demo", "test", "check", "bench", "docs", "format", "clean", "help"])
def test_every_target_can_be_planned(target: str) -> None:
    ran = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert ran.returncode == 0, ran.stderr


def test_nothing_is_installed_again_while_the_project_file_is_older(tmp_path: Path) -> None:
    (tmp_path / ".core").touch()
    (tmp_path / ".dev").touch()
    plan = ["make", "-n", "test", f"VENV={tmp_path}"]
    fresh = subprocess.run(plan, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout
    assert "tools/venv" not in fresh
    (tmp_path / ".dev").unlink()
    assert "tools/venv" in subprocess.run(plan, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout


@pytest.mark.parametrize("script", [".ci/run", "tools/venv"])
def test_the_scripts_parse_and_can_be_run(script: str) -> None:
    path = ROOT / script
    shell = "bash" if path.read_text(encoding="utf-8").startswith("#!/usr/bin/env bash") else "sh"
    assert subprocess.run([shell, "-n", str(path)], timeout=30, check=False).returncode == 0
    assert path.stat().st_mode & 0o111


def test_reports_are_summed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "a.xml"
    report.write_text(REPORT)
    assert junit.main([str(report), str(report), str(tmp_path / "missing.xml")]) == 0
    assert capsys.readouterr().out == "8 passed, 6 failed, 6 skipped\n"

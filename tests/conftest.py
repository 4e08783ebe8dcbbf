"""What every test shares: the async backend, the rule markers, and no silent skips in CI."""

from __future__ import annotations

import os
import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest

from checks.ledger import read

ROOT = Path(__file__).resolve().parent.parent
ALLOWED_SKIPS = ROOT / "tests" / "allowed-skips.txt"
MEMORY = Path("/dev/shm")


@pytest.fixture
def anyio_backend() -> str:
    """Tests marked ``anyio`` run on asyncio, as callgate does."""
    return "asyncio"


def in_memory(folder: Path) -> bool:
    """Whether the tests' files can be in this memory file system: there is room, and programs may be run from it."""
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return False
    return not os.statvfs(folder).f_flag & os.ST_NOEXEC and shutil.disk_usage(folder).free > 4 * 2**30


def allowed_skips(text: str) -> list[str]:
    """The patterns of ``allowed-skips.txt``; a line without a reason is a mistake."""
    patterns = []
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            pattern, _, reason = line.strip().partition("  ")
            if not reason.strip():
                raise pytest.UsageError(f"allowed-skips.txt: no reason for {pattern}")
            patterns.append(pattern)
    return patterns


class SkipsFail:
    """In CI a skipped test fails the run, unless it is listed with its reason."""

    def __init__(self, allowed: list[str]) -> None:
        self.allowed = allowed
        self.skipped: dict[str, str] = {}

    def note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        excused = hasattr(report, "wasxfail") or any(fnmatch(report.nodeid, pattern) for pattern in self.allowed)
        if report.skipped and not excused:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.skipped[report.nodeid] = reason

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.note(report)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.skipped and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for test, reason in self.skipped.items():
            terminalreporter.write_line(f"SKIPPED IN CI {test}: {reason}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    if in_memory(MEMORY):  # each gateway has a database; on a disk most of the time goes to its syncs
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
    if os.environ.get("CALLGATE_CI") == "1" and not hasattr(config, "workerinput"):
        config.pluginmanager.register(SkipsFail(allowed_skips(ALLOWED_SKIPS.read_text(encoding="utf-8"))))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A marker with an id that no rule has is a mistake of the test."""
    rules = read(ROOT)
    for item in items:
        for marker in item.iter_markers("rule"):
            if unknown := [name for name in marker.args if name not in rules]:
                raise pytest.UsageError(f"{item.nodeid}: no rule is called {', '.join(map(str, unknown))}")

"""The official suite: install it once into a cache folder, run one requirement set against a URL, read the outcome."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import yaml

SUITE = "0.2.0-alpha.12"
NODE = "22"
REVISIONS = ("2025-11-25", "2026-07-28")

INSTALL_SECONDS = 300.0
RUN_SECONDS = 300.0
SCENARIO_SECONDS = 15.0

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_OUTCOME = re.compile(r"^([✓✗]) (\S+): (\d+) passed, (\d+) failed")
_STARTED = re.compile(r"^=== Running scenario: (\S+) ===")


class SuiteError(Exception):
    """The suite could not be installed or did not run to its end."""


class Scenario(NamedTuple):
    """The outcome of one scenario; ``passed`` and ``failed`` count its checks."""

    name: str
    good: bool
    passed: int
    failed: int


class Outcome(NamedTuple):
    """One run of one requirement set. A scored scenario that did not run counts as failed."""

    revision: str
    scored: tuple[Scenario, ...]
    unscored: tuple[Scenario, ...]

    @property
    def failing(self) -> frozenset[str]:
        return frozenset(scenario.name for scenario in self.scored if not scenario.good)


class Suite(NamedTuple):
    node: Path
    package: Path

    def requirements(self, revision: str) -> list[str]:
        """The server scenarios that count for this revision, in the suite's own order."""
        text = (self.package / "requirements" / f"{revision}.yaml").read_text("utf-8")
        names: list[str] = yaml.safe_load(text)["server"]
        return names

    def command(self, url: str, revision: str, results: Path) -> list[str]:
        program = [str(self.node), str(self.package / "dist" / "index.js"), "server", "--url", url]
        limit = str(int(SCENARIO_SECONDS * 1000))
        return [*program, "--requirements", revision, "--timeout", limit, "-o", str(results)]

    def run(self, url: str, revision: str, results: Path, progress: Callable[[str, int], None]) -> Outcome:
        """Run one requirement set; ``progress`` gets each scenario's name and number as it starts."""
        shutil.rmtree(results, ignore_errors=True)
        results.mkdir(parents=True)
        lines = _lines(self.command(url, revision, results), results, progress)
        return outcome(revision, self.requirements(revision), lines)


def _lines(command: list[str], folder: Path, progress: Callable[[str, int], None]) -> list[str]:
    """The suite's output without colours, also kept in ``output.txt``. It is killed when its time is over."""
    child = subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    limit = threading.Timer(RUN_SECONDS, child.kill)
    limit.start()
    lines: list[str] = []
    started = 0
    try:
        assert child.stdout is not None
        for raw in child.stdout:
            lines.append(_COLOUR.sub("", raw.decode("utf-8", "replace")).rstrip("\n"))
            if match := _STARTED.match(lines[-1]):
                started += 1
                progress(match[1], started)
        child.wait(10)
    finally:
        limit.cancel()
        child.kill()
        child.wait(10)
        (folder / "output.txt").write_text("\n".join(lines), "utf-8")
    if not any(_OUTCOME.match(line) for line in lines):
        raise SuiteError("the suite gave no results:\n" + "\n".join(lines[-20:]))
    return lines


def outcome(revision: str, required: list[str], lines: list[str]) -> Outcome:
    """Read the summary at the end of the suite's output.

    >>> outcome("r", ["ping", "gone"], ["✓ ping: 1 passed, 0 failed", "✗ extra: 0 passed, 2 failed"]).failing
    frozenset({'gone'})
    """
    seen: dict[str, Scenario] = {}
    for line in lines:
        if match := _OUTCOME.match(line):
            seen[match[2]] = Scenario(match[2], match[1] == "✓", int(match[3]), int(match[4]))
    scored = tuple(seen.pop(name, Scenario(name, False, 0, 0)) for name in required)
    return Outcome(revision, scored, tuple(seen.values()))


def install(folder: Path, tell: Callable[[str], None]) -> Suite:
    """The suite in ``folder``, installed with npm when it is not there. Brings its own Node if need be."""
    package = folder / "node_modules" / "@modelcontextprotocol" / "conformance"
    node = _modern_node(folder)
    if node is not None and _installed(package):
        return Suite(node, package)
    wanted = [f"@modelcontextprotocol/conformance@{SUITE}", *([] if node else [f"node@{NODE}"])]
    tell(f"installing {' and '.join(wanted)} into {folder}")
    _npm(folder, wanted)
    node = _modern_node(folder)
    if node is None or not _installed(package):
        raise SuiteError(f"npm finished, but {package} or a Node of version {NODE} or later is not there")
    return Suite(node, package)


def _installed(package: Path) -> bool:
    manifest = package / "package.json"
    return manifest.is_file() and f'"version": "{SUITE}"' in manifest.read_text("utf-8")


def _modern_node(folder: Path) -> Path | None:
    """A Node that is new enough: our own in the cache, else the system's."""
    system = shutil.which("node")
    for candidate in (folder / "node_modules" / "node" / "bin" / "node", *([Path(system)] if system else [])):
        if candidate.is_file() and _major(candidate) >= int(NODE):
            return candidate
    return None


def _major(node: Path) -> int:
    try:
        told = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.match(r"v(\d+)\.", told)
    return int(match[1]) if match else 0


def _npm(folder: Path, packages: list[str]) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise SuiteError("the conformance suite is installed with npm, which is not on the PATH")
    folder.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--loglevel", "error", *packages]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired as late:
        raise SuiteError(f"npm did not finish in {INSTALL_SECONDS:g} s") from late
    if done.returncode:
        raise SuiteError(f"npm failed:\n{done.stdout}{done.stderr}")

"""The official suite: ask a server for one requirement set, play one client scenario, read what came of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import yaml

Leg = Literal["server", "client", "authorization"]
REVISIONS = ("2025-11-25", "2026-07-28")
ANY = "any"
SETS: dict[Leg, tuple[str, ...]] = {"server": REVISIONS, "client": REVISIONS, "authorization": (ANY,)}
"""What each leg is asked for. The suite has no requirement set of a revision for authorization servers."""

LEGS: tuple[Leg, ...] = tuple(SETS)

RUN_SECONDS = 300.0
SCENARIO_SECONDS = 15.0
CLIENT_SECONDS = 30.0
AUTHORIZATION_SECONDS = 90.0

OAUTH = "auth/"
"""How the names of the scenarios begin in which a client has to be authorised."""

NOT_IN_THE_SDK = frozenset({"auth/dpop", "auth/dpop-nonce", "auth/wif-jwt-bearer"})
"""Scenarios of drafts for which the official SDK has no client: they are played through callgate only."""

BESIDES: dict[tuple[Leg, str], tuple[str, ...]] = {
    ("server", "2026-07-28"): (
        "sep-2640-skills-directory",
        "sep-2640-skills-enumeration",
        "sep-2640-skills-manifest",
    ),
    ("client", "2026-07-28"): ("sep-2640-client-no-prefetch",),
}
"""Scenarios of extensions that no requirement set names, and that are about what is between client and server."""

SKIPPED_BY_THE_SUITE = frozenset({"tasks-status-notifications"})
"""Scenarios that the suite itself does not run yet, whatever the server does."""

TIMED = frozenset({"sse-retry"})
"""Scenarios that measure to a fifth of a second; a busy machine may miss that, but hardly twice."""

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_OUTCOME = re.compile(r"^([✓✗]) (\S+): (\d+) passed, (\d+) failed")
_STARTED = re.compile(r"^=== Running scenario: (\S+) ===")
_STAMP = re.compile(r"-\d{4}-\d\d-\d\dT[\d-]+Z$")

Progress = Callable[[str, int], None]


class SuiteError(Exception):
    """The suite could not be installed or did not run to its end."""


class Scenario(NamedTuple):
    """The outcome of one scenario; ``passed`` and ``failed`` count its checks.

    It is ``idle`` when all its own checks were skipped: the server did not offer what it is about. Nothing failed
    then, but nothing was shown either, so that is not ``good`` unless the suite never runs it.
    """

    name: str
    good: bool
    passed: int
    failed: int
    idle: bool = False


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

    def requirements(self, leg: Leg, revision: str) -> tuple[list[str], list[str]]:
        """The scenarios that count for this revision, in the suite's own order, and those that do not."""
        text = (self.package / "requirements" / f"{revision}.yaml").read_text("utf-8")
        document = yaml.safe_load(text)
        unscored = [entry["scenario"] for entry in document["not_scored"] if entry["leg"] == leg]
        return document[leg], [*unscored, *BESIDES.get((leg, revision), ())]

    def command(self, *arguments: str, seconds: float, results: Path) -> list[str]:
        program = [str(self.node), str(self.package / "dist" / "index.js"), *arguments]
        return [*program, "--timeout", str(int(seconds * 1000)), "-o", str(results)]

    def ask(self, url: str, revision: str, results: Path, progress: Progress) -> Outcome:
        """Ask a server for one requirement set; ``progress`` gets each scenario's name and number as it starts."""
        emptied(results)
        arguments = ("server", "--url", url, "--requirements", revision)
        lines = _lines(self.command(*arguments, seconds=SCENARIO_SECONDS, results=results), results, progress)
        required, _ = self.requirements("server", revision)
        done = outcome(revision, required, lines, idle(results))
        besides = [
            self.single(name, revision, results, "server", "--url", url)
            for name in BESIDES.get(("server", revision), ())
        ]
        return done._replace(unscored=(*done.unscored, *besides))

    def play(
        self, client: str, revision: str, results: Path, progress: Progress, without: frozenset[str] = frozenset()
    ) -> Outcome:
        """Let a client play one requirement set, without some of the scenarios."""
        emptied(results)
        required, besides = self.requirements("client", revision)
        names = [name for name in [*required, *besides] if name not in without]
        seen: dict[str, Scenario] = {}
        for number, name in enumerate(names, 1):
            progress(name, number)
            seen[name] = self.single(name, revision, results, "client", "--command", client)
            if name in TIMED and not seen[name].good:
                seen[name] = self.single(name, revision, results, "client", "--command", client)
        scored = tuple(seen.pop(name) for name in required if name in seen)
        return Outcome(revision, scored, tuple(seen.values()))

    def single(self, name: str, revision: str, results: Path, *arguments: str) -> Scenario:
        """Run one scenario by itself. ``--force``, because those of extensions belong to no revision."""
        chosen = ("--scenario", name, "--spec-version", revision, "--force")
        command = self.command(*arguments, *chosen, seconds=CLIENT_SECONDS, results=results)
        try:
            done = subprocess.run(
                command, cwd=results, capture_output=True, text=True, timeout=2 * CLIENT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return Scenario(name, False, 0, 0)
        (results / f"{name.replace('/', '-')}.txt").write_text(done.stdout + done.stderr, "utf-8")
        return judged(name, statuses(results).get(name, []), done.returncode == 0)


def emptied(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def statuses(results: Path) -> dict[str, list[str]]:
    """Per scenario, how its own checks ended (not those of every message against the schema)."""
    found: dict[str, list[str]] = {}
    for file in sorted(results.glob("**/checks.json")):  # the newest of a name last
        name = _STAMP.sub("", file.parent.relative_to(results).as_posix()).removeprefix("server-")
        checks = json.loads(file.read_text("utf-8"))
        found[name] = [check["status"] for check in checks if check["id"] != "wire-schema-valid"]
    return found


def idle(results: Path) -> frozenset[str]:
    """The scenarios of which nothing but skipped checks is left."""
    return frozenset(name for name, ended in statuses(results).items() if is_idle(ended))


def is_idle(ended: Iterable[str]) -> bool:
    return set(ended) - {"INFO"} == {"SKIPPED"}


def judged(name: str, ended: list[str], passed: bool) -> Scenario:
    """A scenario that ran by itself, from its checks and the suite's exit.

    >>> judged("a", ["SUCCESS", "SKIPPED"], True).good, judged("a", ["SKIPPED"], True).good
    (True, False)
    """
    nothing = is_idle(ended)
    good = passed and not nothing
    return Scenario(name, good, ended.count("SUCCESS"), ended.count("FAILURE") + ended.count("WARNING"), nothing)


def _lines(command: list[str], folder: Path, progress: Progress) -> list[str]:
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
            lines.append(COLOUR.sub("", raw.decode("utf-8", "replace")).rstrip("\n"))
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


def outcome(revision: str, required: list[str], lines: list[str], idling: frozenset[str] = frozenset()) -> Outcome:
    """Read the summary at the end of the suite's output.

    >>> outcome("r", ["ping", "gone"], ["✓ ping: 1 passed, 0 failed", "✗ extra: 0 passed, 2 failed"]).failing
    frozenset({'gone'})
    """
    seen: dict[str, Scenario] = {}
    for line in lines:
        if match := _OUTCOME.match(line):
            name = match[2]
            good = match[1] == "✓" and (name not in idling or name in SKIPPED_BY_THE_SUITE)
            seen[name] = Scenario(name, good, int(match[3]), int(match[4]), name in idling)
    scored = tuple(seen.pop(name, Scenario(name, False, 0, 0)) for name in required)
    return Outcome(revision, scored, tuple(seen.values()))

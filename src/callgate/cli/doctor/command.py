"""The command: runs every look, prints what was found, exits 1 when something is wrong."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import msgspec

from callgate.cli.doctor.finding import Finding, Notes
from callgate.cli.doctor.identity import identity
from callgate.cli.doctor.machine import clock, data_dir, installation, ports
from callgate.cli.doctor.servers import servers
from callgate.cli.options import Config, Output
from callgate.cli.output import Column, colours, emit, field, plain
from callgate.config import Loaded, load, render
from callgate.errors import ConfigError
from callgate.policy import load_policy

MARKS = {"ok": ("✓", "32"), "warning": ("!", "33"), "problem": ("✗", "31")}
COLUMNS = (
    Column("GROUP", field("group"), keep=True),
    Column("LEVEL", field("level"), keep=True),
    Column("WHAT", field("what")),
    Column("FIX", field("fix")),
)


def doctor(*, config: Config = None, output: Output = None) -> int:
    """Check the installation, the configuration, ports, servers, policy and identity; exit status 1 when one is wrong.

    Nothing is changed and no server is started.
    """
    found = asyncio.run(_examine(config))
    if output is None:
        _print(found)
    else:
        emit([msgspec.structs.asdict(each) for each in found], COLUMNS, output)
    return 1 if any(each.level == "problem" for each in found) else 0


async def _examine(config: Path | None) -> list[Finding]:
    found = [*installation()]
    loaded, findings = configuration(config)
    found += findings
    if loaded is None:
        return [*found, *clock()]
    found += [*data_dir(loaded), *clock(), *await ports(loaded)]
    return [*found, *await servers(loaded), *policy(loaded), *await identity(loaded)]


def configuration(config: Path | None) -> tuple[Loaded | None, list[Finding]]:
    """Load the configuration; every mistake in it is one finding."""
    notes = Notes("configuration")
    try:
        loaded = load(config)
    except ConfigError as error:
        for problem in error.problems or (error,):
            whole = ConfigError(problem.message, place=problem.place)
            notes.problem(render(whole).partition("]: ")[2], problem.hint)
        return None, notes.found
    files = [str(file) for file in loaded.files if file.exists()]
    if files:
        notes.ok(f"read from {', '.join(files)}")
    else:
        fix = "Write a callgate.yaml, or name a file with `-c`."
        notes.warning("there is no configuration file; everything is at its default", fix)
    for note in loaded.notes:
        notes.warning(note)
    if not loaded.settings.servers:
        notes.warning("no server is configured", "Add one below `servers:` in callgate.yaml.")
    return loaded, notes.found


def policy(loaded: Loaded) -> list[Finding]:
    """Load the policy and run its tests."""
    notes = Notes("policy")
    if not loaded.policy:
        notes.warning("no policy is configured: every call is allowed, and recorded", "Set `policy:` in callgate.yaml.")
        return notes.found
    try:
        loaded_policy = load_policy(loaded.policy)
        results = loaded_policy.run_tests()
    except ConfigError as error:
        for problem in error.problems or (error,):
            notes.problem(render(ConfigError(problem.message, place=problem.place)).partition("]: ")[2], problem.hint)
        return notes.found
    notes.ok(f"version {loaded_policy.version}, {len(loaded_policy.rules)} rules")
    for result in results:
        if not result.passed:
            where = f"{result.place.file}:{result.place.line}"
            what = f"the test `{result.name}` fails: expected {result.expected}, got {result.got} ({where})"
            notes.problem(what, "`callgate policy test` shows why; the gateway does not take over such a policy.")
    if results and all(result.passed for result in results):
        notes.ok(f"{len(results)} tests pass")
    if not results:
        notes.warning("the policy has no tests", "Add `tests:` to the policy file; `callgate policy test` runs them.")
    return notes.found


def _print(found: list[Finding]) -> None:
    colour = colours()
    for group, findings in itertools.groupby(found, key=lambda each: each.group):
        print(group)
        for each in findings:
            sign, style = MARKS[each.level]
            mark = f"\x1b[{style}m{sign}\x1b[0m" if colour else sign
            first, *rest = plain(each.what, lines=True).splitlines() or [""]
            print(f"  {mark} {first}")
            for line in rest:
                print(f"    {line}")
            for number, line in enumerate(plain(each.fix, lines=True).splitlines()):
                print(f"    {'fix: ' if not number else '     '}{line}")
    wrong = sum(each.level == "problem" for each in found)
    warnings = sum(each.level == "warning" for each in found)
    print(f"\n{wrong} problem{'s' * (wrong != 1)}, {warnings} warning{'s' * (warnings != 1)}")

"""``python -m checks [NAME …]``: run all the checks, or those named, two at a time, and say what failed.

Output is shown only where something is wrong, and not all of it when it is long: the whole is in ``build/checks``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from checks.project import ROOT

PYTHON = sys.executable
# The longest first: what starts last should not be what everybody waits for.
CHECKS: dict[str, tuple[str, ...]] = {
    "tests": (PYTHON, "-m", "pytest", "-q", "-n", "2", "--no-header"),
    "types": (PYTHON, "-m", "mypy"),
    "imports": (str(Path(PYTHON).parent / "lint-imports"), "--no-logo", "--cache-dir", "build/imports"),
    "documents": (PYTHON, "-m", "checks.docs_match"),
    "lint": (PYTHON, "-m", "ruff", "check", "."),
    "format": (PYTHON, "-m", "ruff", "format", "--check", "."),
    "sizes": (PYTHON, "-m", "checks.size_law"),
    "paths": (PYTHON, "-m", "checks.paths"),
}
LONGEST = 900.0  # seconds for one check
LOGS = ROOT / "build" / "checks"
SHOWN = 60  # lines from each end of an output


@dataclass(frozen=True)
class Outcome:
    name: str
    passed: bool
    seconds: float
    output: str


def run(name: str) -> Outcome:
    start = time.monotonic()
    environment = {**os.environ, "NO_COLOR": "1", "PYTHONPATH": os.pathsep.join(["src", "."])}
    try:
        ran = subprocess.run(
            CHECKS[name], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LONGEST, check=False
        )
        passed, output = ran.returncode == 0, ran.stdout + ran.stderr
    except subprocess.TimeoutExpired:
        passed, output = False, f"not done after {LONGEST:.0f} s"
    LOGS.mkdir(parents=True, exist_ok=True)
    (LOGS / f"{name}.log").write_text(output, encoding="utf-8")
    return Outcome(name, passed, time.monotonic() - start, output.strip())


def show(outcome: Outcome) -> None:
    last = outcome.output.splitlines()[-1] if outcome.output else ""
    print(f"{'ok    ' if outcome.passed else 'FAILED'} {outcome.name:<10}{outcome.seconds:6.1f} s  {last}", flush=True)


def shortened(outcome: Outcome) -> str:
    lines = outcome.output.splitlines()
    if len(lines) > 2 * SHOWN:
        lines[SHOWN:-SHOWN] = [f"… {len(lines) - 2 * SHOWN} more lines in build/checks/{outcome.name}.log …"]
    return "\n".join(lines)


def main(names: list[str]) -> int:
    if unknown := [name for name in names if name not in CHECKS]:
        print(f"no such check: {', '.join(unknown)}; there are {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    failed: list[Outcome] = []
    with ThreadPoolExecutor(max_workers=2) as pool:
        for done in as_completed([pool.submit(run, name) for name in names or CHECKS]):
            outcome = done.result()
            show(outcome)
            failed += [] if outcome.passed else [outcome]
    for outcome in failed:
        print(f"\n── {outcome.name} {'─' * 60}\n{shortened(outcome)}")
    print(f"\n{len(failed)} of {len(names or CHECKS)} checks failed." if failed else "\nEverything passes.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

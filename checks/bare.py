"""Run by an interpreter that has callgate and its core dependencies only: does every module import?

Stands alone (``PYTHON checks/bare.py``): the interpreter under test has none of our development tools. It also
says how long ``callgate --help`` takes; only a gross figure, above a second, fails.
"""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
import time
from pathlib import Path

HELP_LIMIT = 1.0  # seconds; the aim is 0.3
TRIES = 5
# The SDK is for tests; pydantic comes with it. Neither may come in by the back door.
UNWANTED = ("mcp", "pydantic")


def broken_imports() -> list[str]:
    """Every module of callgate that does not import, with the reason."""
    import callgate

    wrong = []
    for module in pkgutil.walk_packages(callgate.__path__, "callgate."):
        if module.name.endswith(".__main__") or ".migrations." in module.name:
            continue
        try:
            importlib.import_module(module.name)
        except Exception as error:
            wrong.append(f"{module.name}: {type(error).__name__}: {error}")
    return wrong


def seconds_for_help() -> tuple[float, str]:
    """The best of some tries, and what went wrong."""
    command = Path(sys.executable).with_name("callgate.exe" if sys.platform == "win32" else "callgate")
    best = float("inf")
    for _ in range(TRIES):
        start = time.perf_counter()
        ran = subprocess.run([command, "--help"], capture_output=True, text=True, timeout=60, check=False)
        best = min(best, time.perf_counter() - start)
        if ran.returncode or "Usage" not in ran.stdout:
            return best, f"callgate --help: exit {ran.returncode}: {ran.stderr.strip() or ran.stdout.strip()}"
    return best, ""


def main() -> int:
    wrong = broken_imports()
    wrong += [f"{name} was imported by callgate" for name in UNWANTED if name in sys.modules]
    best, complaint = seconds_for_help()
    print(f"callgate --help takes {best * 1000:.0f} ms (the aim is 300 ms)")
    if complaint:
        wrong.append(complaint)
    elif best > HELP_LIMIT:
        wrong.append(f"callgate --help takes {best:.1f} s, more than {HELP_LIMIT:.0f} s")
    version = sys.version.split()[0]
    print("\n".join(wrong) or f"every module imports on Python {version} with the core dependencies only")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

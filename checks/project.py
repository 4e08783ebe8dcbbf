"""The files of the project, for every check."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def files(root: Path, *suffixes: str) -> list[Path]:
    """Every file that is or would be committed, optionally of these suffixes, in order of their paths."""
    git = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(git, capture_output=True, text=True, check=True, timeout=30).stdout.split("\0")
    paths = sorted({root / name for name in listed if name})
    return [path for path in paths if path.is_file() and (not suffixes or path.suffix in suffixes)]


def report(problems: list[str], praise: str) -> int:
    """Print the problems, or the praise when there are none; the exit status."""
    print("\n".join(problems) if problems else praise)
    return 1 if problems else 0

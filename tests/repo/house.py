"""A small project in a folder of its own, for checks to look at."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path


def project(folder: Path, files: Mapping[str, str]) -> Path:
    """A Git work tree with these files."""
    subprocess.run(["git", "init", "-q", str(folder)], check=True, timeout=30)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder

"""Packages from npm in a folder of their own, and a Node that is new enough to run them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

NODE = 22
SECONDS = 300.0


class NpmError(Exception):
    """The packages could not be installed; the message holds the end of the output."""


def node_in(folder: Path) -> Path | None:
    """A Node that is new enough: the folder's own, else the system's."""
    system = shutil.which("node")
    for candidate in (folder / "node_modules" / "node" / "bin" / "node", *([Path(system)] if system else [])):
        if candidate.is_file() and _major(candidate) >= NODE:
            return candidate
    return None


def install(folder: Path, packages: list[str]) -> Path:
    """Install the packages into the folder, and a Node if there is none that is new enough; returns the Node."""
    npm = shutil.which("npm")
    if npm is None:
        raise NpmError("npm is not on the PATH")
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [*packages, *([] if node_in(folder) else [f"node@{NODE}"])]
    command = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--loglevel", "error", *wanted]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired as late:
        raise NpmError(f"npm did not finish in {SECONDS:g} s") from late
    if done.returncode:
        raise NpmError(f"npm failed:\n{(done.stdout + done.stderr)[-4000:]}")
    node = node_in(folder)
    if node is None:
        raise NpmError(f"npm finished, but a Node of version {NODE} or later is not there")
    return node


def _major(node: Path) -> int:
    try:
        told = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.match(r"v(\d+)\.", told)
    return int(match[1]) if match else 0

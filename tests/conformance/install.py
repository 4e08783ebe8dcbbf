"""Install the official suite once into a cache folder, with a Node that is new enough for it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from .suite import Suite, SuiteError

SUITE = "0.2.0-alpha.12"
NODE = "22"
INSTALL_SECONDS = 300.0


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

"""The npm packages of the TypeScript scripts, and a Node that can run them: installed once into the cache folder."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from tests.clients.venvs import alone
from tests.processes import CACHE

FOLDER = CACHE / "matrix"
MODULES = FOLDER / "node_modules"
NODE = 22
PACKAGES = [
    "@modelcontextprotocol/sdk@>=1.25 <2",
    "@modelcontextprotocol/server@>=2.4 <3",
    "@modelcontextprotocol/client@>=2.4 <3",
    "@modelcontextprotocol/node@>=2.1 <3",
]
SECONDS = 300.0


class PackagesError(Exception):
    """The packages could not be installed; the message holds the end of the output."""


@cache
def node() -> Path:
    """A Node that is new enough, the packages installed beside it when they are not there yet."""
    stamp = FOLDER / "callgate-packages.txt"
    wanted = "\n".join(PACKAGES)
    with alone(FOLDER.with_suffix(".lock")):
        found = new_enough()
        if found is None or not stamp.is_file() or stamp.read_text("utf-8") != wanted:
            install([*PACKAGES, *([] if found else [f"node@{NODE}"])])
            stamp.write_text(wanted, "utf-8")
            found = new_enough()
    if found is None:
        raise PackagesError(f"npm finished, but a Node of version {NODE} or later is not there")
    return found


def new_enough() -> Path | None:
    """Our own Node in the cache, else the system's."""
    system = shutil.which("node")
    for candidate in (MODULES / "node" / "bin" / "node", *([Path(system)] if system else [])):
        if candidate.is_file() and major(candidate) >= NODE:
            return candidate
    return None


def major(candidate: Path) -> int:
    try:
        told = subprocess.run([candidate, "--version"], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.match(r"v(\d+)\.", told)
    return int(match[1]) if match else 0


def install(packages: list[str]) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise PackagesError("the TypeScript SDKs are installed with npm, which is not on the PATH")
    FOLDER.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--prefix", str(FOLDER), "--no-audit", "--no-fund", "--loglevel", "error", *packages]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired as late:
        raise PackagesError(f"npm did not finish in {SECONDS:g} s") from late
    if done.returncode:
        raise PackagesError(f"npm failed:\n{(done.stdout + done.stderr)[-4000:]}")


if __name__ == "__main__":
    print(node())

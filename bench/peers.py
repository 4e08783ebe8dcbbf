"""Other gateways, each in a virtual environment of its own below the cache folder; absent ones are skipped."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bench.processes import NotStarted


class Peer(msgspec.Struct, frozen=True):
    """What to install: ``oldest`` and ``newest`` are the Python versions (3.x) that can run it."""

    package: str
    version: str
    oldest: int = 11
    newest: int = 13

    @property
    def folder(self) -> str:
        return f"{self.package}-{self.version}"


FASTMCP_PROXY = Peer("fastmcp", "4.1.2")
CONTEXT_FORGE = Peer("mcp-contextforge-gateway", "1.1.0", oldest=12)


class Absent(Exception):
    """The peer is not there; the message says why and what would bring it."""


def minor_version(python: str) -> int:
    """The 3.x of an interpreter; 0 when it is something else or does not run."""
    try:
        said = subprocess.run([python, "-V"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    found = re.match(r"Python 3\.(\d+)", said)
    return int(found[1]) if found else 0


def interpreters(chosen: str = "") -> Iterator[str]:
    """Interpreters worth asking: the chosen one, this one, those on PATH by version, those of pyenv and uv."""
    if chosen:
        yield chosen
    yield sys.executable
    yield from (found for minor in (13, 12, 11) if (found := shutil.which(f"python3.{minor}")))
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    uv = Path.home() / ".local" / "share" / "uv" / "python"
    for folder in (pyenv, uv):
        yield from (str(path) for path in sorted(folder.glob("*/bin/python3"), reverse=True))


def interpreter(peer: Peer, chosen: str = "") -> str:
    for python in interpreters(chosen):
        if peer.oldest <= minor_version(python) <= peer.newest:
            return python
    raise Absent(f"no Python 3.{peer.oldest} to 3.{peer.newest} found (name one with --python)")


def installed(peer: Peer, cache: Path) -> Path:
    """The ``bin`` folder of the peer's environment."""
    scripts = cache / peer.folder / ("Scripts" if sys.platform == "win32" else "bin")
    if not (cache / peer.folder / "complete").exists():
        raise Absent(f"{peer.package} {peer.version} is not installed (--install-peers installs it)")
    return scripts


def install(peer: Peer, cache: Path, chosen: str = "") -> None:
    """Make the environment; ``Absent`` when there is no interpreter for it or a package cannot be had."""
    place = cache / peer.folder
    if (place / "complete").exists():
        return
    cache.mkdir(parents=True, exist_ok=True)
    (cache / ".gitignore").write_text("*\n", encoding="utf-8")
    python = interpreter(peer, chosen)
    pip = [str(place / ("Scripts" if sys.platform == "win32" else "bin") / "python"), "-m", "pip", "install", "-q"]
    try:
        subprocess.run([python, "-m", "venv", "--clear", str(place)], check=True, capture_output=True, timeout=300)
        subprocess.run([*pip, f"{peer.package}=={peer.version}"], check=True, capture_output=True, timeout=1200)
    except subprocess.SubprocessError as error:
        said = getattr(error, "stderr", None) or b""
        raise Absent(f"{peer.package} cannot be installed: {said.decode(errors='replace')[-400:] or error}") from error
    (place / "complete").touch()


__all__ = [
    "CONTEXT_FORGE",
    "FASTMCP_PROXY",
    "Absent",
    "NotStarted",
    "Peer",
    "install",
    "installed",
    "interpreter",
]

"""Real MCP servers for tests: found in ``CALLGATE_SERVERS`` (folders), or installed once into the test cache."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.clients.venvs import alone, make
from tests.processes import CACHE

FOLDER = CACHE / "servers"
PYTHON = {"mcp-server-time": "mcp-server-time", "mcp-server-git": "mcp-server-git", "fastmcp": "fastmcp>=4,<5"}
NODE = {
    "mcp-server-everything": "@modelcontextprotocol/server-everything",
    "mcp-server-filesystem": "@modelcontextprotocol/server-filesystem",
}


def program(name: str) -> str:
    """The path of a program, which is installed first when it is nowhere. Each Python one has its own environment."""
    if given := shutil.which(name, path=os.environ.get("CALLGATE_SERVERS", "")):
        return given
    folder = FOLDER / name
    inside = folder / ("node_modules/.bin" if name in NODE else "Scripts" if os.name == "nt" else "bin")
    with alone(FOLDER / f"{name}.lock"):
        if not (found := shutil.which(name, path=str(inside))):
            install(name, folder, inside)
            found = shutil.which(name, path=str(inside))
    assert found is not None
    return found


def install(name: str, folder: Path, inside: Path) -> None:
    if name in NODE:
        folder.mkdir(parents=True, exist_ok=True)
        npm = shutil.which("npm") or "npm"
        command = [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), NODE[name]]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=400)
    else:
        make(folder, inside / ("python.exe" if os.name == "nt" else "python"), [PYTHON[name]])

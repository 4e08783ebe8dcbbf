"""Virtual environments for clients that cannot live in ours: ``python -m tests.clients.venvs [NAME…]``.

Each is made once in the cache folder (with uv when present, else venv and pip) and kept until what it shall
hold changes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.processes import CACHE as KEPT

CACHE = KEPT / "clients"
REQUIREMENTS = {
    "mcp1": ["mcp>=1.20,<2"],
    "fastmcp": ["fastmcp[tasks]>=4,<5"],
    "agents": [
        "langgraph>=1.2,<2",
        "langchain-mcp-adapters>=0.3,<0.4",
        "pydantic-ai-slim[mcp]>=2.68,<3",
        "httpx>=0.28",
    ],
}
SECONDS = 420.0


class VenvError(Exception):
    """An environment could not be made; the message holds the end of the output."""


def interpreter(name: str, cache: Path = CACHE) -> Path:
    """The Python of the environment of this name, made first when it is missing or holds something else."""
    folder = cache / name
    wanted = "\n".join(REQUIREMENTS[name])
    stamp = folder / "callgate-requirements.txt"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    with alone(cache / f"{name}.lock"):
        if not (stamp.is_file() and stamp.read_text("utf-8") == wanted and python.exists()):
            make(folder, python, REQUIREMENTS[name])
            stamp.write_text(wanted, "utf-8")
    return python


def make(folder: Path, python: Path, requirements: list[str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if uv := shutil.which("uv"):
        run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)])
        run([uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), *requirements])
    else:
        run([sys.executable, "-m", "venv", str(folder)])
        run([str(python), "-m", "pip", "install", "--quiet", *requirements])


def run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as late:
        raise VenvError(f"{command[0]} did not finish in {SECONDS:g} s") from late
    if done.returncode:
        raise VenvError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-4000:]}")


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Hold a folder as a lock between test processes; one older than any build was left behind and is taken over."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 2 * SECONDS
    while True:
        try:
            lock.mkdir()
            break
        except FileExistsError:
            if stale(lock):
                lock.rmdir()
            elif time.monotonic() > deadline:
                raise VenvError(f"somebody else holds {lock}") from None
            else:
                time.sleep(0.1)
    try:
        yield
    finally:
        lock.rmdir()


def stale(lock: Path) -> bool:
    try:
        return time.time() - lock.stat().st_mtime > 2 * SECONDS
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    for chosen in sys.argv[1:] or list(REQUIREMENTS):
        print(interpreter(chosen))

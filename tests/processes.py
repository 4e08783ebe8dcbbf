"""Real processes for tests: start one, wait for the line that says it is ready, read what it wrote, end it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("CALLGATE_CACHE") or ROOT / ".cache")
"""Where things from the package indexes are kept between runs."""


class NotReady(Exception):
    """The process ended or the time passed before it said what was waited for."""


class Running(AbstractContextManager["Running"]):
    """A child process that writes its output to ``{name}.out`` and ``{name}.err`` in ``folder``.

    Used as a context manager it is ended on the way out: asked first, killed after five seconds.
    """

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, *, env: Mapping[str, str] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.out = folder / f"{name}.out"
        self.err = folder / f"{name}.err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment(env), stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def written(self) -> str:
        """All output so far, stdout before stderr."""
        return "".join(path.read_text("utf-8", "replace") for path in (self.out, self.err))

    def wait_for(self, pattern: str, timeout: float) -> re.Match[str]:
        """The first match of ``pattern`` in the output, or ``NotReady`` with the end of the output."""
        deadline = time.monotonic() + timeout
        while True:
            ended = not self.alive
            found = re.search(pattern, self.written())
            if found:
                return found
            if ended or time.monotonic() > deadline:
                why = f"ended with status {self.process.returncode}" if ended else f"said nothing in {timeout:g} s"
                raise NotReady(f"{self.name} {why} (waited for {pattern!r}):\n{self.written()[-4000:]}")
            time.sleep(0.01)

    def stop(self) -> None:
        if self.alive:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait(5)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment with the checkout importable, and without settings for the user's own callgate."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CALLGATE_")}
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT), *filter(None, [inherited.get("PYTHONPATH")])])
    return {**inherited, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **(more or {})}


def free_port() -> int:
    """A port on loopback that nobody holds right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def start_fixture(folder: Path, timeout: float = 20.0) -> tuple[Running, str]:
    """The conformance fixture over HTTP, and its URL."""
    running = Running("fixture", python("-m", "tests.conformance.fixture", "--port", "0"), folder)
    return running, ready(running, r"http://\S+/mcp", timeout)


def start_callgate(config: Path, folder: Path, timeout: float = 30.0) -> tuple[Running, str]:
    """``callgate up`` with this configuration, and the root of its gateway listener (no slash at the end)."""
    running = Running("callgate", python("-m", "callgate", "up", "-c", str(config)), folder)
    return running, ready(running, r"http://[^\s/]+/mcp\b", timeout).removesuffix("/mcp")


def ready(running: Running, pattern: str, timeout: float) -> str:
    try:
        return running.wait_for(pattern, timeout)[0]
    except BaseException:
        running.stop()
        raise

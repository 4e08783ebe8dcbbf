"""Starts the programs that a run compares, and reads what they cost: CPU time and memory of a whole process tree."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from time import monotonic, sleep

import psutil

ROOT = Path(__file__).resolve().parent.parent
GRACE = 5.0


class NotStarted(Exception):
    """A program did not come up; the message ends with the last lines it wrote."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def environment(more: Mapping[str, str] = {}) -> dict[str, str]:
    """This process's environment with the repository importable, compiled files kept as usual, and ``more``."""
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    own = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**own, "PYTHONPATH": os.pathsep.join(path for path in paths if path), **more}


class Program:
    """A child process whose output (both streams) is read all the time, so that it never blocks on a full pipe."""

    def __init__(self, command: list[str], env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> None:
        self.command = command
        self.started = monotonic()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(env or environment()),
            cwd=cwd,
            text=True,
            errors="replace",
            start_new_session=sys.platform != "win32",
        )
        self.tail: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.tail = [*self.tail[-19:], line.rstrip()]
            self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, pattern: str, timeout: float) -> re.Match[str]:
        """The first line that matches ``pattern``; ``NotStarted`` when it does not come in ``timeout`` seconds."""
        deadline = monotonic() + timeout
        while (left := deadline - monotonic()) > 0:
            try:
                line = self._lines.get(timeout=left)
            except queue.Empty:
                break
            if line is None:
                raise NotStarted(self.story(f"ended with status {self.process.wait()}"))
            if found := re.search(pattern, line):
                return found
        raise NotStarted(self.story(f"was not ready after {timeout:g} s"))

    def wait_port(self, port: int, timeout: float) -> None:
        """Return as soon as something accepts connections on ``port``."""
        deadline = monotonic() + timeout
        while monotonic() < deadline:
            if self.process.poll() is not None:
                self._reader.join(1)
                raise NotStarted(self.story(f"ended with status {self.process.returncode}"))
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            sleep(0.005)
        raise NotStarted(self.story(f"did not listen after {timeout:g} s"))

    def story(self, what: str) -> str:
        said = "\n    ".join(self.tail[-8:]) or "(it wrote nothing)"
        return f"{' '.join(self.command[:6])} … {what}\n    {said}"

    def tree(self) -> list[psutil.Process]:
        """The process and everything below it, except the benchmark's own stdio servers."""
        try:
            top = psutil.Process(self.pid)
            return [top, *(child for child in top.children(recursive=True) if not _is_upstream(child))]
        except psutil.NoSuchProcess:
            return []

    def pids(self) -> list[int]:
        return [process.pid for process in self.tree()]

    def resident(self) -> int:
        """Bytes of memory: all that the first process holds, and what each child holds for itself alone."""
        sizes = []
        for process in self.tree():
            with contextlib.suppress(psutil.Error):
                own = process.pid == self.pid
                sizes.append(process.memory_info().rss if own else _unshared(process))
        return sum(sizes)

    def stop(self) -> None:
        """Ask the process to end, then make it and its children end."""
        left = self.tree()[1:]
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE)
        for process in [*left, *([psutil.Process(self.pid)] if self.process.poll() is None else [])]:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, GRACE)
        self.process.wait(GRACE)
        self._reader.join(GRACE)
        if self.process.stdout:
            self.process.stdout.close()


def _is_upstream(process: psutil.Process) -> bool:
    try:
        return "bench.upstream_stdio" in process.cmdline()
    except psutil.Error:
        return False


def _unshared(process: psutil.Process) -> int:
    memory = process.memory_full_info()
    return int(getattr(memory, "uss", memory.rss))

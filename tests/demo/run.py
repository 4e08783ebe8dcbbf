"""The demo as a process of its own, with a folder for temporary files that shows what it leaves behind."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

import psutil

from tests.processes import Running, python

READY = r"callgate is ready: (http://127\.0\.0\.1:\d+/mcp) \(3 of 3 servers ready, 10 tools\)"
LIMIT = 60.0


class Demo(Running):
    def __init__(self, folder: Path, **env: str) -> None:
        self.temporary = folder / "temporary"
        self.temporary.mkdir(parents=True)
        command = python("-m", "callgate", "up", "--demo", "--port", "0", "--admin-port", "0")
        env = {"TMPDIR": str(self.temporary), "TEMP": str(self.temporary), "COLUMNS": "80", **env}
        super().__init__("demo", command, folder, env=env)
        self.children: set[int] = set()

    def __enter__(self) -> Demo:
        return self

    def ended(self) -> int:
        """The exit status; notes every child on the way."""
        deadline = time.monotonic() + LIMIT
        while self.alive and time.monotonic() < deadline:
            self.note_children()
            time.sleep(0.01)
        return self.process.wait(1)

    def note_children(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self.children |= {child.pid for child in psutil.Process(self.pid).children(recursive=True)}

    def nothing_left(self) -> None:
        assert self.children, "the stdio server was never seen"
        assert [pid for pid in self.children if psutil.pid_exists(pid)] == []
        assert list(self.temporary.iterdir()) == []

    def rows(self) -> list[str]:
        """The rows without time and milliseconds, with single spaces."""
        text = self.out.read_text("utf-8")
        found = re.findall(r"^\d\d:\d\d:\d\d (.+?) +\d+(?:\.\d)?$", text, re.MULTILINE)
        return [" ".join(row.split()) for row in found]

"""A shell of a user who signs in: `callgate` as a process of its own, with a home of its own."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.office import Done
from tests.processes import environment

DEADLINE = 30.0


@dataclass
class Shell:
    """Runs commands against the gateway at ``url``. ``env`` is added to their environment."""

    home: Path
    url: str
    env: dict[str, str] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return self.home / ".local" / "state" / "callgate" / "signed-in.json"

    def environment(self) -> dict[str, str]:
        known = {"HOME": str(self.home), "CALLGATE_URL": self.url, "COLUMNS": "120", "BROWSER": "", "DISPLAY": ""}
        known["PYTHON_KEYRING_BACKEND"] = "keyring.backends.null.Keyring"  # not that of whoever runs the tests
        nowhere = dict.fromkeys(("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "WAYLAND_DISPLAY"), "")
        return environment({**known, **nowhere, **self.env})

    @asynccontextmanager
    async def begun(self, *arguments: str) -> AsyncIterator[Command]:
        """A command that runs; what still runs at the end is killed."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "callgate", *arguments, cwd=self.home, env=self.environment(),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            yield Command(process)
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()

    async def run(self, *arguments: str) -> Done:
        async with self.begun(*arguments) as command:
            return await command.ended()


class Command:
    """``said`` is what it wrote to stderr so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""

    async def says(self, pattern: str) -> re.Match[str]:
        """Wait until it has written something like this to stderr."""
        assert self.process.stderr is not None
        async with asyncio.timeout(DEADLINE):
            while (found := re.search(pattern, self.said)) is None:
                line = await self.process.stderr.readline()
                assert line, self.said
                self.said += line.decode()
        return found

    async def ended(self) -> Done:
        async with asyncio.timeout(DEADLINE):
            out, rest = await self.process.communicate()
        assert self.process.returncode is not None
        return Done(self.process.returncode, out.decode(), self.said + rest.decode())


def mode(path: Path) -> int:
    return os.stat(path).st_mode & 0o777  # noqa: PTH116

"""One child process: its start, its lines, its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from callgate.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable

from .serverlog import ServerLog

# What a program needs to find itself and its user's files; no variable that may hold a secret.
_NAMES = """
PATH HOME USER LOGNAME SHELL TERM LANG LC_ALL LC_CTYPE TZ TMPDIR TMP TEMP XDG_CACHE_HOME XDG_CONFIG_HOME XDG_DATA_HOME
APPDATA LOCALAPPDATA PROGRAMDATA PROGRAMFILES USERPROFILE USERNAME HOMEDRIVE HOMEPATH SYSTEMDRIVE SYSTEMROOT WINDIR
PATHEXT COMSPEC PROCESSOR_ARCHITECTURE
"""
SAFE = frozenset(_NAMES.split())
PATIENCE = 2.0  # seconds between closing stdin, SIGTERM and SIGKILL (STDIO-4)
LAST_WORDS = "; its last words: "
LAST_OUTPUT = 0.5  # seconds in which an ended process's pipes may still deliver


class Program(msgspec.Struct, frozen=True):
    """What to start. ``base`` is the folder of the configuration; ``max_line`` bounds a line of stdout in bytes."""

    command: str
    args: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str | None
    base: Path
    max_line: int

    def __repr__(self) -> str:
        return f"Program({self.command!r})"  # the environment may hold secrets


class Child(asyncio.SubprocessProtocol):
    """A running program. ``on_line`` gets each line of stdout without its end; ``on_exit`` once, with a sentence
    that says how the program ended and its last words.
    """

    def __init__(
        self, max_line: int, log: ServerLog, on_line: Callable[[bytes], None], on_exit: Callable[[str], None]
    ) -> None:
        self._max_line = max_line
        self._log = log
        self._on_line = on_line
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.SubprocessTransport | None = None
        self._stdin: asyncio.WriteTransport | None = None
        self._partial: list[bytes] = []
        self._held = 0
        self._reason = ""
        self._over = asyncio.Event()
        self._writable: asyncio.Future[None] | None = None
        self.pid = 0

    @classmethod
    async def start(
        cls, program: Program, log: ServerLog, on_line: Callable[[bytes], None], on_exit: Callable[[str], None]
    ) -> Child:
        """Start the program without a shell, as the head of its own process group."""
        env = {name: value for name, value in os.environ.items() if name.upper() in SAFE} | dict(program.env)
        command, cwd = await asyncio.to_thread(_find, program, env)
        apart: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        child = cls(program.max_line, log, on_line, on_exit)
        starting = asyncio.ensure_future(
            asyncio.get_running_loop().subprocess_exec(lambda: child, command, *program.args, env=env, cwd=cwd, **apart)
        )
        try:
            await asyncio.shield(starting)
        except (OSError, ValueError) as error:
            raise UpstreamUnavailable(f"could not be started: {error}") from None
        except asyncio.CancelledError:
            await child._disown(starting)
            raise
        return child

    async def _disown(self, starting: asyncio.Future[Any]) -> None:
        """Nobody waits for the program any more; it may run already, and must not run without an owner."""
        await asyncio.wait({starting}, timeout=PATIENCE)
        self.kill("was not wanted any more")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._over.wait()

    # Writing.

    @property
    def open(self) -> bool:
        return not self._over.is_set() and self._stdin is not None and not self._stdin.is_closing()

    @property
    def congested(self) -> bool:
        """The program is not reading: only ``drained`` may write more."""
        return self._writable is not None

    def write(self, line: bytes) -> None:
        if self._stdin is not None and self.open:
            self._stdin.write(line)

    async def drained(self, deadline: float) -> None:
        """Wait until the program reads again."""
        try:
            async with asyncio.timeout_at(deadline):
                while self._writable is not None:
                    await asyncio.shield(self._writable)
        except TimeoutError:
            raise UpstreamTimeout("did not read its input in time") from None
        if not self.open:
            raise UpstreamError(self._reason or "has closed its input")

    # Ending.

    async def stop(self) -> None:
        """Close stdin, wait, SIGTERM, wait, SIGKILL; the whole process group each time."""
        if self._stdin is not None:
            self._stdin.close()
        for step in (None, signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
            if step is not None:
                self._signal(step)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await self._over.wait()
                    return

    def kill(self, reason: str) -> None:
        """End the program at once because it broke a rule."""
        self._reason = self._reason or reason
        self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))

    def _signal(self, number: int) -> None:
        if self._transport is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self.pid, number)
            else:
                self._transport.terminate()

    # asyncio.SubprocessProtocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)
        self.pid = self._transport.get_pid()
        self._stdin = cast(asyncio.WriteTransport, self._transport.get_pipe_transport(0))

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        waiting, self._writable = self._writable, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self._log.write(data)
            return
        if b"\n" not in data:
            self._hold(data)
            return
        lines = data.split(b"\n")
        if self._partial:
            self._partial.append(lines[0])
            lines[0] = b"".join(self._partial)
        self._partial, self._held = [], 0
        self._hold(lines.pop())
        for line in lines:
            if len(line) > self._max_line:
                self.kill(f"wrote a line longer than {self._max_line} bytes")
                return
            self._on_line(line)

    def _hold(self, data: bytes) -> None:
        if data and not self._reason:
            self._partial.append(data)
            self._held += len(data)
            if self._held > self._max_line:
                self._partial, self._held = [], 0
                self.kill(f"wrote a line longer than {self._max_line} bytes")

    def pipe_connection_lost(self, fd: int, error: Exception | None) -> None:
        if fd == 0:
            self.resume_writing()
        elif fd == 1 and self._transport is not None and self._transport.get_returncode() is None:
            # A server that closes stdout can answer nobody; give it the time to end by itself.
            self._loop.call_later(LAST_OUTPUT, self._mute)

    def _mute(self) -> None:
        if self._transport is not None and self._transport.get_returncode() is None:
            self.kill("closed its output")

    def process_exited(self) -> None:
        # What the program started and left behind has no owner any more, and may hold the pipes open.
        self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        self._loop.call_later(LAST_OUTPUT, self._end)

    def connection_lost(self, error: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        if self._over.is_set() or self._transport is None:
            return
        self._over.set()
        code = self._transport.get_returncode()
        self._transport.close()
        self.resume_writing()
        self._reason = self._reason or _ending(code, self._log.last)
        self._on_exit(self._reason)


def _find(program: Program, env: Mapping[str, str]) -> tuple[str, str]:
    """Absolute paths of the program and of its working directory."""
    folder = program.base / Path(program.cwd or "").expanduser()
    if not folder.is_dir():
        raise UpstreamUnavailable(f"could not be started: the folder `{folder}` does not exist")
    command = str(Path(program.command).expanduser())
    if os.sep in command or "/" in command:
        command = str(program.base / command)
    found = shutil.which(command, path=env.get("PATH"))
    if found is None:
        why = "is not executable" if Path(command).is_file() else "was not found"
        raise UpstreamUnavailable(f"could not be started: the command `{program.command}` {why}")
    return found, str(folder)


def _ending(code: int | None, last: list[str]) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}{_words(last)}"
    return f"exited with status {code}{_words(last)}"


def without_last_words(reason: str) -> str:
    """``reason`` without what a program wrote before it ended: that is for operators, and may hold secrets."""
    return reason.partition(LAST_WORDS)[0] + "." if LAST_WORDS in reason else reason


def _words(last: list[str]) -> str:
    words = " / ".join(line for line in last[-3:])
    return f"{LAST_WORDS}{words}" if words else ""

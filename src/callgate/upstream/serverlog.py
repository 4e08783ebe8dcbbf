"""What a server writes to stderr: into a file of its own, bounded, and never taken for an error (STDIO-8)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections import deque
from pathlib import Path

from .masking import Mask

ROTATE_AT = 1024 * 1024
KEPT_FILES = 3
MAX_LINE = 16 * 1024
GARBLED = 500
MAX_WAITING = 1024 * 1024


class ServerLog:
    """Lines of one server. Writing happens in a thread; when the disk is slower than the server, lines are
    dropped and counted. ``last`` holds the most recent lines. Secrets of the server are masked in all of them.
    """

    def __init__(self, folder: Path, server: str, mask: Mask | None = None) -> None:
        self.file = folder / (re.sub(r"[^A-Za-z0-9._-]", "_", server) + ".log")
        self._mask = mask or Mask()
        self._partial = b""
        self._waiting: list[bytes] = []
        self._size = 0
        self._dropped = 0
        self._flushing: asyncio.Task[None] | None = None
        self._last: deque[bytes] = deque(maxlen=20)

    @property
    def last(self) -> list[str]:
        lines = [*self._last, self._mask.line(self._partial)] if self._partial else list(self._last)
        return [line[:500].decode("utf-8", "replace").strip() for line in lines if line.strip()]

    def write(self, data: bytes) -> None:
        lines = (self._partial + data).split(b"\n")
        self._partial = lines.pop()
        if len(self._partial) > MAX_LINE:
            begun = len(self._partial) - self._mask.unfinished(self._partial)
            if begun:
                lines.append(self._partial[:begun])
                self._partial = self._partial[begun:]
        for line in lines:
            self.note(line)

    def note(self, line: bytes) -> None:
        """Add one line."""
        line = self._mask.line(line)[:MAX_LINE].rstrip(b"\r")
        self._last.append(line)
        if self._size + len(line) > MAX_WAITING:
            self._dropped += 1
            return
        self._size += len(line)
        self._waiting.append(line)
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())

    def garbled(self, line: bytes) -> None:
        """Add the beginning of a line of stdout that is no message. No part of a secret stays at the cut."""
        begun = line[:GARBLED]
        if len(line) > GARBLED:
            begun = begun[: len(begun) - self._mask.unfinished(begun)]
        self.note(b"[callgate: not JSON-RPC] " + begun)

    async def aclose(self) -> None:
        if self._partial:
            self.write(b"\n")
        if self._flushing is not None:
            await self._flushing

    async def _flush(self) -> None:
        try:
            while self._waiting:
                lines, self._waiting, self._size = self._waiting, [], 0
                if self._dropped:
                    lines.append(b"[callgate: %d lines dropped]" % self._dropped)
                    self._dropped = 0
                await asyncio.to_thread(self._append, b"\n".join(lines) + b"\n")
        finally:
            self._flushing = None

    def _append(self, content: bytes) -> None:
        with contextlib.suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            if self.file.exists() and self.file.stat().st_size + len(content) > ROTATE_AT:
                for number in range(KEPT_FILES - 1, 0, -1):
                    older = self.file.with_suffix(f".{number}.log")
                    if older.exists():
                        older.replace(self.file.with_suffix(f".{number + 1}.log"))
                self.file.replace(self.file.with_suffix(".1.log"))
            with open(self.file, "ab", opener=_private) as file:
                file.write(content)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)

"""Sessions that have ended, remembered as long as their sealed ids could be opened again, also over a restart."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import OrderedDict
from pathlib import Path

log = logging.getLogger("callgate.gateway")

#: So many are remembered, the newest.
MOST = 10_000


class Ended:
    """By nonce, because one ticket can be written as several ids. ``file`` holds one a line, with the time of issue;
    a full file is put aside as ``.old``, and replaces the one before.
    """

    def __init__(self, file: Path | None = None, ttl: float = float("inf")) -> None:
        self._file = file
        self._issued: OrderedDict[bytes, int] = OrderedDict()
        self._lines = 0
        if file is not None:
            self._old = file.with_name(file.name + ".old")
            oldest = time.time() - ttl
            self._read(self._old, oldest)
            self._lines = self._read(file, oldest)

    def __contains__(self, nonce: bytes) -> bool:
        return nonce in self._issued

    def add(self, nonce: bytes, issued: int) -> None:
        self._remember(nonce, issued)
        if self._file is None:
            return
        try:
            if self._lines >= MOST:
                self._file.replace(self._old)
                self._lines = 0
            with self._file.open("a", encoding="ascii") as file:
                file.write(f"{nonce.hex()} {issued}\n")
            self._lines += 1
        except OSError as why:
            log.warning("that a session has ended could not be written down: %s", why)

    def _remember(self, nonce: bytes, issued: int) -> None:
        self._issued[nonce] = issued
        if len(self._issued) > MOST:
            self._issued.popitem(last=False)

    def _read(self, file: Path, oldest: float) -> int:
        """Take over what an earlier process wrote, but what could not be opened any more; returns the lines of it."""
        try:
            lines = file.read_text("ascii", "replace").splitlines()
        except OSError:
            return 0
        for line in lines:
            nonce, _, issued = line.partition(" ")
            with contextlib.suppress(ValueError):  # a line that was cut off says nothing
                if int(issued) >= oldest:
                    self._remember(bytes.fromhex(nonce), int(issued))
        return len(lines)

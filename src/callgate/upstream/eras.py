"""Which era a server speaks, found out once for each configuration (rules ERA-1 to ERA-4)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from pathlib import Path

import msgspec

from callgate.config.model import Server
from callgate.types import Era

LEGACY_EXPIRES = 24 * 3600.0

# Only these codes prove a modern server; -32601 and -32600 come from servers of every age.
MODERN_ERRORS = frozenset({-32020, -32021, -32022})


class Verdict(msgspec.Struct, frozen=True):
    """``at`` is seconds since the epoch."""

    era: Era
    at: float


class Eras:
    """Remembered verdicts, in one small JSON file. A legacy verdict expires: a server that was upgraded still
    answers ``initialize``, so nothing else would ever tell.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, Verdict] | None = None
        self._busy = asyncio.Lock()

    async def recall(self, key: str) -> Era | None:
        verdict = (await self._verdicts()).get(key)
        if verdict is None or (verdict.era == "legacy" and time.time() - verdict.at > LEGACY_EXPIRES):
            return None
        return verdict.era

    async def remember(self, key: str, era: Era | None) -> None:
        """Keep a verdict; ``None`` forgets."""
        known = await self._verdicts()
        known.pop(key, None)
        if era is not None:
            known[key] = Verdict(era, time.time())
        async with self._busy:
            await asyncio.to_thread(self._save, msgspec.json.encode(known))

    async def _verdicts(self) -> dict[str, Verdict]:
        async with self._busy:
            if self._known is None:
                self._known = await asyncio.to_thread(self._load)
            return self._known

    def _load(self) -> dict[str, Verdict]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, Verdict])
        except (OSError, msgspec.MsgspecError):
            return {}

    def _save(self, content: bytes) -> None:
        # Losing this file costs a probe at the next start, nothing more.
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            draft = self._file.with_suffix(f".{os.getpid()}")
            draft.write_bytes(content)
            draft.replace(self._file)


def fingerprint(server: Server) -> str:
    """Names the part of a configuration that decides what is at the other end. References stay unresolved, so
    no secret is hashed.
    """
    seen = (server.command, server.args, sorted(server.env.items()), server.cwd, server.url)
    return hashlib.sha256(msgspec.json.encode(seen)).hexdigest()[:32]

"""Periods outlive the process: what was used is written to the database within a second, in a thread.

Processes that share a database add to the same rows and read them back with each write, so each knows of the others
what is older than a second. A crash loses what is younger.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time

from callgate.store import CountRow, SqliteCounts

from .counters import Period, ends, made
from .quotas import Quotas

log = logging.getLogger("callgate.quotas")

#: Seconds between two writes.
EVERY = 0.5
#: Writes between two times that what is over is deleted.
CLEANED = 600


class Keeper:
    """Writes the periods of ``quotas`` behind them."""

    def __init__(self, quotas: Quotas, counts: SqliteCounts) -> None:
        self._quotas = quotas
        self._counts = counts
        self._task: asyncio.Task[None] | None = None
        self._troubled = False
        self._written = 0

    async def open(self) -> None:
        """Read back what was used before the start."""
        await self.read_back()
        self._task = asyncio.create_task(self._run(), name="quota counts")

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self.write()

    async def read_back(self) -> None:
        """Know what is written down of all periods that have not ended, also of quotas that came with a reload."""
        if not any(limit.measure in ("calls", "tokens", "cost") for limit in self._quotas.rules.limits):
            return
        try:
            rows = await asyncio.to_thread(self._counts.load, time.time())
        except sqlite3.Error as why:  # what this process knows still counts
            log.warning("what was used of quotas cannot be read back: %s", why)
            return
        for row in rows:
            table = self._quotas.tables.get(row.name)
            if table is None:
                continue
            counter = table.known(row.key)
            if counter is None:
                counter = made(table.limit, row.key)
                table.put(counter)
            if isinstance(counter, Period):
                counter.learn(row.slot, row.used)

    async def write(self) -> None:
        """Write what is new, and learn what others have written there."""
        fresh: list[tuple[Period, CountRow]] = []
        for limit, counter in self._quotas.periods():
            for slot, used in counter.fresh.items():
                fresh.append((counter, CountRow(limit.name, counter.key, slot, used, ends(limit, slot))))
            counter.fresh = {}
        if not fresh:
            return
        try:
            totals = await asyncio.shield(asyncio.to_thread(self._counts.add, [row for _, row in fresh]))
        except Exception as why:
            for counter, row in fresh:
                counter.fresh[row.slot] = counter.fresh.get(row.slot, 0.0) + row.used
            if not self._troubled:
                log.warning("what was used of quotas cannot be written down: %s", why)
            self._troubled = True
            return
        self._troubled = False
        for (counter, row), total in zip(fresh, totals, strict=True):
            if row.slot in counter.slots:
                counter.learn(row.slot, total)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            await self.write()
            self._quotas.legs.sweep(time.monotonic())
            self._written += 1
            if self._written % CLEANED == 0:
                await asyncio.to_thread(self._counts.sweep, time.time())

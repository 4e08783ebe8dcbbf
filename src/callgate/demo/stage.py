"""The performance: everything is set up, the agents play, the audit log is shown, everything is taken down."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from callgate.api import admin_app
from callgate.audit import Filters
from callgate.demo.board import Board, BoardLog
from callgate.demo.clients import Client, LegacyClient, ModernClient
from callgate.demo.folder import Folder, ports, temporary
from callgate.demo.rows import Row, filtered, from_record
from callgate.demo.script import Witness, play
from callgate.demo.servers.http import serving
from callgate.demo.servers.mailer import Mailer
from callgate.demo.servers.shop import Shop
from callgate.demo.words import introduce, invite, sum_up
from callgate.egress import HttpPool
from callgate.errors import UsageError
from callgate.gateway import Gateway, event_loop

STAY = "CALLGATE_DEMO_STAY"
#: Seconds between two steps: for somebody who watches, and for nobody.
PACE, BRISK = 0.75, 0.02
TICK = 0.1


def perform(flags: Mapping[str, Any]) -> int:
    """Run the demo; ``flags`` are ``host``, ``port`` and ``admin_port`` of `callgate up`."""
    stay()  # a wrong value is told before anything starts
    board = Board()
    _hear(board)
    with temporary() as folder, asyncio.Runner(loop_factory=event_loop()) as runner:
        status = runner.run(_perform(board, folder, ports(flags)))
    board.say("The demo has ended and its folder is removed.", "dim")
    return status


async def _perform(board: Board, folder: Folder, flags: Mapping[str, Any]) -> int:
    pace = PACE if board.terminal else BRISK
    async with AsyncExitStack() as stack:
        shop = await stack.enter_async_context(serving(Shop(pace * 1.5).offer(), folder.credential))
        mailer = await stack.enter_async_context(serving(Mailer().offer(), folder.credential))
        await asyncio.to_thread(folder.write, shop, mailer)
        gateway = Gateway(folder.load(flags), lambda: folder.load(flags), admin_app)
        stack.push_async_callback(gateway.aclose)
        await gateway.open()
        await gateway.house.warmed(gateway.house.settings.startup_wait)
        introduce(board, gateway, folder)
        with board:
            await Performance(board, gateway, folder, pace).run()
    return 0


class Performance:
    """The story while it is played, and the time after it."""

    def __init__(self, board: Board, gateway: Gateway, folder: Folder, pace: float) -> None:
        self._board = board
        self._gateway = gateway
        self._folder = folder
        self._pace = pace
        self._last = 0  # id of the last record shown
        self._denied = ""
        self._lists: list[Row] = []
        self._reading = asyncio.Lock()

    async def run(self) -> None:
        stopped = asyncio.create_task(self._gateway.serve(), name="stopped")
        story = asyncio.create_task(self._play(), name="story")
        shown = asyncio.create_task(self._show(), name="shown")
        tasks = {stopped, story, shown}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if story in done:
                story.result()
                # From here on it is the user's gateway: without ``STAY`` until it is stopped.
                done, _ = await asyncio.wait({stopped, shown}, timeout=stay(), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _play(self) -> None:
        pool, url, keys = HttpPool(proxy=""), self._gateway.url, self._folder.keys
        cast: dict[str, Client] = {
            "support": ModernClient(pool, url, keys["support"]),
            "analyst": LegacyClient(pool, url, keys["analyst"]),
            "stranger": ModernClient(pool, url, "cg_demo_not_a_key"),
        }
        begun = time.monotonic()
        try:
            await play(cast, Witness(self._listed, self._board.progress), self._pace)
        finally:
            await pool.aclose()
        took = time.monotonic() - begun
        while self._gateway.house.journal.waiting:
            await asyncio.sleep(TICK / 10)
        await self._catch_up()
        sum_up(self._board, took)
        invite(self._board, self._gateway, self._folder, self._denied)
        seconds = stay()
        if seconds != 0:
            end = "Ctrl-C ends the demo" if seconds is None else f"the demo ends in {seconds:g} s"
            self._board.say(f"Your calls appear here; {end}.", "bold")
            self._board.say()
            self._board.status = f"waiting for your calls · {end}"

    def _listed(self, who: str, shown: int, took: float) -> None:
        """Lists are no calls and leave no record; what the agent was shown is told by its client."""
        total = self._gateway.house.catalog.tool_count
        self._lists.append(filtered(who, shown, total, time.time() - took, took))

    async def _show(self) -> None:
        """Show the audit log as it grows, as `callgate logs -f` does. Ends by being cancelled."""
        while True:
            await self._catch_up()
            self._board.refresh()
            await asyncio.sleep(TICK)

    async def _catch_up(self) -> None:
        find = self._gateway.house.audit.find
        async with self._reading:
            rows, self._lists = self._lists, []
            for record in await asyncio.to_thread(find, Filters(after_id=self._last)):
                self._last = record.id
                rows.append(from_record(record))
        for row in sorted(rows, key=lambda row: row.when):
            self._board.row(row)
            if row.verdict == "denied":
                self._denied = row.id


def stay() -> float | None:
    """How many seconds the demo stays for the user's own calls after its script; ``None`` for as long as it is let."""
    said = os.environ.get(STAY, "")
    try:
        return max(float(said), 0.0) if said else None
    except ValueError:
        raise UsageError(f"{STAY} is {said!r}, which is not a number of seconds.") from None


def _hear(board: Board) -> None:
    logging.basicConfig(level="WARNING", handlers=[BoardLog(board)])
    logging.getLogger("callgate").setLevel("INFO")

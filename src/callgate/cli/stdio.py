"""`callgate stdio`: the gateway for one client over stdin and stdout."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from callgate.catalog import EVERYTHING, virtual_door
from callgate.cli.up import start_log
from callgate.config import Loaded, load
from callgate.errors import NotFound, nearest
from callgate.gateway import House, PagesOnly, StdioFront, event_loop


def stdio(
    *, config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None, virtual_server: str | None = None
) -> int:
    """Serve one MCP client over stdin and stdout, with the same policy and audit as over HTTP.

    Parameters
    ----------
    config
        callgate.yaml, or the mcp.json of an AI client.
    virtual_server
        Serve this virtual server instead of everything.
    """
    loaded = load(config)
    known = loaded.settings.virtual_servers
    if virtual_server is not None and virtual_server not in known:
        close = nearest(virtual_server, known)
        hint = f"Did you mean `{close}`?" if close else ""
        raise NotFound(f"There is no virtual server `{virtual_server}`.", hint=hint)
    start_log(loaded.settings.log_level)
    door = EVERYTHING if virtual_server is None else virtual_door(virtual_server)
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        runner.run(_serve(loaded, door))
    return 0


async def _serve(loaded: Loaded, door: str) -> None:
    house = House(loaded)
    pages = PagesOnly(house) if PagesOnly.wanted(loaded.settings) else None
    if pages is not None:
        await pages.open()
    await house.open()
    work = asyncio.create_task(_talk(house, door), name="stdio")
    try:
        # A client that finds us slow to end sends SIGTERM: that ends the talk, never the end of the child processes.
        for name in ("SIGTERM", "SIGHUP"):
            with contextlib.suppress(AttributeError, NotImplementedError):  # not on every system
                asyncio.get_running_loop().add_signal_handler(getattr(signal, name), work.cancel)
        await asyncio.wait({work})  # no deadline: it lasts as long as the client
    finally:
        work.cancel()
        await asyncio.wait({work})
        if pages is not None:
            await pages.aclose()
        await house.aclose()
    if not work.cancelled():
        work.result()


async def _talk(house: House, door: str) -> None:
    token = os.environ.get("CALLGATE_TOKEN")
    who = await house.recogniser.recognise(b"Bearer " + token.encode() if token else None)
    # A reader of our own: Python aborts at its end when a thread still reads from its `sys.stdin`.
    stdin = open(sys.stdin.fileno(), "rb", closefd=False)  # noqa: ASYNC230, SIM115
    await StdioFront(house, who, door, (stdin, sys.stdout.buffer)).serve()

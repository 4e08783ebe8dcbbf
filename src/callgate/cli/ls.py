"""`callgate ls`: the servers of a running gateway, or the tools of one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from callgate.cli.options import HERE, Output, Where
from callgate.cli.output import Column, emit, field
from callgate.cli.remote import Remote

SERVERS = (
    Column("SERVER", field("name"), keep=True),
    Column("STATE", field("state"), keep=True),
    Column("TOOLS", field("tools"), right=True),
    Column("TRANSPORT", field("transport")),
    Column("ERA", field("era")),
    Column("IN FLIGHT", field("in_flight"), right=True),
    Column("RESTARTS", field("restarts"), right=True),
    Column("REASON", field("reason")),
)


def _claims(tool: Mapping[str, Any]) -> str:
    """What the server claims of the tool."""
    if tool["readOnly"]:
        return "read-only"
    return "destructive" if tool["destructive"] else "additive"


TOOLS = (
    Column("TOOL", field("name"), keep=True),
    Column("CLAIMS", _claims, keep=True),
    Column("DESCRIPTION", lambda tool: " ".join(str(tool["description"]).split())[:160]),
)


def ls(server: str | None = None, /, *, output: Output = None, where: Where = HERE) -> int:
    """List the servers and their state; with a server, its tools.

    Parameters
    ----------
    server
        List the tools of this server.
    """
    asyncio.run(_ls(server, output, where))
    return 0


async def _ls(server: str | None, output: Output, where: Where) -> None:
    async with Remote(where) as gateway:
        if server is None:
            emit((await gateway.admin("servers"))["servers"], SERVERS, output)
        else:
            emit((await gateway.admin("tools", {"server": server}))["tools"], TOOLS, output)

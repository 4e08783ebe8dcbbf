"""`callgate ls`: the servers of a running gateway, or the tools of one of them."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Mapping
from typing import Any

from callgate.cli.options import HERE, Output, Where
from callgate.cli.output import Column, emit, field, say
from callgate.cli.remote import Remote

#: Characters of a description in the table; `-o json` has all of it.
DESCRIPTION = 120

SERVERS = (
    Column("SERVER", field("name"), keep=True),
    Column("STATE", field("state"), keep=True),
    Column("TOOLS", field("tools"), right=True),
    Column("VIA", field("transport"), keep=True),
    Column("ERA", field("era"), keep=True),
    Column("BUSY", field("in_flight"), right=True),
    Column("RESTARTS", field("restarts"), right=True),
    Column("HELD BACK", field("quarantined"), right=True),
    Column("REASON", field("reason")),
)


def _claims(tool: Mapping[str, Any]) -> str:
    """What the server claims of the tool."""
    if tool["readOnly"]:
        return "read-only"
    return "destructive" if tool["destructive"] else "additive"


def _description(tool: Mapping[str, Any]) -> str:
    """The first words of what is often a page."""
    return textwrap.shorten(str(tool["description"]), DESCRIPTION, placeholder=" …")


TOOLS = (
    Column("TOOL", field("name"), keep=True),
    Column("CLAIMS", _claims, keep=True),
    Column("DESCRIPTION", _description),
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
            servers = (await gateway.admin("servers"))["servers"]
            emit(servers, SERVERS, output)
            if any(each["quarantined"] for each in servers):
                say("What the guard holds back: `callgate catalog pending`.")
        else:
            tools = (await gateway.admin("tools", {"server": server}))["tools"]
            emit(tools, TOOLS, output)
            if not tools:
                say(await _why_none(gateway, server))


async def _why_none(gateway: Remote, server: str) -> str:
    for each in (await gateway.admin("servers"))["servers"]:
        if each["name"] == server and each["state"] != "ready":
            state = "has failed" if each["state"] == "failed" else f"is {each['state']}"
            return f"Server `{server}` {state}" + (f": {each['reason']}" if each["reason"] else ".")
    return f"Server `{server}` has no tools."

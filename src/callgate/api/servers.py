"""What exists, as one reader may see it: the gateway itself, its servers, their tools."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from callgate import __version__
from callgate.api.reader import Reader
from callgate.api.shapes import Servers, ServerShown, Status, Tools, ToolShown, Urls
from callgate.catalog import EVERYTHING, View, server_door
from callgate.errors import NotFound, UsageError, nearest
from callgate.types import Front, ServerStatus, Tool

if TYPE_CHECKING:
    from callgate.gateway import House


def status(house: House, reader: Reader, urls: Urls, started: float) -> Status:
    """How the gateway is doing; ``started`` is ``time.monotonic()`` of its start."""
    journal = house.journal
    problems = {"configuration": house.trouble, "audit": journal.error} if reader.everything else {}
    return Status(
        version=__version__,
        uptime=round(time.monotonic() - started, 3),
        urls=urls,
        ready=not (house.strict and (journal.full or journal.error)),
        policy=house.policy.version,
        tools=len(_visible(house, reader, house.view(EVERYTHING))),
        problems={name: text for name, text in problems.items() if text},
        reader=reader.who.subject,
        reads_everything=reader.everything,
    )


def servers(house: House, reader: Reader) -> Servers:
    """The servers; for a reader of its own things those with at least one visible tool, without their insides."""
    shown = []
    for each in house.statuses():
        view = house.catalog.view(server_door(each.name))
        count = len(_visible(house, reader, view)) if view is not None else 0
        if reader.everything or count:
            shown.append(_server(each, count, house.guard.held_of(each.name), reader))
    return Servers(shown)


def _server(each: ServerStatus, tools: int, quarantined: int, reader: Reader) -> ServerShown:
    inside = reader.everything  # why a server fails, and its processes, are nobody else's business
    return ServerShown(
        name=each.name, state=each.state, transport=each.transport, reason=each.reason if inside else "",
        era=each.era, version=each.version, tools=tools, pids=each.pids if inside else (),
        restarts=each.restarts if inside else 0, in_flight=each.in_flight if inside else 0,
        quarantined=quarantined if inside else 0,
    )  # fmt: skip


def tools(house: House, reader: Reader, query: Mapping[str, str]) -> Tools:
    """The tools of a door (``""``, ``virtual:NAME``, ``server:NAME``; default: everything), or of one server."""
    if unknown := sorted(set(query) - {"server", "door"}):
        raise UsageError(f"There is no filter {unknown[0]!r}.", hint="Filters: server, door.")
    view = _door(house, query.get("door", EVERYTHING))
    found = _visible(house, reader, view)
    if server := query.get("server"):
        if server not in house.settings.servers or (not reader.everything and all(t.server != server for t in found)):
            raise _no_server(house, reader, server)
        found = [tool for tool in found if tool.server == server]
    return Tools([_tool(tool, view) for tool in found])


def _door(house: House, door: str) -> View:
    view = house.catalog.view(door)
    if view is None:
        close = nearest(door, list(house.catalog.views))
        raise NotFound(f"There is no door {door[:128]!r}.", hint=f"Did you mean `{close}`?" if close else "")
    return view


def _no_server(house: House, reader: Reader, server: str) -> NotFound:
    """The nearest name comes from what the reader may see."""
    close = nearest(server, [each.name for each in servers(house, reader).servers])
    return NotFound(f"There is no server `{server[:128]}`.", hint=f"Did you mean `{close}`?" if close else "")


def _visible(house: House, reader: Reader, view: View) -> list[Tool]:
    if reader.everything:
        return list(view.tools)
    return house.policy.visible(reader.who, view.tools, Front(door=view.door))


def _tool(tool: Tool, view: View) -> ToolShown:
    return ToolShown(
        name=tool.native, server=tool.server, tool=tool.name, exposed=view.by_native[tool.native],
        description=tool.description, read_only=tool.read_only, destructive=tool.destructive,
        operation=tool.operation,
    )  # fmt: skip

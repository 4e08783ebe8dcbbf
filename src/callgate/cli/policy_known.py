"""Whom and what the commands about changes of a policy know: from a running gateway, or from its files."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from callgate.cli.options import HERE, Where
from callgate.types import Principal, Tool

#: Records of one page, and of all pages together.
PAGE, MOST = 10_000, 200_000


class Known(msgspec.Struct, frozen=True):
    """Tools by native name, callers that the configuration names, virtual servers, recorded calls (newest first).
    ``cut``: there are more records than were read.
    """

    tools: dict[str, Tool]
    callers: list[Principal]
    doors: list[str]
    records: list[dict[str, Any]]
    cut: bool = False


def known(config: Path | None, where: Where, since: str | None) -> Known:
    """From the running gateway with ``--url`` or CALLGATE_URL, else from the configuration and its data folder.

    ``since`` ``None``: no records are wanted.
    """
    if config is None and (where.url != HERE.url or os.environ.get("CALLGATE_URL")):
        return asyncio.run(_asked(where, since))
    return _read(config, since)


async def _asked(where: Where, since: str | None) -> Known:
    from callgate.cli.remote import Remote

    async with Remote(where) as gateway:
        listed = (await gateway.admin("tools"))["tools"]
        records: list[dict[str, Any]] = []
        before = ""
        while since is not None and len(records) < MOST:
            page = await gateway.admin("calls", {"since": since, "limit": PAGE, "before_id": before})
            records += page["calls"]
            before = page["next"]
            if not before:
                break
    return Known({tool.native: tool for tool in map(_tool, listed)}, [], [], records, bool(before))


def _tool(shown: dict[str, Any]) -> Tool:
    return Tool(
        shown["server"], shown["tool"], shown["exposed"], b"{}", description=shown["description"],
        read_only=shown["readOnly"], destructive=shown["destructive"], operation=shown["operation"],
    )  # fmt: skip


def _read(config: Path | None, since: str | None) -> Known:
    from callgate.config import load
    from callgate.store import DATABASE, Listings, SqliteAudit, open_database

    loaded = load(config)
    settings = loaded.settings
    callers = [
        *(Principal(key.subject, key.subject, roles=key.roles, groups=key.groups) for key in settings.identity.keys),
        *(
            Principal(f"agent:{name}", f"agent:{name}", roles=agent.roles)
            for name, agent in settings.identity.agents.items()
        ),
    ]
    doors = [f"virtual:{name}" for name in settings.virtual_servers]
    if not (loaded.data_dir / DATABASE).exists():
        return Known({}, callers, doors, [])
    database = open_database(loaded.data_dir)
    tools = {tool.native: tool for tool in _listed(settings, Listings(database))}
    records = list(_records(SqliteAudit(database), since)) if since is not None else []
    return Known(tools, callers, doors, records[:MOST], len(records) > MOST)


def _listed(settings: Any, listings: Any) -> Iterator[Tool]:
    """What the servers of the configuration offered when they were last listed."""
    from callgate.catalog import Classes, believed, entries

    for each in listings.load_all():
        server = settings.servers.get(each.listing.server)
        if server is not None and not server.disabled:
            yield from entries(each.listing, Classes(server, believed=believed(settings)))


def _records(audit: Any, since: str) -> Iterator[dict[str, Any]]:
    from callgate.audit import describe, read_filters

    filters = read_filters({"since": since, "limit": str(PAGE)})
    read = 0
    while read <= MOST:
        rows = audit.find(filters)
        for row in rows:
            yield describe(row)
        read += len(rows)
        if len(rows) < PAGE:
            return
        filters = msgspec.structs.replace(filters, before_id=rows[-1].id)

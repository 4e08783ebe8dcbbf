"""What the guard holds back, and an operator's word on it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from callgate.api.reader import Reader
from callgate.api.shapes import (
    CatalogDecided,
    CatalogDecision,
    CatalogDiff,
    CatalogPending,
    DefinitionShown,
    DifferenceShown,
    FindingShown,
)
from callgate.audit import Record, new_id
from callgate.errors import NotFound, Overloaded, UsageError, nearest
from callgate.types import Front

if TYPE_CHECKING:
    from callgate.gateway import House


def pending(house: House, reader: Reader, query: Mapping[str, str]) -> CatalogPending:
    """What waits for a decision, and all findings; for readers of everything."""
    reader.only_if_everything()
    only = _only(query, "server").get("server", "")
    shown = [
        DefinitionShown(
            name=f"{row.server}/{row.name}",
            server=row.server,
            digest=row.digest,
            change=house.guard.pins.approved(row.server, row.name) is not None,
            held=why,
            first_seen=_time(row.seen_at),
            findings=[FindingShown(**each) for each in findings],
        )
        for row, why, findings in house.guard.waiting()
        if not only or row.server == only
    ]
    found = {
        native: [FindingShown(**each) for each in findings]
        for native, findings in house.guard.found().items()
        if not only or native.startswith(f"{only}/")
    }
    return CatalogPending(shown, found)


def diff(house: House, reader: Reader, query: Mapping[str, str]) -> CatalogDiff:
    """How a definition differs from the approved one."""
    reader.only_if_everything()
    asked = _only(query, "name", "digest")
    server, name = _named(asked.get("name", ""), house)
    row, approved, found = house.guard.difference(server, name, asked.get("digest", ""))
    return CatalogDiff(
        name=f"{server}/{name}",
        digest=row.digest,
        state=row.state,
        approved=approved.digest if approved is not None else "",
        approved_by=approved.decided_by if approved is not None else "",
        differences=[DifferenceShown(each.path, each.kind, each.before, each.after) for each in found],
    )


async def decide(house: House, reader: Reader, asked: CatalogDecision, *, approve: bool) -> CatalogDecided:
    """Approve or reject what waits. Recorded before it counts where the log is strict."""
    reader.only_if_admin()
    if house.strict and house.journal.full:
        raise Overloaded("The audit log cannot take more records.", hint="See `problems` of the status.")
    server, names = _chosen(asked, house)
    rows = await asyncio.to_thread(
        house.guard.decide, server, names, reader.who.subject, approve=approve, also=asked.also
    )
    house.catalog.screened_anew([server])
    await house.catalog.idle()
    house.overlays.swapped()
    method = f"catalog/{'approve' if approve else 'reject'}"
    for row in rows:
        told: dict[str, Any] = {"digest": row.digest} | ({"why": asked.reason} if asked.reason else {})
        entry = Record(new_id(), reader.who, Front(), method, server, row.name[:256], told, "ok")
        if house.strict:
            await house.journal.put_durable(entry)
        else:
            house.journal.put(entry)
    return CatalogDecided([f"{server}/{row.name}" for row in rows])


def _chosen(asked: CatalogDecision, house: House) -> tuple[str, dict[str, str]]:
    """The server and the names with the digests that were named."""
    if "/" in asked.name:
        if asked.all:
            raise UsageError("`all` is for a whole server.", hint=f"Name the server: {asked.name.partition('/')[0]!r}.")
        server, name = _named(asked.name, house)
        return server, {name: asked.digest}
    if not asked.all:
        raise UsageError("A whole server is named.", hint="Say `all`, or name one entry: SERVER/TOOL.")
    _known(asked.name, house)
    rows = [row for row, _, _ in house.guard.waiting() if row.server == asked.name]
    if not rows:
        raise NotFound(f"Nothing of server `{asked.name}` waits.", hint="`callgate catalog pending` lists what waits.")
    newest = {row.name: row.digest for row in rows}
    held = house.guard.screen.held.get(asked.name, {})
    shown = {name: held[name].digest for name in newest.keys() & held.keys() if held[name].digest}
    return asked.name, newest | shown


def _named(text: str, house: House) -> tuple[str, str]:
    server, slash, name = text.partition("/")
    if not slash or not name:
        raise UsageError(f"`{text[:80]}` names no entry.", hint="Write SERVER/TOOL, or SERVER/prompt:NAME.")
    _known(server, house)
    return server, name


def _known(server: str, house: House) -> None:
    if server not in house.settings.servers:
        close = nearest(server, house.settings.servers)
        raise NotFound(f"There is no server {server[:64]!r}.", hint=f"Did you mean `{close}`?" if close else "")


def _only(query: Mapping[str, str], *names: str) -> Mapping[str, str]:
    for name in query:
        if name not in names:
            raise UsageError(f"There is no parameter {name[:40]!r}.", hint=f"Parameters: {', '.join(names)}.")
    return query


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""What the policy would say of a call that nobody has made."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Literal

from callgate.api.reader import Reader
from callgate.api.shapes import Explained, ExplainQuestion
from callgate.audit import new_id
from callgate.catalog import server_door
from callgate.errors import NotFound, UsageError, nearest
from callgate.policy import render_explanation
from callgate.types import METHOD, Call, Front, Principal, Tool

if TYPE_CHECKING:
    from callgate.gateway import House


async def explain(house: House, reader: Reader, question: ExplainQuestion) -> Explained:
    """Explain one imagined call; for readers of everything only, because it shows the rules."""
    reader.only_if_everything()
    tool, known = find_tool(house, question.call)
    if tool.server not in house.settings.servers:
        near = nearest(tool.server, house.settings.servers)
        hint = f"Did you mean `{near}/{tool.name}`?" if near else "`callgate ls` lists the servers."
        raise NotFound(f"There is no server `{tool.server}`.", hint=hint)
    call = Call(new_id(), _caller(reader, question), tool, question.args, Front(), 0)
    explanation = await asyncio.to_thread(house.policy.explain, call)
    return Explained(explanation, render_explanation(explanation), known)


def find_tool(house: House, native: str) -> tuple[Tool, bool]:
    """The tool, prompt or resource of that name (``server/tool``, ``server/prompt:NAME``, ``server/resource:URI``) and
    true, or one that claims nothing of itself and false.
    """
    server, slash, name = native.partition("/")
    if not slash or not server or not name:
        raise UsageError(f"`{native[:128]}` is not of the form `server/tool`.")
    view = house.catalog.view(server_door(server))
    found = None
    if view is not None:
        with contextlib.suppress(NotFound):  # a URI that can be read in two ways
            found = view.names.get(name) or view.completable(name)
    if found is not None:
        return found, True
    return Tool(server, name, native, b"{}"), name.startswith(METHOD)


def _caller(reader: Reader, question: ExplainQuestion) -> Principal:
    asked = question.who
    if asked is None:
        return reader.who
    via: Literal["anonymous", "key", "jwt"] = "jwt" if asked.issuer else "key"
    if asked.subject == "anonymous" and not asked.issuer:
        via = "anonymous"
    return Principal(
        subject=asked.subject, key="", tenant=reader.who.tenant, issuer=asked.issuer, roles=asked.roles,
        groups=asked.groups, claims=asked.claims, via=via,
    )  # fmt: skip

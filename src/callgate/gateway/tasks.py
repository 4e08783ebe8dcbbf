"""``tasks/*``: every request about a task is judged and recorded like the call that made it.

Two eras know tasks, in two ways, and callgate speaks both to both sides (mcp-protocol, sections 11.2 and 14.3). An id
says where the task is (``task_ids.py``), its keeper what has become of it (``task_keepers.py``), and
``task_fronts.py`` how the client is told. How a call becomes a task: ``task_making.py``.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from callgate.audit import show_id
from callgate.catalog import TASKS
from callgate.errors import CallgateError, ProtocolError
from callgate.gateway import wire
from callgate.gateway.account import governed
from callgate.gateway.calling import asked_of
from callgate.gateway.inbound import Inbound, Reply, result
from callgate.gateway.ladder import MISSING_CAPABILITY
from callgate.gateway.listing import Listed
from callgate.gateway.pipeline import Asked
from callgate.gateway.replies import answered, no_method
from callgate.gateway.rewriting import shown
from callgate.gateway.task_fronts import check, older
from callgate.gateway.task_ids import Ticket
from callgate.gateway.task_making import SINCE, offers
from callgate.gateway.task_modern import declared
from callgate.gateway.task_store import Entry, Task
from callgate.policy import Lost
from callgate.types import Front

if TYPE_CHECKING:
    from callgate.gateway.house import House

#: Most tasks on one page of ``tasks/list``: each of them is asked about.
PAGE = 50


async def about(inbound: Inbound, front: Front, house: House) -> Reply:
    """``tasks/get``, ``tasks/result``, ``tasks/update`` and ``tasks/cancel``."""
    _check_declared(inbound, front)
    ticket = house.tasks.ids.read(inbound.params.get("taskId"), inbound.principal.key)
    if ticket is not None:
        await _awaited(ticket.server, house)
    check_known(inbound, front, house)
    check(inbound.method, inbound.params)
    asked = asked_about(inbound, front, house, ticket)
    asked.params = {name: inbound.params[name] for name in ("taskId", "inputResponses") if name in inbound.params}
    return answered(inbound.id, shown(await governed(asked, house), asked), front, show_id(asked.id))


async def list_(inbound: Inbound, front: Front, house: House) -> Reply:
    """``tasks/list``: the caller's own tasks, as far as this door shows their tools and policy lets the caller ask."""
    check_known(inbound, front, house)
    listed = Listed("tasks/list", house.view(inbound.door), inbound.principal, front)
    cursor = inbound.params.get("cursor")
    after = 0 if cursor is None else int(house.cursors.open(cursor, listed))
    mine = [each for each in house.tasks.of(inbound.principal.key) if each.number > after and _theirs(each, inbound)]
    page = mine[: min(PAGE, house.settings.list_page_size)]
    told = await asyncio.gather(*(_looked_at(each, inbound, front, house) for each in page))
    members: dict[str, Any] = {"tasks": [older(task) for task in told if task is not None]}
    if len(mine) > len(page):
        members["nextCursor"] = house.cursors.seal(str(page[-1].number), listed)
    return result(inbound, wire.encode(members))


async def _looked_at(entry: Entry, inbound: Inbound, front: Front, house: House) -> Task | None:
    """A task as it is now; as it was when its server cannot say; ``None`` where the caller may not know."""
    asked = asked_about(inbound, front, house, entry.ticket)
    if not asked.name:
        return None
    asked.method, asked.params = "tasks/get", {"taskId": entry.id}
    try:
        answer = await governed(asked, house)
    except CallgateError:
        return entry.seen if asked.verdict.effect == "allow" and "status" in entry.seen else None
    return entry.seen if answer.error is None else None


def asked_about(inbound: Inbound, front: Front, house: House, ticket: Ticket | None) -> Asked:
    """The governed request about a task: judged as its call was, by the tool's name at this door and its arguments.
    Where there is no such task the name is empty: the request is recorded, and answered that the task is unknown.
    """
    name, arguments = "", dict[str, Any]()
    if ticket is not None and house.tasks.fingerprint(ticket.server) == ticket.digest:
        name = house.view(inbound.door).by_native.get(ticket.native, "")
        arguments = wire.decode(ticket.arguments) if ticket.arguments else Lost()
    asked = asked_of(inbound, front, name, arguments)
    asked.method, asked.headers = inbound.method, None
    return asked


def _theirs(entry: Entry, inbound: Inbound) -> bool:
    """Callers that nobody knows are told apart by their sessions."""
    return inbound.principal.via != "anonymous" or entry.front.session == (inbound.session and inbound.session.id)


async def _awaited(server: str, house: House) -> None:
    """Wait for a server that is still starting: its tasks are not unknown."""
    if server in house.catalog.unlisted():
        await house.upstreams.settled(server, house.settings.servers[server].connect_timeout)
    await house.catalog.idle()


def _check_declared(inbound: Inbound, front: Front) -> None:
    if front.era == "modern" and not declared(front):
        needed: dict[str, Any] = {"requiredCapabilities": {"extensions": {TASKS: {}}}}
        raise ProtocolError(f"{inbound.method} needs the extension {TASKS}.", MISSING_CAPABILITY, data=needed)


def check_known(inbound: Inbound, front: Front, house: House) -> None:
    """Tasks exist at this door, and for this client (rules EXT-1, TASK-3)."""
    _check_declared(inbound, front)
    known = front.era == "modern" or front.version >= SINCE
    if not known or not any(offers(house, server) for server in house.view(inbound.door).servers):
        raise no_method(inbound.method, front.era)

"""News of tasks: what legacy servers say of them by themselves, and what listening clients of the modern era hear.

A stream that listens to a task is a governed request like every other; what it brings later is judged again each time.
callgate looks at the task as often as its server suggests, and at once when the server says that something happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from callgate.errors import CallgateError
from callgate.gateway import wire
from callgate.gateway.account import governed
from callgate.gateway.bus import unstamped
from callgate.gateway.guarding import bounded, check_still, fitting
from callgate.gateway.inbound import NOBODY, Inbound
from callgate.gateway.pipeline import Asked, call_of
from callgate.gateway.policies import treated
from callgate.gateway.rewriting import shown
from callgate.gateway.task_answers import told
from callgate.gateway.task_fronts import older
from callgate.gateway.task_keepers import over, pause, task_of, unrelated
from callgate.gateway.task_legacy import newer
from callgate.gateway.task_store import Entry, Task
from callgate.gateway.tasks import asked_about, check_known
from callgate.policy import settle
from callgate.types import Answer, News

if TYPE_CHECKING:
    from callgate.gateway.house import House
    from callgate.gateway.streams import Listening

STATUS = "notifications/tasks/status"
TASK = "notifications/tasks"
#: Tasks that one stream may listen to; more are not acknowledged.
MOST = 64
#: The shortest time (seconds) between two looks at a task for a stream.
LEAST = 0.25


def heard(news: News, house: House) -> None:
    """A legacy server says how a task is. The session that made it is told, if it may still know."""
    entry = house.tasks.meant(news)
    if entry is None or entry.ticket.kept != "legacy" or entry.cancelled:
        return
    params = unrelated(unstamped(news.params))
    try:
        task = entry.heard(task_of(newer(wire.encode(params)), entry.id, house.settings.limits.task_ttl))
    except msgspec.MsgspecError:
        return
    entry.stirred.set()
    session = house.sessions.get(entry.front.session or "")
    if session is not None and house.still_allowed(house.sessions.as_now(entry.call)):
        session.push(wire.notification(STATUS, older(task)))


async def listened(stream: Listening, ids: Sequence[str], inbound: Inbound, house: House) -> list[str]:
    """Begin to tell a stream of these tasks; returns the ids of those that it may hear about."""
    check_known(inbound, stream.front, house)
    begun = await asyncio.gather(*(_begun(stream, id, inbound, house) for id in ids[:MOST]))
    return [id for id, done in zip(ids, begun, strict=False) if done]


async def _begun(stream: Listening, id: str, inbound: Inbound, house: House) -> bool:
    """Whether this task exists for the caller, and policy lets it look."""
    async with stream.gate:
        try:
            ticket = house.tasks.ids.open(id, inbound.principal.key)
            asked = asked_about(inbound, stream.front, house, ticket)
            asked.method, asked.params, asked.conduct = "tasks/get", {"taskId": id}, NOBODY
            answer = await governed(asked, house)
        except CallgateError:
            return False
    if answer.error is None and asked.tool is not None:
        made = call_of(asked, asked.tool)
        house.tasks.watch(stream, _follow(stream, asked, answer, house.tasks.find(id, ticket, made), house))
    return answer.error is None


async def _follow(stream: Listening, asked: Asked, answer: Answer, entry: Entry, house: House) -> None:
    """Tell a stream whenever its task has changed, the first time if it is not simply at work, until it is over."""
    call, before = call_of(asked, asked.tool or entry.call.tool), ""
    while answer.error is None:
        task = task_of(shown(answer, asked).result, entry.id, house.settings.limits.task_ttl)
        now = _state(task)
        if now != before and (before or task["status"] != "working"):
            stream.hear(TASK, task)
        before = now
        if over(task):
            return
        await pause(entry, LEAST)
        permitted = settle(call, house.policy.decide(call))
        if house.guard.on:
            check_still(call, house)
        answer = await told(permitted, NOBODY, house)
        if house.guard.on:
            answer = fitting(answer, call, asked, house)
        if house.policy.treats:
            answer = await treated(answer, call, asked, house)
        if house.guard.on:
            answer = await bounded(answer, call, asked, house)


def _state(task: Task) -> str:
    """What makes a listener want to hear of a task again."""
    asked = msgspec.json.decode(task["inputRequests"]) if "inputRequests" in task else {}
    return f"{task['status']} {task.get('lastUpdatedAt')} {task.get('statusMessage')} {sorted(asked)}"

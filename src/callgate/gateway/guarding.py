"""The guard in the house: what it is told, what it leaves in the audit log, and whole results that are read later."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from callgate.audit import Record, new_id
from callgate.errors import NotFound, UpstreamError
from callgate.gateway import wire
from callgate.guard import ENDS, RESULTS, WITHHELD, Event, Guard, KeptResult, quarantined
from callgate.store import SqlitePins
from callgate.types import RESOURCE, Answer, Call, Front, Principal, Tool

if TYPE_CHECKING:
    from callgate.gateway.house import House
    from callgate.gateway.pipeline import Asked
    from callgate.guard import Outcome

log = logging.getLogger("callgate.gateway")

#: Who does what callgate does by itself.
ITSELF = Principal(subject="callgate", key="", via="operator")
#: Seconds between two looks at what other processes approved.
LOOK_EVERY = 1.0
#: Events of one server that are written in a minute; one more says that there were more.
MOST_EVENTS = 32
#: Findings of one stage that stand in a record.
MOST_FINDINGS = 8


class Events:
    """What the guard found, as audit records. A server that changes all the time fills no log."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._minute: dict[str, tuple[int, int]] = {}
        self.loop: asyncio.AbstractEventLoop | None = None

    def __call__(self, event: Event) -> None:
        """Take an event, from any thread."""
        loop = self.loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._record, event)

    def _record(self, event: Event) -> None:
        now = int(time.monotonic() // 60)
        minute, count = self._minute.get(event.server, (now, 0))
        count = count + 1 if minute == now else 1
        self._minute[event.server] = (now, count)
        if count > MOST_EVENTS + 1:
            return
        says = event.says if count <= MOST_EVENTS else "There were more changes in this minute than are written down."
        told = {"digest": event.digest} if event.digest else {}
        method = f"catalog/{event.what}"
        self._house.journal.put(
            Record(new_id(), ITSELF, Front(), method, event.server, event.name[:256], told, "refused", reason=says)
        )


def guard_of(house: House) -> Guard:
    """The guard of a house, not yet loaded."""
    rows = SqlitePins(house.database)
    return Guard(house.settings.guard, rows, house.loaded.data_dir, Events(house))


async def open_guard(house: House) -> None:
    """Before anything is listed."""
    if isinstance(house.guard.tell, Events):
        house.guard.tell.loop = asyncio.get_running_loop()
    await asyncio.to_thread(house.guard.load)


async def follow_pins(house: House, every: float = LOOK_EVERY) -> None:
    """Notice what other processes approved. Never ends; cancel the task."""
    while True:
        await asyncio.sleep(every)
        if not house.guard.remembers:
            continue
        try:
            moved = await asyncio.to_thread(house.guard.pins.moved)
        except Exception as why:  # the next look may succeed
            log.debug("the pins cannot be looked at: %s", why)
            continue
        if moved:
            house.catalog.screened_anew()


def before(call: Call, asked: Asked, house: House) -> Answer | None:
    """The answer to a call that must not leave; raises ``Denied`` where its tool is quarantined."""
    refused = house.guard.arguments(call) if asked.kept is None else None
    if refused is None:
        return None
    asked.guard = (*asked.guard, refused.finding.note())
    return refused.answer


def fitting(answer: Answer, call: Call, asked: Asked, house: House) -> Answer:
    """A server's answer, if it fits the tool's output schema; else what is said instead."""
    return _noted(house.guard.fitting(answer, call), asked) if asked.kept is None else answer


async def bounded(answer: Answer, call: Call, asked: Asked, house: House) -> Answer:
    """An answer within its bounds."""
    return _noted(await house.guard.bounded(answer, call), asked) if asked.kept is None else answer


def _noted(outcome: Outcome, asked: Asked) -> Answer:
    if outcome.findings:
        asked.guard = (*asked.guard, *(each.note() for each in outcome.findings[:MOST_FINDINGS]))
    error = outcome.answer.error
    if error is not None and error.code == WITHHELD and outcome.findings:
        raise UpstreamError(error.message, hint="It was withheld.", data={"kind": "withheld"})
    asked.linked = asked.linked or outcome.linked
    return outcome.answer


def check_still(call: Call, house: House) -> None:
    """Raise ``Denied`` for a call that has run for a while and whose tool was quarantined meanwhile."""
    if call.method in ENDS:
        return
    view = house.view_of(call.front, call.principal)
    name = call.tool.exposed if view.aggregate else call.tool.name
    now = view.names.get(view.by_native.get(call.tool.native, "")) or view.prompts.get(name.removeprefix("prompt:"))
    if now is not None and now.native == call.tool.native and now.withheld:
        raise quarantined(now)


def owned(asked: Asked, house: House) -> str:
    """The id of the kept result that is asked for, if it is one of this caller's."""
    if asked.method != "resources/read" or RESULTS not in asked.name:
        return ""
    uri = asked.name.removeprefix(RESOURCE)
    at = uri.find(RESULTS)
    if at and not uri[:at].endswith("+"):
        return ""
    return house.guard.kept.owns(uri[at:], asked.principal.key)


async def kept_tool(id: str, asked: Asked, house: House) -> Tool:
    """The tool whose result was kept: reading it is judged as its call was. Raises ``NotFound`` when it is gone."""
    kept = await asyncio.to_thread(house.guard.kept.find, id, asked.principal.key)
    if kept is None:
        raise NotFound("Unknown resource: the result is not kept any more.", hint="Make the call again.")
    asked.kept = kept
    asked.arguments = kept.arguments
    view = house.view_of(asked.front, asked.principal)
    if not view.aggregate and kept.server not in view.servers:
        raise NotFound("Unknown resource: the result is of another server.")
    found = view.names.get(view.by_native.get(f"{kept.server}/{kept.tool}", ""))
    found = found or view.listed.get(f"{kept.server}/{kept.tool}")
    if found is not None and found.withheld:
        raise quarantined(found)
    return found or Tool(kept.server, kept.tool, asked.name, b"{}")


async def given(kept: KeptResult, asked: Asked) -> Answer:
    """A kept result as the contents of its link."""
    uri = asked.name.removeprefix(RESOURCE)
    content = {"uri": uri, "mimeType": "application/json", "text": bytes(kept.result).decode()}
    asked.linked = True
    result = wire.encode({"contents": [content], "ttlMs": 0, "cacheScope": "private"})
    return Answer(result=result, era=asked.front.era, result_type="complete")

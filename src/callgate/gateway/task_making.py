"""Calls that become tasks: because the client wants one, the server makes one, or the tool runs in no other way."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from callgate.catalog import offers_tasks
from callgate.gateway import wire
from callgate.gateway.rounds import relayed
from callgate.gateway.task_fronts import made_legacy, made_modern
from callgate.gateway.task_ids import ARGUMENTS, Kept, Ticket
from callgate.gateway.task_keepers import Hop, broken, reading, related, task_of
from callgate.gateway.task_legacy import LegacyTask, newer
from callgate.gateway.task_modern import declared, extended
from callgate.gateway.task_own import asks, beginning, name, run
from callgate.gateway.task_store import Entry, Task
from callgate.types import Answer, Call, Conduct, Front, Permitted

if TYPE_CHECKING:
    from callgate.gateway.house import House


class _Named(msgspec.Struct, rename="camel"):
    task_id: str


Onward = Callable[[Permitted, Conduct], Coroutine[Any, Any, Answer]]
#: How long (seconds) a task lives for which nobody said it.
LIVES = 3600.0
#: The legacy version that has tasks.
SINCE = "2025-11-25"


async def made(permitted: Permitted, conduct: Conduct, house: House, onward: Onward, *, fresh: bool) -> Answer:
    """A call that may become a task, answered. ``onward`` is the way of every other call, and of one that a client
    comes back to (not ``fresh``): it is running already.
    """
    call = permitted.call
    wanted, plain = call.params.get("task"), _without_wish(permitted)
    era = house.upstreams.era(call) or _listed_era(house, call)
    if call.front.era == "legacy":
        if not isinstance(wanted, dict) or call.front.version < SINCE:
            return await onward(plain, conduct)
        if era == "legacy":
            return await _at_legacy(permitted, wanted, conduct, house, onward)
        return (
            await _at_modern(plain, wanted, conduct, house, onward)
            if offers(house, call.tool.server)
            else await onward(plain, conduct)
        )
    if fresh and call.tool.task_support and era == "legacy" and declared(call.front):
        return await _for_modern(plain, conduct, house)
    return await onward(plain, conduct)


def settled(answer: Answer, call: Call, house: House) -> Answer:
    """A server's answer that is not plain, as the client may see it: a task only if it knows tasks (rule TASK-1)."""
    if answer.error is None and answer.result_type == "task" and answer.era == "modern" and declared(call.front):
        return _received(answer, call, house)
    return relayed(answer, call, house)


def _received(answer: Answer, call: Call, house: House) -> Answer:
    """A modern server's answer that the call is a task now. Its id is all that is needed to find it (rule TASK-2)."""
    if call.method != "tools/call":
        raise broken(call.tool.server, f"`{call.method[:80]}` cannot become a task")
    with reading(call.tool.server):
        task = task_of(answer.result, "", house.settings.limits.task_ttl)
        inner = msgspec.json.decode(answer.result, type=_Named).task_id
    entry = remember(call, house, "modern", inner, task)
    return made_modern(entry.seen) if call.front.era == "modern" else made_legacy(entry.seen)


def remember(call: Call, house: House, kept: Kept, inner: str, task: Task) -> Entry:
    """Give the task of this call an id, and keep the way to its server open."""
    seconds = task["ttlMs"] / 1000
    entry = house.tasks.add(_ticket(call, house, kept, inner, seconds), call, task)
    if kept == "legacy":
        house.upstreams.hold(call, inner, seconds)
        entry.release = lambda: house.upstreams.hold(call, inner, 0.0)
    return entry


def offers(house: House, server: str) -> bool:
    """Whether a server makes tasks of tool calls, by what it declared."""
    part = house.catalog.parts.get(server)
    return part is not None and offers_tasks(part.listing)


def _listed_era(house: House, call: Call) -> str:
    part = house.catalog.parts.get(call.tool.server)
    return "" if part is None else part.listing.era


async def sent(permitted: Permitted, conduct: Conduct, house: House) -> Answer:
    """Send a call. A tool that only runs as a task is run as one for a client that knows none, and waited for."""
    call = permitted.call
    if call.tool.task_support != "required" or call.method != "tools/call" or _knows_tasks(call.front):
        return await house.upstreams.send(permitted, conduct)
    answer = await house.upstreams.send(_wishing(permitted, {"ttl": _ttl(None, house)}), conduct)
    task = _created(answer, call, house)
    if task is None:
        return answer
    inner = task["taskId"]
    keeper = LegacyTask(
        Hop(permitted, Entry("", _ticket(call, house, "legacy", inner, LIVES), call, task), house, conduct)
    )
    house.upstreams.hold(call, inner, LIVES)
    try:
        answer = await keeper.outcome()
    except BaseException:
        house.tasks.errand(_called_off(keeper, call, house, inner))  # nobody waits for it any more
        raise
    house.upstreams.hold(call, inner, 0.0)
    return answer if answer.error is not None else msgspec.structs.replace(answer, result=related(answer.result, None))


async def _called_off(keeper: LegacyTask, call: Call, house: House, inner: str) -> None:
    try:
        await keeper.cancel()
    finally:
        house.upstreams.hold(call, inner, 0.0)


async def _at_legacy(
    permitted: Permitted, wanted: dict[str, Any], conduct: Conduct, house: House, onward: Onward
) -> Answer:
    """A legacy client wants a task of a legacy server: they agree on everything but the id."""
    house.tasks.check_room(permitted.call.principal.key)
    wish = {**wanted, "ttl": _ttl(wanted.get("ttl"), house)} if "ttl" in wanted else wanted
    call = permitted.call
    answer = await onward(_wishing(permitted, wish), conduct)
    task = _created(answer, call, house)
    if task is None:
        return answer  # the server does not make tasks; it has made the call
    return made_legacy(remember(call, house, "legacy", task["taskId"], task).seen, answer.result)


async def _at_modern(
    permitted: Permitted, wanted: dict[str, Any], conduct: Conduct, house: House, onward: Onward
) -> Answer:
    """A legacy client wants a task of a modern server, who decides. Where it makes none, callgate does."""
    house.tasks.check_room(permitted.call.principal.key)
    call = msgspec.structs.replace(permitted.call, front=extended(permitted.call.front))
    task = beginning(_ttl(wanted.get("ttl"), house))
    ticket = _ticket(call, house, "callgate", name(), task["ttlMs"] / 1000)
    entry = house.tasks.begin(ticket, call, task)
    mine = Conduct(None, None if conduct.ask is None else asks(entry))
    work = onward(msgspec.structs.replace(permitted, call=call), mine)
    answer = await run(entry, work, house.tasks)
    # A task begins as `working` in this era, however far it has come.
    return made_legacy({**entry.seen, "status": "working"}) if answer is None else answer


async def _for_modern(permitted: Permitted, conduct: Conduct, house: House) -> Answer:
    """A modern client that knows tasks calls a legacy tool that can be one: it becomes one."""
    call = permitted.call
    house.tasks.check_room(call.principal.key)
    answer = await house.upstreams.send(_wishing(permitted, {"ttl": _ttl(None, house)}), Conduct(conduct.emit))
    task = _created(answer, call, house)
    return answer if task is None else made_modern(remember(call, house, "legacy", task["taskId"], task).seen)


def _ticket(call: Call, house: House, kept: Kept, inner: str, seconds: float) -> Ticket:
    arguments = wire.encode(call.arguments)
    return Ticket(
        call.principal.key, call.tool.server, call.tool.name, inner, kept, int(time.time() + seconds) + 1,
        house.tasks.fingerprint(call.tool.server), arguments.decode() if len(arguments) <= ARGUMENTS else "",
    )  # fmt: skip


def _created(answer: Answer, call: Call, house: House) -> Task | None:
    """The task in a legacy server's answer, if there is one, by the server's own id."""
    if answer.error is not None or b'"task"' not in answer.result:
        return None
    with reading(call.tool.server):
        task = msgspec.json.decode(answer.result, type=dict[str, msgspec.Raw]).get("task")
        if task is None:
            return None
        inner = msgspec.json.decode(task, type=_Named).task_id
        return {**task_of(newer(bytes(task)), "", house.settings.limits.task_ttl), "taskId": inner}


def _ttl(wanted: object, house: House) -> int:
    """How long a task shall live, in milliseconds."""
    most = int(house.settings.limits.task_ttl * 1000)
    if isinstance(wanted, int) and not isinstance(wanted, bool) and wanted > 0:
        return min(wanted, most)
    return min(int(LIVES * 1000), most)


def _knows_tasks(front: Front) -> bool:
    return declared(front) if front.era == "modern" else front.version >= SINCE


def _wishing(permitted: Permitted, wish: dict[str, Any]) -> Permitted:
    call = permitted.call
    return msgspec.structs.replace(permitted, call=msgspec.structs.replace(call, params={**call.params, "task": wish}))


def _without_wish(permitted: Permitted) -> Permitted:
    """The call without the member ``task``: it exists in one era only, and there only where tasks are."""
    call = permitted.call
    if "task" not in call.params:
        return permitted
    params = {name: value for name, value in call.params.items() if name != "task"}
    return msgspec.structs.replace(permitted, call=msgspec.structs.replace(call, params=params))

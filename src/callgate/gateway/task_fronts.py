"""What clients are told about tasks, in the words of their era. The keeper has said it in those of the modern one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from callgate.errors import ProtocolError
from callgate.gateway import wire
from callgate.gateway.asking import refusal
from callgate.gateway.rounds import named
from callgate.gateway.task_keepers import RAW, Keeper, Said, over, related
from callgate.gateway.task_legacy import NAMES
from callgate.gateway.task_modern import result_of
from callgate.gateway.task_store import Entry, Task
from callgate.types import Answer, Call, Question, RpcError

#: What a client may do to a task: from the keeper and the request to the answer.
Deed = Callable[[Keeper, Entry, Call], Awaitable[Answer]]

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_LEGACY = {modern: legacy for legacy, modern in NAMES.items()}
_DONE = Answer(b'{"resultType":"complete"}', result_type="complete")


async def _modern_get(keeper: Keeper, entry: Entry, call: Call) -> Answer:
    task = await keeper.detailed()
    if "inputRequests" in task:
        task = {**task, "inputRequests": _answerable(task["inputRequests"], call)}
    return Answer(wire.encode({"resultType": "complete", **task}), result_type="complete")


def _answerable(requests: Any, call: Call) -> dict[str, Any]:
    """The questions that this client has declared to answer; nobody shows it others (rule EXT-1). On aggregates they
    say whose they are.
    """
    asked: dict[str, Any] = wire.decode(requests) if isinstance(requests, msgspec.Raw) else requests
    shown = {}
    for key, each in asked.items():
        question = msgspec.convert(each, Question)
        if refusal(question, call.front.capabilities) is not None:
            continue
        server = call.front.door.startswith("server:")
        shown[key] = each if server else {**each, "params": named(question, call.tool.server).params}
    return shown


async def _modern_update(keeper: Keeper, entry: Entry, call: Call) -> Answer:
    await keeper.update(call.params["inputResponses"])
    return _DONE


async def _modern_cancel(keeper: Keeper, entry: Entry, call: Call) -> Answer:
    await keeper.cancel()
    return _DONE


async def _legacy_get(keeper: Keeper, entry: Entry, call: Call) -> Answer:
    return Answer(wire.encode(older(await keeper.get())), era="legacy")


async def _legacy_result(keeper: Keeper, entry: Entry, call: Call) -> Answer:
    answer = await keeper.outcome()
    if answer.error is not None:
        return answer
    return msgspec.structs.replace(answer, result=related(answer.result, entry.id))


async def _legacy_cancel(keeper: Keeper, entry: Entry, call: Call) -> Answer:
    task = await keeper.get()
    if over(task):
        raise Said(RpcError(wire.INVALID_PARAMS, f"Cannot cancel the task: it is already {task['status']}."))
    await keeper.cancel()
    # In this era the task is cancelled when the answer comes, whatever its server still does.
    entry.heard({**task, **entry.seen, "status": "cancelled"})
    return Answer(wire.encode(older(entry.seen)), era="legacy")


#: Era → method → what is done.
DEEDS: Mapping[str, Mapping[str, Deed]] = {
    "modern": {"tasks/get": _modern_get, "tasks/update": _modern_update, "tasks/cancel": _modern_cancel},
    "legacy": {"tasks/get": _legacy_get, "tasks/result": _legacy_result, "tasks/cancel": _legacy_cancel},
}


def check(method: str, params: Mapping[str, Any]) -> None:
    """Raise ``ProtocolError`` for params that are not those of the method."""
    responses = params.get("inputResponses")
    if method == "tasks/update" and not (isinstance(responses, dict) and all(map(_is_object, responses.values()))):
        raise ProtocolError("tasks/update needs `inputResponses`, an object of objects.", wire.INVALID_PARAMS)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def older(task: Task) -> Task:
    """A task as the legacy era writes it. A tool's error is a failure there."""
    failed = task.get("status") == "completed" and "result" in task and result_of(task).is_error
    told = {_LEGACY.get(name, name): value for name, value in task.items() if name not in RAW}
    return {**told, "status": "failed"} if failed else told


def made_modern(task: Task) -> Answer:
    """The answer to a call that became a task."""
    told = {name: value for name, value in task.items() if name not in RAW}
    return Answer(wire.encode({"resultType": "task", **told}), result_type="task")


def made_legacy(task: Task, answer: bytes = b"{}") -> Answer:
    """The same for a client of the legacy era; what the server's answer holds besides the task stays."""
    told = {**_members(answer), "task": {name: value for name, value in older(task).items() if name != "_meta"}}
    return Answer(wire.encode(told), era="legacy", result_type="task")

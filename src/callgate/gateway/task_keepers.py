"""Who keeps a task, and how it is spoken to: a modern server, a legacy server, or callgate itself.

A keeper speaks of the task in the words of the modern era, whatever its own are, and always by callgate's id.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from callgate.errors import UpstreamError
from callgate.gateway import wire
from callgate.gateway.inbound import NOBODY
from callgate.gateway.rounds import MOST
from callgate.gateway.task_store import TERMINAL, Entry, Task
from callgate.types import Answer, Conduct, Front, Permitted, RpcError

if TYPE_CHECKING:
    from callgate.gateway.house import House

RELATED = "io.modelcontextprotocol/related-task"
#: Members of a task that are passed on as the server wrote them.
RAW = frozenset({"result", "error", "inputRequests"})
STATUSES = TERMINAL | {"working", "input_required"}
#: Bytes of a server's task without its result and questions: this much is remembered of it.
LARGEST = 64 * 1024
#: Bounds on the pause (seconds) between two looks at a task, and the pause where the server suggests none.
POLL, USUAL_POLL = (0.05, 10.0), 1.0

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Said(Exception):
    """The keeper's answer is an error, which is passed on."""

    def __init__(self, error: RpcError) -> None:
        super().__init__(error.message)
        self.error = error


class Keeper(Protocol):
    """One task at its keeper. Every method raises ``Said`` when the keeper answers with an error."""

    async def get(self) -> Task:
        """The task without its result, if that costs another request."""

    async def detailed(self) -> Task:
        """The task with everything that belongs to its status: result, error, questions."""

    async def outcome(self) -> Answer:
        """The result of the call that made the task; waits for it, and asks the client what the server asks."""

    async def update(self, responses: Mapping[str, Any]) -> None:
        """Hand over answers to questions."""

    async def cancel(self) -> None:
        """Call the task off; nothing happens to one that is over."""


class Hop(msgspec.Struct, frozen=True):
    """A permitted request about a task: what is needed to speak to the task's server."""

    permitted: Permitted
    entry: Entry
    house: House
    conduct: Conduct = NOBODY

    async def send(self, method: str, front: Front, more: Mapping[str, Any], conduct: Conduct = NOBODY) -> Answer:
        """One request to the server that keeps the task. ``front`` is how it is reached."""
        permitted = self.permitted if method == "tasks/cancel" else self.still_permitted()
        params = {"taskId": self.entry.ticket.inner, **more}
        call = msgspec.structs.replace(permitted.call, method=method, front=front, params=params)
        return await self.house.upstreams.send(msgspec.structs.replace(permitted, call=call), conduct)

    def still_permitted(self) -> Permitted:
        """A result may be waited for as long as a task lives, and much may have changed by then."""
        return self.house.judged_anew(self.permitted.call)

    @property
    def open(self) -> bool:
        """Whether the id still holds."""
        return self.entry.ticket.expires > time.time()


def succeeded(answer: Answer) -> Answer:
    """The answer, unless it is an error, which is raised as ``Said``."""
    if answer.error is not None:
        raise Said(answer.error)
    return answer


def broken(server: str, how: str) -> UpstreamError:
    return UpstreamError(f"Server `{server}` broke the protocol: {how[:200]}.")


@contextlib.contextmanager
def reading(server: str) -> Iterator[None]:
    """What cannot be read as a task is the server's mistake."""
    try:
        yield
    except (msgspec.MsgspecError, RecursionError) as why:
        raise broken(server, f"it sent a task that cannot be read ({why})") from None


def task_of(result: bytes, id: str, longest: float) -> Task:
    """A server's task under callgate's id, living no longer than ids do (``longest``, seconds)."""
    members = _members(result)
    if sum(len(bytes(value)) for name, value in members.items() if name not in RAW) > LARGEST:
        raise msgspec.ValidationError(f"it is larger than {LARGEST} bytes without its result")
    if "inputRequests" in members and len(_members(members["inputRequests"])) > MOST:
        raise msgspec.ValidationError(f"it asks more than {MOST} questions at once")
    task: Task = {name: value if name in RAW else wire.decode(value) for name, value in members.items()}
    task.pop("resultType", None)
    if task.get("status") not in STATUSES:
        raise msgspec.ValidationError("it has no known status")
    ttl = task.get("ttlMs")
    cap = int(longest * 1000)
    task["ttlMs"] = min(ttl, cap) if isinstance(ttl, int) and not isinstance(ttl, bool) and ttl > 0 else cap
    return {**task, "taskId": id}


def related(result: bytes, id: str | None) -> bytes:
    """A result with this task in its ``_meta``, or (``None``) with no task there. Nothing else is touched."""
    if id is None and RELATED.encode() not in result:
        return result
    members: dict[str, Any] = dict(_members(result))
    meta = wire.decode(members["_meta"]) if "_meta" in members else {}
    meta = {name: value for name, value in meta.items() if name != RELATED} if isinstance(meta, dict) else {}
    if id is not None:
        meta[RELATED] = {"taskId": id}
    members.pop("_meta", None)
    return wire.encode({**members, "_meta": meta} if meta else members)


def unrelated(params: Mapping[str, Any], id: str | None = None) -> dict[str, Any]:
    """Params of a server's question with callgate's id in ``_meta`` in place of the server's, or with none."""
    meta = params.get("_meta")
    if not isinstance(meta, dict) or RELATED not in meta:
        return dict(params)
    kept = {name: value for name, value in meta.items() if name != RELATED}
    if id is not None:
        kept[RELATED] = {"taskId": id}
    rest = {name: value for name, value in params.items() if name != "_meta"}
    return {**rest, "_meta": kept} if kept else rest


def over(task: Task) -> bool:
    return task.get("status") in TERMINAL


def inlined(answer: Answer) -> msgspec.Raw:
    """A result as a member of a task, in the words of the modern era."""
    if answer.result_type is not None:
        return msgspec.Raw(answer.result)
    return msgspec.Raw(wire.with_member(answer.result, b"resultType", b'"complete"'))


def plain(error: RpcError) -> dict[str, Any]:
    """An error as a member of a task."""
    said = {"code": error.code, "message": error.message}
    return said if error.data is None else {**said, "data": error.data}


def cancelled() -> Answer:
    """What is left of a task that was called off."""
    return Answer(error=RpcError(wire.INTERNAL_ERROR, "The task was cancelled."))


async def pause(entry: Entry, least: float = POLL[0]) -> None:
    """Wait as long as the task's keeper suggests, or until there is news of it."""
    interval = entry.seen.get("pollIntervalMs")
    seconds = interval / 1000 if isinstance(interval, (int, float)) else USUAL_POLL
    entry.stirred.clear()
    try:
        async with asyncio.timeout(min(max(seconds, least), POLL[1])):
            await entry.stirred.wait()
    except TimeoutError:
        pass

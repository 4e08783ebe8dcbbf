"""Tasks of callgate's own: a legacy client wanted a task, and the modern server made none of the call.

Then the call itself is the task. It goes on here while the client comes and goes; what the server asks meanwhile waits
for ``tasks/result``. Such a task lives in this process and is lost with it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine, Mapping
from typing import Any

from callgate.errors import CallgateError, UpstreamError
from callgate.gateway import wire
from callgate.gateway.asking import refusal
from callgate.gateway.rounds import modern_form
from callgate.gateway.task_ids import unknown
from callgate.gateway.task_keepers import Hop, cancelled, inlined, plain
from callgate.gateway.task_modern import ModernTask, put_to_client
from callgate.gateway.task_store import Entry, Task, Tasks, stamp
from callgate.types import Answer, Ask, Question, RpcError
from callgate.upstream import without_last_words

#: How often a client should look at such a task (milliseconds).
LOOK = 1000
#: How long (seconds) the server may take before the client is told that there is a task.
PROMPT = 2.0


class OwnTask:
    """A call that goes on by itself, or its result."""

    def __init__(self, hop: Hop) -> None:
        self._hop = hop
        self._entry = hop.entry
        if self._entry.fetching is None and self._entry.kept is None:
            raise unknown()

    async def get(self) -> Task:
        asks = self._entry.questions and not self._entry.over
        return {**self._entry.seen, "status": "input_required"} if asks else dict(self._entry.seen)

    async def detailed(self) -> Task:
        task, kept, call = await self.get(), self._entry.kept, self._hop.permitted.call
        if kept is not None and not self._entry.cancelled:
            if kept.error is not None:
                return {**task, "status": "failed", "error": plain(kept.error)}
            return {**task, "status": "completed", "result": inlined(kept)}
        if task["status"] != "input_required":
            return task
        return {**task, "inputRequests": {key: modern_form(each, call) for key, each in self._open().items()}}

    async def outcome(self) -> Answer:
        while self._entry.kept is None and not self._entry.cancelled:
            if self._entry.ticket.kept == "modern":
                return await ModernTask(self._hop).outcome()
            fresh = {key: each for key, each in self._open().items() if key not in self._entry.put}
            self._entry.stirred.clear()
            await (put_to_client(self._hop, fresh, self.update) if fresh else self._entry.stirred.wait())
        self._hop.still_permitted()
        return cancelled() if self._entry.cancelled or self._entry.kept is None else self._entry.kept

    async def update(self, responses: Mapping[str, Any]) -> None:
        self._entry.answer(responses)

    async def cancel(self) -> None:
        if self._entry.fetching is not None and not self._entry.over:
            self._entry.heard({**self._entry.seen, "status": "cancelled", "lastUpdatedAt": stamp()})
            self._entry.fetching.cancel()

    def _open(self) -> dict[str, Any]:
        return {key: question for key, (question, _) in self._entry.questions.items()}


async def run(entry: Entry, work: Coroutine[Any, Any, Answer], tasks: Tasks) -> Answer | None:
    """Begin the call. An ``Answer`` is one that is no result (an error, a task of the server), and there is no task of
    callgate's own then; ``None``: the task goes on, or is over.
    """
    running = entry.fetching = asyncio.create_task(work, name="call as a task")
    running.add_done_callback(lambda done: _ended(entry, done, tasks))
    stirred = asyncio.ensure_future(entry.stirred.wait())
    try:
        await asyncio.wait((running, stirred), timeout=PROMPT, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            answer = running.result()
            if answer.error is not None or answer.result_type == "task":
                return answer
        tasks.check_room(entry.ticket.principal)
    except BaseException:
        tasks.forget(entry)
        raise
    finally:
        stirred.cancel()
    tasks.admit(entry)
    return None


def asks(entry: Entry) -> Ask:
    """How the call asks: the question waits in the task, if the client can answer such a one at all."""

    async def ask(question: Question) -> Answer:
        problem = refusal(question, entry.front.capabilities)
        return await entry.ask(question) if problem is None else Answer(error=problem)

    return ask


def beginning(milliseconds: int) -> Task:
    times = {"createdAt": stamp(), "lastUpdatedAt": stamp()}
    return {"status": "working", **times, "ttlMs": milliseconds, "pollIntervalMs": LOOK}


def name() -> str:
    return secrets.token_urlsafe(16)


def _ended(entry: Entry, done: asyncio.Task[Answer], tasks: Tasks) -> None:
    """Keep what has become of the call. A task that the server made after all takes the place of this one."""
    if done.cancelled():
        entry.heard({**entry.seen, "status": "cancelled", "lastUpdatedAt": stamp()})
    else:
        answer = _result(done)
        theirs = tasks.made_of(answer) if answer.result_type == "task" else None
        if theirs is not None:
            if tasks.knows(entry):
                entry.ticket = theirs.ticket
                tasks.forget(theirs)
        else:
            failed = answer.error is not None or answer.is_error
            entry.heard({**entry.seen, "status": "failed" if failed else "completed", "lastUpdatedAt": stamp()})
            tasks.keep(entry, answer)
    entry.stirred.set()


def _result(done: asyncio.Task[Answer]) -> Answer:
    why = done.exception()
    if isinstance(why, CallgateError):
        message = without_last_words(why.message) if isinstance(why, UpstreamError) else why.message
        return Answer(error=RpcError(why.rpc_code, message))
    return Answer(error=RpcError(wire.INTERNAL_ERROR, "Internal error.")) if why is not None else done.result()

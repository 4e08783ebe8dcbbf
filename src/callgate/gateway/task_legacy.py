"""Tasks of legacy servers (2025-11-25): ``tasks/get`` for the status, ``tasks/result`` for the result and questions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import msgspec

from callgate.errors import UpstreamTimeout
from callgate.gateway import wire
from callgate.gateway.rounds import modern_form
from callgate.gateway.task_keepers import (
    Hop,
    Said,
    cancelled,
    inlined,
    over,
    plain,
    related,
    succeeded,
    task_of,
    unrelated,
)
from callgate.gateway.task_store import Task
from callgate.types import Answer, Conduct, Question

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
#: Legacy name → modern name.
NAMES = {"ttl": "ttlMs", "pollInterval": "pollIntervalMs"}
#: How long (seconds) ``tasks/get`` waits for the question that a server announced.
AWAITED = 2.0


class LegacyTask:
    """One task at a legacy server, reached over the link of the call that made it."""

    def __init__(self, hop: Hop) -> None:
        self._hop = hop
        self._entry = hop.entry

    async def get(self) -> Task:
        if self._entry.cancelled:
            return dict(self._entry.seen)
        answer = succeeded(await self._send("tasks/get"))
        return self._entry.heard(self._read(answer.result))

    async def detailed(self) -> Task:
        task = await self.get()
        if task["status"] == "input_required" and not self._entry.questions:
            await self._announced()
            task = await self.get()
        if task["status"] in ("completed", "failed"):
            return _ended(task, await self._fetched())
        if self._entry.questions:
            asked = {
                key: modern_form(each, self._hop.permitted.call) for key, (each, _) in self._entry.questions.items()
            }
            return {**task, "status": "input_required", "inputRequests": asked}
        # The answer is on its way to the server, or the question to callgate.
        return {**task, "status": "working"} if task["status"] == "input_required" else task

    async def outcome(self) -> Answer:
        answer = await self._result(self._hop.conduct, self._entry.id)
        self._ended_with(answer)
        return answer

    async def update(self, responses: Mapping[str, Any]) -> None:
        self._entry.answer(responses)

    async def cancel(self) -> None:
        if over(await self.get()):
            return
        answer = await self._send("tasks/cancel")
        if answer.error is None:
            self._entry.heard(self._read(answer.result))
        elif not over(await self.get()):  # it did not end by itself meanwhile
            raise Said(answer.error)

    def _read(self, result: bytes) -> Task:
        """A task as a legacy server writes it, in the words of the modern era."""
        return task_of(newer(result), self._entry.id, self._hop.house.settings.limits.task_ttl)

    async def _result(self, conduct: Conduct, shown: str | None) -> Answer:
        """``tasks/result`` until it is answered. Giving up one request for the result does not end the task."""
        while self._hop.open and not self._entry.cancelled:
            with contextlib.suppress(UpstreamTimeout):
                answer = await self._send("tasks/result", _about(conduct, self._entry.id, self._entry.ticket.inner))
                if answer.error is not None:
                    return answer
                return msgspec.structs.replace(answer, result=related(answer.result, shown))
        return cancelled()

    # For clients of the modern era, who fetch questions and result with ``tasks/get``.

    async def _announced(self) -> None:
        """Ask for the result, because questions come while that is waited for; wait a moment for the first."""
        self._entry.stirred.clear()
        fetching = self._fetching()
        stirred = asyncio.ensure_future(self._entry.stirred.wait())
        try:
            await asyncio.wait((fetching, stirred), timeout=AWAITED, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stirred.cancel()

    async def _fetched(self) -> Answer:
        return await asyncio.shield(self._fetching())

    def _fetching(self) -> asyncio.Task[Answer]:
        """The request for the result. It is the task's, not the client's who looks: that one comes and goes."""
        running = self._entry.fetching
        if running is None or (running.done() and (running.cancelled() or running.exception() is not None)):
            running = asyncio.create_task(self._result(Conduct(None, self._entry.ask), None), name="task result")
            running.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._entry.fetching = running
        return running

    def _ended_with(self, answer: Answer) -> None:
        status = "failed" if answer.error is not None or answer.is_error else "completed"
        self._entry.heard({**self._entry.seen, "status": status})

    async def _send(self, method: str, conduct: Conduct | None = None) -> Answer:
        return await self._hop.send(method, self._entry.front, {}, conduct or Conduct())


def newer(task: bytes) -> bytes:
    """A task as legacy servers write it, with the names of the modern era."""
    return wire.encode({NAMES.get(name, name): value for name, value in _members(task).items()})


def _about(conduct: Conduct, id: str, inner: str) -> Conduct:
    """The client's end, where the server's questions name the task by callgate's id."""
    ask = conduct.ask
    if ask is None:
        return conduct

    async def asked(question: Question) -> Answer:
        answer = await ask(Question(question.method, unrelated(question.params, id)))
        if answer.error is not None:
            return answer
        return msgspec.structs.replace(answer, result=related(answer.result, inner))

    return Conduct(conduct.emit, asked)


def _ended(task: Task, answer: Answer) -> Task:
    """A task that is over, with its result or error. Failed is only what failed as a request (rule TASK-6)."""
    error = answer.error
    if error is None:
        return {**task, "status": "completed", "result": inlined(answer)}
    return {**task, "status": "failed", "error": plain(error)}

"""Tasks of modern servers (extension ``io.modelcontextprotocol/tasks``)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from callgate.catalog import TASKS
from callgate.gateway import wire
from callgate.gateway.task_keepers import Hop, Said, cancelled, pause, succeeded, task_of
from callgate.gateway.task_store import Task
from callgate.types import Answer, Front, Question, RpcError

_question = msgspec.json.Decoder(dict[str, Question]).decode


class _Peek(msgspec.Struct, rename="camel"):
    is_error: bool | None = None


_peek = msgspec.json.Decoder(_Peek).decode


class ModernTask:
    """One task at a modern server."""

    def __init__(self, hop: Hop) -> None:
        self._hop = hop
        self._entry = hop.entry
        self._front = extended(hop.permitted.call.front)

    async def get(self) -> Task:
        if self._entry.cancelled:
            return dict(self._entry.seen)
        answer = succeeded(await self._send("tasks/get"))
        task = task_of(answer.result, self._entry.id, self._hop.house.settings.limits.task_ttl)
        return self._entry.heard(task)

    async def detailed(self) -> Task:
        return await self.get()

    async def outcome(self) -> Answer:
        """Look again and again; what the server asks meanwhile, the client is asked."""
        while self._hop.open:
            task = await self.get()
            if task["status"] == "completed":
                return result_of(task)
            if task["status"] == "failed":
                return Answer(error=msgspec.json.decode(task["error"], type=RpcError))
            if task["status"] == "cancelled":
                return cancelled()
            questions = _question(task["inputRequests"]) if "inputRequests" in task else {}
            fresh = {key: each for key, each in questions.items() if key not in self._entry.put}
            await (put_to_client(self._hop, fresh, self.update) if fresh else pause(self._entry))
        raise Said(RpcError(wire.INTERNAL_ERROR, "The task did not end in its time."))

    async def update(self, responses: Mapping[str, Any]) -> None:
        succeeded(await self._send("tasks/update", inputResponses=responses))

    async def cancel(self) -> None:
        succeeded(await self._send("tasks/cancel"))

    async def _send(self, method: str, **more: Any) -> Answer:
        return await self._hop.send(method, self._front, more)


Update = Callable[[Mapping[str, Any]], Awaitable[None]]


async def put_to_client(hop: Hop, questions: Mapping[str, Question], update: Update) -> None:
    """Ask the client, once: whoever waits for the same task at the same time does not ask again."""
    ask = hop.conduct.ask
    if ask is None:
        raise Said(RpcError(wire.INTERNAL_ERROR, "The task needs input, and the client cannot be asked here."))
    hop.entry.put.update(questions)
    try:
        answers = await asyncio.gather(*(ask(each) for each in questions.values()))
        await update({key: _response(questions[key], said) for key, said in zip(questions, answers, strict=True)})
    except BaseException:
        hop.entry.put.difference_update(questions)
        raise


def declared(front: Front) -> bool:
    """Whether the client knows tasks of the modern era."""
    extensions = front.capabilities.get("extensions")
    return isinstance(extensions, Mapping) and TASKS in extensions


def extended(front: Front) -> Front:
    """The same client, who knows tasks because callgate speaks for it."""
    if declared(front):
        return front
    extensions = front.capabilities.get("extensions")
    others = dict(extensions) if isinstance(extensions, Mapping) else {}
    capabilities = {**front.capabilities, "extensions": {**others, TASKS: {}}}
    return msgspec.structs.replace(front, capabilities=capabilities)


def result_of(task: Task) -> Answer:
    """The result that a completed task holds."""
    result = bytes(task.get("result", b"{}"))
    return Answer(result=result, is_error=_peek(result).is_error is True)


def _response(question: Question, said: Answer) -> Any:
    """The client's answer as the modern era writes it. A refusal can only be said to an elicitation."""
    if said.error is None:
        return msgspec.Raw(said.result)
    if question.method == "elicitation/create":
        return {"action": "cancel"}
    raise Said(said.error)

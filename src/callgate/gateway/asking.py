"""Questions of servers to legacy clients: JSON-RPC requests of ours, inside the client's session.

A question goes out where its call came in: on the event stream of the POST, or on stdout. Its answer comes back as a
message of the session and is matched by id, so only the session that was asked can answer.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from callgate.gateway import wire
from callgate.types import Answer, Question, RpcError

#: How long (seconds) a client may think about one question. People answer some of them.
PATIENCE = 600.0
#: Questions that one session may have open; more are refused.
OPEN = 64

#: Sends one message that must not be lost; false when nobody can ever read it.
Say = Callable[[bytes], bool]

#: What the servers may ask → the capability that a client declares when it can answer.
#: (``tasks/list`` is not asked: it would show one server the tasks that another one began.)
KINDS = {
    "elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots",
    "tasks/get": "tasks", "tasks/result": "tasks", "tasks/cancel": "tasks",
}  # fmt: skip


class Questions:
    """The open questions of one session, by the id of our request."""

    def __init__(self) -> None:
        self._open: dict[str, asyncio.Future[Answer]] = {}
        self._tag = ""
        self._count = 0

    def __len__(self) -> int:
        return len(self._open)

    async def ask(self, capabilities: Mapping[str, Any], say: Say, question: Question) -> Answer:
        """Ask, and wait for the answer: what the client says, or an error of ours when it cannot be asked."""
        problem = refusal(question, capabilities)
        if problem is not None:
            return Answer(error=problem, era="legacy")
        if len(self._open) >= OPEN:
            return failed("The client already has too many questions to answer.")
        id = self._next_id()
        waiting = self._open[id] = asyncio.get_running_loop().create_future()
        try:
            if not say(_request(id, question)):
                return failed("The client cannot be asked any more: it has left the stream of this request.")
            async with asyncio.timeout(PATIENCE):
                answer: Answer = await waiting
            return answer
        except TimeoutError:
            say(_withdrawn(id, "timeout"))
            return failed(f"The client did not answer within {PATIENCE:g} s.")
        except asyncio.CancelledError:
            say(_withdrawn(id, "The request that needed the answer has ended."))
            raise
        finally:
            del self._open[id]

    def answered(self, message: Mapping[str, Any]) -> None:
        """Take a response of the client. One to a question that is not open (any more) changes nothing."""
        id = message.get("id")
        waiting = self._open.get(id) if isinstance(id, str) else None
        if waiting is not None and not waiting.done():
            waiting.set_result(_answer(message))

    def fail(self, why: str) -> None:
        """Nobody will answer any more."""
        for waiting in self._open.values():
            if not waiting.done():
                waiting.set_result(failed(why))

    def _next_id(self) -> str:
        """Never used before in this session, whichever process it lived in (hence the tag)."""
        self._tag = self._tag or os.urandom(4).hex()
        self._count += 1
        return f"callgate-{self._tag}-{self._count}"


def can_answer(capabilities: Mapping[str, Any]) -> bool:
    """Whether a client can answer anything at all."""
    return not capabilities.keys().isdisjoint(KINDS.values())


def refusal(question: Question, capabilities: Mapping[str, Any]) -> RpcError | None:
    """Why a client that declared these capabilities is not asked this; ``None`` when it is (rule EXT-3)."""
    kind = KINDS.get(question.method)
    if kind is None or kind not in capabilities:
        return RpcError(wire.METHOD_NOT_FOUND, f"The client does not answer {question.method[:80]}.")
    declared = capabilities[kind] if isinstance(capabilities[kind], dict) else {}
    params = question.params
    if "task" in params and not _as_task(question.method, capabilities):
        return RpcError(wire.INVALID_PARAMS, f"The client does not take {question.method} as a task.")
    if kind == "elicitation" and params.get("mode", "form") not in _modes(declared):
        return RpcError(wire.INVALID_PARAMS, f"The client does not answer elicitation in mode {params.get('mode')!r}.")
    if kind == "sampling" and "tools" not in declared and ("tools" in params or "toolChoice" in params):
        return RpcError(wire.INVALID_PARAMS, "The client does not sample with tools.")
    return None


def _modes(declared: Mapping[str, Any]) -> list[str]:
    """Modes of elicitation: form where nothing is said (2025-11-25, "Capabilities")."""
    return [mode for mode in ("form", "url") if mode in declared] or ["form"]


def _as_task(method: str, capabilities: Mapping[str, Any]) -> bool:
    """Whether the client declared ``tasks.requests`` for this method (2025-11-25, "Tasks")."""
    declared: Any = capabilities.get("tasks")
    for key in ("requests", *method.split("/")):
        declared = declared.get(key) if isinstance(declared, dict) else None
    return declared is not None


def failed(why: str) -> Answer:
    return Answer(error=RpcError(wire.INTERNAL_ERROR, why), era="legacy")


def _request(id: str, question: Question) -> bytes:
    message: dict[str, Any] = {"jsonrpc": "2.0", "id": id, "method": question.method}
    if question.params:
        message["params"] = question.params
    return wire.encode(message)


def _withdrawn(id: str, why: str) -> bytes:
    return wire.notification("notifications/cancelled", {"requestId": id, "reason": why})


def _answer(message: Mapping[str, Any]) -> Answer:
    """The client's answer, untouched, if it is one."""
    try:
        if message.get("error") is not None:
            return Answer(error=msgspec.convert(message["error"], RpcError), era="legacy")
        if isinstance(message.get("result"), dict):
            return Answer(result=wire.encode(message["result"]), era="legacy")
    except msgspec.ValidationError:
        pass
    return failed("The client answered with something that is neither a result nor an error.")

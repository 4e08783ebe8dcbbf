"""JSON-RPC over the pipes of a child process: many calls at once, told apart by id."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from callgate.egress import Deadlines
from callgate.errors import UpstreamError, UpstreamTimeout
from callgate.types import Answer, Call, Era

from .child import Child, Program
from .link import Hello, Notice
from .relay import Emit, Loudness, Relay
from .serverlog import ServerLog
from .wire import (
    LEGACY,
    LIST_CHANGED,
    MODERN,
    Envelope,
    Stamp,
    answer,
    encode,
    notification,
    params_of,
    read,
    reply_to,
    request,
    result_object,
)


class _Wait:
    """One request without an answer yet. ``relay`` is there for calls, not for callgate's own requests."""

    __slots__ = ("answered", "deadline", "relay")

    def __init__(self, answered: asyncio.Future[Envelope], deadline: float, relay: Relay | None) -> None:
        self.answered = answered
        self.deadline = deadline
        self.relay = relay

    def expire(self) -> None:
        if not self.answered.done():
            self.answered.set_exception(UpstreamTimeout("did not answer in time"))


class Pipe:
    """A link over stdio, of either era."""

    def __init__(
        self, era: Era, client_info: Mapping[str, Any], next_id: Callable[[], int], log: ServerLog, notice: Notice
    ) -> None:
        self._era = era
        self._stamp = Stamp(era, client_info)
        self._next_id = next_id
        self._log = log
        self._notice = notice
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines()
        self._waits: dict[int, _Wait] = {}
        self._calls = 0
        self._child: Child | None = None
        self._loudness = Loudness(False)
        self.hello = Hello(era, MODERN if era == "modern" else LEGACY[0])
        self.lost = ""
        self.stale = False

    async def start(self, program: Program) -> None:
        self._child = await Child.start(program, self._log, self._line, self._exited)

    def greeted(self, hello: Hello) -> None:
        """The handshake is done."""
        self.hello = hello
        self._loudness = Loudness(self._era == "legacy" and "logging" in hello.capabilities)

    @property
    def pids(self) -> tuple[int, ...]:
        return (self._child.pid,) if self._child is not None and not self.lost else ()

    async def call(self, call: Call, emit: Emit | None, deadline: float) -> Answer:
        if (level := self._loudness.raise_for(call)) is not None:
            # Lines keep their order, so the call need not wait for the answer, which nobody awaits.
            await self._write(request(self._next_id(), "logging/setLevel", {"level": level}), deadline)
        ident = self._next_id()
        relay = Relay(call, ident, emit)
        line = self._stamp.call(call, ident, relay.wants_progress)
        self._calls += 1
        try:
            return answer(await self._ask(ident, line, deadline, relay), self._era)
        except (asyncio.CancelledError, UpstreamTimeout) as error:
            why = "timeout" if isinstance(error, UpstreamTimeout) else "cancelled by the client"
            self._tell(notification("notifications/cancelled", {"requestId": ident, "reason": why}))
            raise
        finally:
            self._calls -= 1

    async def request(self, method: str, params: Mapping[str, Any], deadline: float) -> dict[str, Any]:
        return result_object(await self.ask(method, params, deadline), method)

    async def ask(self, method: str, params: Mapping[str, Any], deadline: float) -> Answer:
        """One of callgate's own requests; a JSON-RPC error is an answer too."""
        ident = self._next_id()
        body = encode(params)
        if self._era == "modern":
            body = body[:-1] + (b"," if params else b"") + b'"_meta":' + self._stamp.own() + b"}"
        return answer(await self._ask(ident, request(ident, method, body), deadline, None), self._era)

    async def tell(self, method: str, deadline: float) -> None:
        await self._write(notification(method), deadline)

    async def aclose(self) -> None:
        child = self._child
        if child is not None:
            await child.stop()
        self._deadlines.close()

    # Writing.

    async def _ask(self, ident: int, line: bytes, deadline: float, relay: Relay | None) -> Envelope:
        await self._write(line, deadline)
        wait = _Wait(self._loop.create_future(), deadline, relay)
        self._waits[ident] = wait
        self._deadlines.add(wait)
        try:
            return await wait.answered
        finally:
            self._waits.pop(ident, None)
            self._deadlines.discard(wait)

    async def _write(self, line: bytes, deadline: float) -> None:
        child = self._child
        if child is None or not child.open:
            raise UpstreamError(await self._ending())
        if child.congested:
            await child.drained(deadline)
        child.write(line + b"\n")

    async def _ending(self) -> str:
        """How the process ended; that is known a moment after its pipes are closed (half a second is waited)."""
        for _ in range(50):
            if self.lost or self._child is None:
                break
            await asyncio.sleep(0.01)
        return self.lost or "has ended"

    def _tell(self, line: bytes) -> None:
        """Write something that may as well get lost."""
        if self._child is not None and not self._child.congested:
            self._child.write(line + b"\n")

    # Reading.

    def _line(self, line: bytes) -> None:
        if not line or line.isspace():
            return
        try:
            message = read(line)
        except UpstreamError:
            self._log.note(b"[callgate: not JSON-RPC on stdout] " + line[:500])
            return
        if message.method is not None:
            self._heard(message, message.method)
            return
        wait = self._waits.get(message.id) if isinstance(message.id, int) else None
        if wait is None:
            return  # late, or the answer to something that was never asked
        if not wait.answered.done():
            wait.answered.set_result(message)

    def _heard(self, message: Envelope, method: str) -> None:
        if message.id is not None:
            if self._era == "legacy":  # modern servers write no requests and get no responses (STDIO-1)
                self._tell(reply_to(message.id, method))
        elif method == "notifications/progress":
            params = params_of(message)
            wait = self._waits.get(_number(params.get("progressToken")))
            if wait is not None and wait.relay is not None:
                wait.relay.progress(params)
        elif method == "notifications/message":
            self._log_message(message)
        elif method in LIST_CHANGED:
            self.stale = True
            self._notice()

    def _log_message(self, message: Envelope) -> None:
        """A log message names no call, so it goes on only when there can be no doubt."""
        if self._calls != 1:
            return
        for wait in self._waits.values():
            if wait.relay is not None:
                wait.relay.log(params_of(message))

    def _exited(self, reason: str) -> None:
        self.lost = reason
        for wait in tuple(self._waits.values()):
            if not wait.answered.done():
                wait.answered.set_exception(UpstreamError(reason))
        self._notice()


def _number(token: object) -> int:
    """A progress token of ours, also when the server turned the number into a string; -1 for anything else."""
    if isinstance(token, int):
        return token
    return int(token) if isinstance(token, str) and token.isascii() and token.isdigit() and len(token) < 19 else -1

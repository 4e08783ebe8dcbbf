"""JSON-RPC line by line, to a child process or over HTTP+SSE: many calls at once, told apart by id."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from callgate.egress import Deadlines
from callgate.errors import CallgateError, UpstreamError, UpstreamTimeout
from callgate.types import Answer, Call, Conduct, Era, Principal

from .link import Circumstances, Hello, NotLegacy, legacy_hello
from .listening import subscription_of
from .purpose import Purpose
from .questions import Questions, whom
from .relay import Loudness, Relay, number, wants_progress
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
    read_all,
    request,
    result_object,
)

GRACE = 5.0  # seconds in which a server should read the answers that it asked for
MAX_LATE = 64


class Channel(Protocol):
    """What carries lines to a server and back: a child process, or an event stream with an address for messages.

    While it is ``congested`` only ``drained`` may write more.
    """

    pid: int

    @property
    def open(self) -> bool: ...

    @property
    def congested(self) -> bool: ...

    def write(self, line: bytes) -> None: ...

    async def drained(self, deadline: float) -> None: ...

    async def stop(self) -> None: ...


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
    """A link whose server says everything on one stream: over stdio of either era, over HTTP+SSE of the legacy era."""

    stateful = True
    correlates = False
    #: The owner of the link shows the server who it is, each call anew. Only links over HTTP do.
    show: Callable[[Principal], None] | None = None

    def __init__(self, era: Era, around: Circumstances, log: ServerLog, purpose: Purpose) -> None:
        self._era = era
        self._client_info = around.client_info
        self._stamp = Stamp(era, around.client_info)
        self._next_id = around.next_id
        self._log = log
        self._purpose = purpose
        self._questions = Questions(purpose, self._respond)
        self._late: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines()
        self._waits: dict[int, _Wait] = {}
        self._listens: dict[int, Callable[[str, Mapping[str, Any]], None]] = {}
        self._channel: Channel | None = None
        self._loudness = Loudness(False)
        self.hello = Hello(era, MODERN if era == "modern" else LEGACY[0])
        self.lost = ""
        self.stale = False

    async def start(self, opened: Callable[[Pipe], Awaitable[Channel]]) -> None:
        """Get the channel, which calls ``line``, ``exited`` and ``refused``."""
        self._channel = await opened(self)

    async def initialize(self, deadline: float) -> None:
        """The handshake of the legacy era."""
        params = {
            "protocolVersion": LEGACY[0],
            "capabilities": self._purpose.capabilities,
            "clientInfo": self._client_info,
        }
        said = await self.ask("initialize", params, deadline)
        if said.error is not None:
            raise NotLegacy(f"answered `initialize` with error {said.error.code}: {said.error.message[:300]}")
        self.greeted(legacy_hello(result_object(said, "initialize")))
        await self.tell("notifications/initialized", deadline)

    def greeted(self, hello: Hello) -> None:
        """The handshake is done."""
        self.hello = hello
        self._loudness = Loudness(self._era == "legacy" and "logging" in hello.capabilities)

    @property
    def pids(self) -> tuple[int, ...]:
        channel = self._channel
        return (channel.pid,) if channel is not None and channel.pid and not self.lost else ()

    async def call(self, call: Call, conduct: Conduct, deadline: float) -> Answer:
        if (level := self._loudness.raise_for(call)) is not None:
            # Lines keep their order, so the call need not wait for the answer, which nobody awaits.
            await self._write(request(self._next_id(), "logging/setLevel", {"level": level}), deadline)
        ident = self._next_id()
        relay = Relay(call, ident, conduct)
        line = self._stamp.call(call, ident, wants_progress(call, conduct))
        try:
            if conduct.ask is not None and (talk := self._questions.talk(conduct.ask, deadline)) is not None:
                relay.talk = talk
                async with talk:
                    return answer(await self._ask(ident, line, math.inf, relay), self._era)
            return answer(await self._ask(ident, line, deadline, relay), self._era)
        except (asyncio.CancelledError, UpstreamTimeout) as error:
            why = "timeout" if isinstance(error, UpstreamTimeout) else "cancelled by the client"
            self._tell(notification("notifications/cancelled", {"requestId": ident, "reason": why}))
            raise

    async def request(self, method: str, params: Mapping[str, Any], deadline: float) -> dict[str, Any]:
        return result_object(await self.ask(method, params, deadline), method)

    async def ask(self, method: str, params: Mapping[str, Any], deadline: float) -> Answer:
        """One of callgate's own requests; a JSON-RPC error is an answer too."""
        ident = self._next_id()
        body = encode(params)
        if self._era == "modern":
            body = body[:-1] + (b"," if params else b"") + b'"_meta":' + self._stamp.own() + b"}"
        return answer(await self._ask(ident, request(ident, method, body), deadline, None), self._era)

    async def listen(self, wanted: Mapping[str, Any], hear: Callable[[str, Mapping[str, Any]], None]) -> Answer:
        """One ``subscriptions/listen``, as long as it lasts."""
        ident, method = self._next_id(), "subscriptions/listen"
        body = encode({"notifications": wanted})[:-1] + b',"_meta":' + self._stamp.own() + b"}"
        self._listens[ident] = hear
        try:
            return answer(await self._ask(ident, request(ident, method, body), math.inf, None), self._era)
        except asyncio.CancelledError:
            self._tell(notification("notifications/cancelled", {"requestId": ident, "reason": "no longer needed"}))
            raise
        finally:
            del self._listens[ident]

    async def tell(self, method: str, deadline: float) -> None:
        await self._write(notification(method), deadline)

    def say(self, method: str, params: Mapping[str, Any]) -> None:
        self._tell(notification(method, params))

    async def aclose(self) -> None:
        self._questions.close()
        for task in self._late:
            task.cancel()
        if self._channel is not None:
            await self._channel.stop()
        self._deadlines.close()

    # Writing.

    async def _ask(self, ident: int, line: bytes, deadline: float, relay: Relay | None) -> Envelope:
        await self._write(line, deadline, relay)
        wait = _Wait(self._loop.create_future(), deadline, relay)
        self._waits[ident] = wait
        self._deadlines.add(wait)
        try:
            return await wait.answered
        finally:
            self._waits.pop(ident, None)
            self._deadlines.discard(wait)

    async def _write(self, line: bytes, deadline: float, relay: Relay | None = None) -> None:
        channel = self._channel
        if channel is None or not channel.open:
            raise UpstreamError(await self._ending())
        if channel.congested:
            await channel.drained(deadline)
        if self.show is not None and relay is not None:  # no wait between this and the line
            self.show(relay.call.principal)
        channel.write(line + b"\n")

    async def _ending(self) -> str:
        """How the process ended; that is known a moment after its pipes are closed (half a second is waited)."""
        for _ in range(50):
            if self.lost or self._channel is None:
                break
            await asyncio.sleep(0.01)
        return self.lost or "has ended"

    def _tell(self, line: bytes) -> None:
        """Write something that may as well get lost."""
        if self._channel is not None and not self._channel.congested:
            self._channel.write(line + b"\n")

    def _respond(self, line: bytes, call: Call | None = None) -> None:
        """Answer the server; one that does not read gets its answers as long as few wait."""
        channel = self._channel
        if channel is None or not channel.open:
            return
        if not channel.congested:
            channel.write(line + b"\n")
        elif len(self._late) < MAX_LATE:
            task = asyncio.create_task(self._respond_late(line))
            self._late.add(task)
            task.add_done_callback(self._late.discard)

    async def _respond_late(self, line: bytes) -> None:
        with contextlib.suppress(UpstreamError):
            await self._write(line, self._loop.time() + GRACE)

    # Reading.

    def line(self, line: bytes) -> None:
        """The server has said something."""
        if not line or line.isspace():
            return
        try:
            messages = read_all(line) if self._era == "legacy" else (read(line),)
        except UpstreamError:
            self._log.garbled(line)
            return
        for message in messages:
            self._take(message)

    def _take(self, message: Envelope) -> None:
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
                running = self._running()
                self._questions.asked(message, whom(running, message), not running)
        elif method == "notifications/progress":
            params = params_of(message)
            wait = self._waits.get(number(params.get("progressToken")))
            if wait is not None and wait.relay is not None:
                wait.relay.progress(params)
        elif method == "notifications/message":
            self._log_message(message)
        elif method == "notifications/cancelled":
            self._questions.withdraw(message)
            self._ended(params_of(message).get("requestId"))
        elif self._listens and (hear := self._listens.get(subscription_of(message))) is not None:
            hear(method, params_of(message))
        else:
            if method in LIST_CHANGED:
                self.stale = True
                self._purpose.notice()
            self._purpose.news(method, params_of(message))

    def _ended(self, ident: object) -> None:
        """The server ends a subscription; its result may follow, or not (rule SUB-5)."""
        wait = self._waits.get(ident) if isinstance(ident, int) and ident in self._listens else None
        if wait is not None and not wait.answered.done():
            wait.answered.set_exception(UpstreamError("ended the subscription"))

    def _log_message(self, message: Envelope) -> None:
        """A log message names no call, so it goes to one only when there can be no doubt."""
        running = self._running()
        if len(running) == 1:
            running[0].log(params_of(message))
        else:
            self._purpose.news("notifications/message", params_of(message))

    def _running(self) -> list[Relay]:
        """The calls that the server has and has not answered, oldest first."""
        waits = self._waits.values()
        return [wait.relay for wait in waits if wait.relay is not None and not wait.answered.done()]

    def refused(self, line: bytes, error: CallgateError) -> None:
        """A line of ours did not get through; a request in it will have no answer."""
        message = read(line)
        wait = self._waits.get(message.id) if isinstance(message.id, int) and message.method is not None else None
        if wait is not None and not wait.answered.done():
            wait.answered.set_exception(error)

    def exited(self, reason: str) -> None:
        """There is no channel any more."""
        self.lost = reason
        for wait in tuple(self._waits.values()):
            if not wait.answered.done():
                wait.answered.set_exception(UpstreamError(reason))
        self._questions.close()
        self._purpose.notice()

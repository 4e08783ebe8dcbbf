"""The same gateway over stdin and stdout: one client, one JSON-RPC message a line.

The client's credential is ``CALLGATE_TOKEN`` in the environment; without it the caller is anonymous, where that is
allowed. Messages go through the same dispatch, pipeline, policy and audit as those over HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

from callgate.errors import CallgateError, ProtocolError, Unauthenticated
from callgate.gateway import wire
from callgate.gateway.batch import answer_batch, part
from callgate.gateway.challenge import check_audience
from callgate.gateway.dispatch import in_session, modern, notified, start_session
from callgate.gateway.inbound import Inbound, Reply, check_shape, id_of, is_response, now
from callgate.gateway.ladder import is_modern
from callgate.gateway.replies import failure
from callgate.gateway.session import Session
from callgate.types import Conduct, Principal

if TYPE_CHECKING:
    from callgate.gateway.house import House

log = logging.getLogger("callgate.stdio")

#: Calls that may still run when the client closes stdin get this long (seconds) to finish.
DRAIN = 5.0
#: Messages that may wait for a client that does not read; then its own are not read, and notifications are lost.
BEHIND = 1000


class StdioFront:
    """Serves one client until its stdin ends."""

    def __init__(self, house: House, who: Principal, door: str, pipes: tuple[BinaryIO, BinaryIO]) -> None:
        if who.audience:
            check_audience(who, door, house)
        self.house = house
        self.who = who
        self.door = door
        self.session: Session | None = None
        self._stdin, self._stdout = pipes
        self._running: dict[bytes, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._conduct = self._in_session = Conduct(self._emit)
        self._changes: asyncio.Task[None] | None = None
        self._warm: asyncio.Task[None] | None = None
        self._closed = False
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue(256)
        self._out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    async def serve(self) -> None:
        """Answer messages; the first ones wait until every server was tried once, the end of stdin for nothing."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, args=(loop,), name="stdin", daemon=True).start()
        writer = threading.Thread(target=self._write, name="stdout", daemon=True)
        writer.start()
        self._warm = loop.create_task(self.house.warmed(self.house.settings.startup_wait), name="warm")
        try:
            # No deadline: a client may be silent for as long as it lives.
            while (line := await self._lines.get()) is not None:
                self._take(line)
                while self._out.qsize() > BEHIND:
                    await asyncio.sleep(0.02)  # who does not read answers is not read either
            self._closed = True
            if self.session is not None:
                self.session.questions.fail("The client closed its end.")
            self.house.streams.end()
            await self._settle()
        finally:
            await self._end_streams()
            self._warm.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, self._warm, return_exceptions=True)
            if self.session is not None:
                self.house.sessions.end(self.session)
            self._out.put(None)
            await asyncio.to_thread(writer.join, DRAIN)

    async def _end_streams(self) -> None:
        """Open ``subscriptions/listen`` end with their results, which takes no time."""
        self.house.streams.end()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while len(self.house.streams):
                    await asyncio.sleep(0.005)

    async def _settle(self) -> None:
        """Let what runs come to its end, for at most ``DRAIN`` seconds."""
        running = self._tasks - ({self._changes} if self._changes is not None else set())
        if running:
            await asyncio.wait(running, timeout=DRAIN)

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        limit = self.house.settings.limits.max_body
        with contextlib.suppress(RuntimeError, ValueError, OSError):  # the loop or the pipe is closed
            while line := self._stdin.readline(limit + 2):
                if len(line) > limit + 1:
                    while line and not line.endswith(b"\n"):
                        line = self._stdin.readline(limit)
                    line = b"\0"  # not JSON: answered as unreadable
                asyncio.run_coroutine_threadsafe(self._lines.put(line), loop).result()
            asyncio.run_coroutine_threadsafe(self._lines.put(None), loop).result()

    def _write(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while (message := self._out.get()) is not None:
                self._stdout.write(message + b"\n")
                self._stdout.flush()

    def _send(self, message: bytes) -> None:
        if message:
            self._out.put(message.replace(b"\n", b" ") if b"\n" in message else message)

    def _emit(self, message: bytes) -> bool:
        """A notification: one that the client is too slow for is not sent (false), the answer always is."""
        if self._out.qsize() > BEHIND:
            return False
        self._send(message)
        return True

    def _say(self, message: bytes) -> bool:
        """A question: it is never lost while there is a client."""
        self._send(message)
        return not self._closed

    def _take(self, line: bytes) -> None:
        if not line.strip():
            return
        message: Any = None
        try:
            message = wire.read(line.strip(), self.house.settings.limits.max_depth)
            if is_response(message):
                if self.session is not None:
                    self.session.questions.answered(message)
                return
            if not isinstance(message, list):
                check_shape(message)
        except CallgateError as error:
            self._send(failure(id_of(message), error, modern=False).body)
            return
        if isinstance(message, list):
            self._begin(self._answer(message, len(line)))
        elif "id" not in message:
            self._notified(message)
        else:
            self._request(message, len(line))

    def _request(self, message: dict[str, Any], size: int) -> None:
        key = wire.encode(message["id"])
        if key in self._running:
            problem = ProtocolError("A request with this id is still running.")
            self._send(failure(message["id"], problem, modern=False).body)
            return
        task = self._running[key] = self._begin(self._answer(message, size))
        task.add_done_callback(lambda _: self._running.pop(key))

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _notified(self, message: dict[str, Any]) -> None:
        if message["method"] == "notifications/cancelled":
            params = message.get("params") or {}
            key = wire.encode(params.get("requestId"))
            task = self._running.get(key) or (self.session.running.get(key) if self.session is not None else None)
            if task is not None:
                task.cancel()
        elif self.session is not None:
            notified(message, self.session, self.house)

    async def _answer(self, message: Any, size: int) -> None:
        try:
            if self._warm is not None and not self._warm.done():
                await asyncio.shield(self._warm)
            if not self.house.recogniser.left(self.who):  # on every request anew (rule RS-9)
                expired = Unauthenticated("The token does not hold any more.", hint="Start again with a new one.")
                self.house.refusals.stranger(expired, self.door)
                raise expired
            inbound = Inbound(message, self.who, self.door, size, now(), None, self.session, self._conduct)
            reply = await self._reply(inbound)
            self._send(reply.body)
        except CallgateError as error:
            self._send(failure(id_of(message), error, modern=False).body)
        except Exception:
            log.exception("a request could not be answered")
            problem = ProtocolError("Internal error.", wire.INTERNAL_ERROR)
            self._send(failure(id_of(message), problem, modern=False).body)

    async def _reply(self, inbound: Inbound) -> Reply:
        message: Any = inbound.message
        if isinstance(message, list):
            if self.session is None:
                raise ProtocolError("Batches belong to a session; send `initialize` first.")
            inbound.conduct = self._in_session
            return await answer_batch(message, self.session, lambda each: part(inbound, each), self.house)
        if is_modern(message, None) or message["method"] == "server/discover":
            return await modern(inbound, self.house)
        if message["method"] == "initialize":
            await self.house.personal.prepare(self.who, self.door)
            return self._open(inbound)
        if self.session is None:
            raise ProtocolError("Send `initialize` first, or speak 2026-07-28.")
        inbound.conduct = self._in_session
        return await in_session(inbound, self.house)

    def _open(self, inbound: Inbound) -> Reply:
        if self.session is not None:
            raise ProtocolError("The session is already open.")
        self.session, reply = start_session(inbound, self.house, transport="stdio")
        if self.session.askable:
            ask = partial(self.session.questions.ask, self.session.front.capabilities, self._say)
            self._in_session = Conduct(self._emit, ask)
        self._changes = self._begin(self._forward_changes(self.session))
        return reply

    async def _forward_changes(self, session: Session) -> None:
        """Notifications for the legacy session (``list_changed``)."""
        changes = session.listen()
        # No deadline: nothing may ever change.
        while (event := await changes.get()) is not None:
            self._emit(event[1])

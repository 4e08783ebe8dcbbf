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
from typing import TYPE_CHECKING, Any, BinaryIO

from callgate.errors import CallgateError, ProtocolError
from callgate.gateway import wire
from callgate.gateway.dispatch import (
    Inbound,
    Reply,
    check_shape,
    failure,
    is_response,
    legacy,
    modern,
    now,
    start_session,
)
from callgate.gateway.ladder import is_modern
from callgate.gateway.session import Session
from callgate.types import Principal

if TYPE_CHECKING:
    from callgate.gateway.house import House

log = logging.getLogger("callgate.stdio")

#: Calls that may still run when the client closes stdin get this long (seconds) to finish.
DRAIN = 5.0


class StdioFront:
    """Serves one client until its stdin ends."""

    def __init__(self, house: House, who: Principal, door: str, pipes: tuple[BinaryIO, BinaryIO]) -> None:
        self.house = house
        self.who = who
        self.door = door
        self.session: Session | None = None
        self._stdin, self._stdout = pipes
        self._running: dict[bytes, asyncio.Task[None]] = {}
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue(256)
        self._out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, args=(loop,), name="stdin", daemon=True).start()
        writer = threading.Thread(target=self._write, name="stdout", daemon=True)
        writer.start()
        changes = loop.create_task(self._forward_changes())
        # No deadline: a client may be silent for as long as it lives.
        while (line := await self._lines.get()) is not None:
            await self._take(line)
        changes.cancel()
        if self._running:
            await asyncio.wait(self._running.values(), timeout=DRAIN)
        for task in self._running.values():
            task.cancel()
        if self.session is not None:
            self.house.sessions.end(self.session)
        self._out.put(None)
        await asyncio.to_thread(writer.join, DRAIN)

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

    async def _take(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            message = wire.read(line.strip(), self.house.settings.limits.max_depth)
            if isinstance(message, list):
                raise ProtocolError("Batches are not accepted on stdio.")
            if is_response(message):
                return  # an answer to a request of ours; there are none yet
            check_shape(message)
        except CallgateError as error:
            self._send(failure(None, error, modern=False).body)
            return
        key = wire.encode(message["id"]) if "id" in message else b""
        if key == b"":
            self._notified(message)
        elif key in self._running:
            problem = ProtocolError("A request with this id is still running.")
            self._send(failure(message["id"], problem, modern=False).body)
        else:
            task = asyncio.get_running_loop().create_task(self._answer(message, len(line), key))
            self._running[key] = task

    def _notified(self, message: dict[str, Any]) -> None:
        if message["method"] == "notifications/cancelled":
            params = message.get("params") or {}
            task = self._running.get(wire.encode(params.get("requestId")))
            if task is not None:
                task.cancel()
        elif message["method"] == "notifications/initialized" and self.session is not None:
            self.session.initialized = True

    async def _answer(self, message: dict[str, Any], size: int, key: bytes) -> None:
        try:
            inbound = Inbound(message, self.who, self.door, size, now(), None, self.session, self._send)
            reply = await self._reply(inbound)
            self._send(reply.body)
        except CallgateError as error:
            self._send(failure(message["id"], error, modern=False).body)
        except Exception:
            log.exception("a request could not be answered")
            problem = ProtocolError("Internal error.", wire.INTERNAL_ERROR)
            self._send(failure(message["id"], problem, modern=False).body)
        finally:
            del self._running[key]

    async def _reply(self, inbound: Inbound) -> Reply:
        if is_modern(inbound.message, None) or inbound.message["method"] == "server/discover":
            return await modern(inbound, self.house)
        if inbound.message["method"] == "initialize":
            if self.session is not None:
                raise ProtocolError("The session is already open.")
            self.session, reply = start_session(inbound, self.house, transport="stdio")
            return reply
        if self.session is None:
            raise ProtocolError("Send `initialize` first, or speak 2026-07-28.")
        return await legacy(inbound, self.house)

    async def _forward_changes(self) -> None:
        """Notifications for the legacy session (``list_changed``)."""
        changes: asyncio.Queue[bytes | None] = asyncio.Queue(64)
        while self.session is None:
            await asyncio.sleep(0.2)
        self.session.streams.add(changes)
        while (message := await changes.get()) is not None:
            self._send(message)

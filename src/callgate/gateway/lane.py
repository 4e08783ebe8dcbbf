"""The fast lane: a uvicorn protocol that takes POSTs on MCP endpoints itself and leaves all else to Starlette.

One connection is one ``Lane``; one POST on it is one ``Turn``. Turns and ASGI requests of a connection share
uvicorn's queue, so that pipelined requests are answered in order. Every request, whoever answers it, passes
``gate.admit`` (Host, Origin, header limits) here, at the one place where requests come in.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from callgate.gateway.gate import Refusal, admit
from callgate.gateway.turn import Turn

if TYPE_CHECKING:
    from callgate.gateway.front import FrontDesk

#: A refused connection is read and discarded for this long, so that the client sees the answer and not a reset.
LINGER = 1.0
DISCARD = 4 * 1024 * 1024

IDLE, HEADERS, BODY, BUSY, CLOSING = range(5)


class Lane(HttpToolsProtocol):
    """One client connection. ``desk`` answers; ``since`` and ``state`` are what the sweep looks at."""

    desk: FrontDesk
    cycle: Any  # a Turn or one of uvicorn's request cycles

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self.state = IDLE
        self.since = self.loop.time()
        self.stalled = 0.0
        self.head_bytes = 0
        self.discarded = 0
        self.turn: Turn | None = None
        if len(self.connections) > self.desk.limits.max_connections:
            self.refuse(Refusal(503, "Too many connections."))

    def connection_lost(self, exc: Exception | None) -> None:
        lost = [self.cycle, *(cycle for cycle, _ in self.pipeline)]
        super().connection_lost(exc)
        for cycle in lost:
            if isinstance(cycle, Turn):
                cycle.lost()

    def data_received(self, data: bytes) -> None:
        if self.state == CLOSING:
            self.discarded += len(data)
            if self.discarded > DISCARD:
                self.transport.abort()
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.refuse(Refusal(400, "This endpoint does not upgrade connections."))
        except httptools.HttpParserError:
            self.refuse(Refusal(400, "The request is not valid HTTP."))
        if self.state == HEADERS:
            self.head_bytes += len(data)
            if self.head_bytes > self.desk.limits.max_header_bytes:
                self.refuse(Refusal(431, "The headers are too large."))

    # What the parser reports

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self.turn = None
        self.head_bytes = 0
        if self.state != CLOSING:
            self.state = HEADERS
            self.since = self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self.state == CLOSING:
            return
        self.state = BODY
        self.since = self.loop.time()
        refusal = admit(self.headers, len(self.url), self.desk)
        if refusal is not None:
            self.refuse(refusal)
            return
        door = self.desk.door(self.url) if self.parser.get_method() == b"POST" else None
        if door is None:
            self._leave_to_asgi()
            return
        self._take_turn(door)

    def on_body(self, body: bytes) -> None:
        if self.state == CLOSING:
            return
        if self.turn is None:
            self._asgi_body(body)
        elif not self.turn.add(body):
            self.refuse(Refusal(413, f"The body is larger than {self.desk.limits.max_body} bytes."))

    def on_message_complete(self) -> None:
        if self.state == CLOSING:
            return
        self.state = BUSY
        if self.turn is None:
            super().on_message_complete()
        else:
            self.turn.completed()

    # Turns

    def _take_turn(self, door: str) -> None:
        keep_alive = self.parser.get_http_version() == "1.1" and self.parser.should_keep_alive()
        self.turn = turn = Turn(self, door, dict(self.headers), keep_alive)
        before, self.cycle = self.cycle, turn
        if before is None or before.response_complete:
            turn.start()
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((turn, None))  # type: ignore[arg-type]

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if isinstance(cycle, Turn):
            cycle.start()
        else:
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self.state == BUSY:
            self.state = IDLE
            self.since = self.loop.time()

    def _leave_to_asgi(self) -> None:
        url, headers, expects = self.url, self.headers, self.desk.expects_continue(self.headers)
        super().on_message_begin()
        self.url = url
        self.headers.extend(headers)
        self.expect_100_continue = expects
        super().on_headers_complete()

    def _asgi_body(self, body: bytes) -> None:
        if len(self.cycle.body) + len(body) > self.desk.limits.max_body:
            self.refuse(Refusal(413, f"The body is larger than {self.desk.limits.max_body} bytes."))
        else:
            super().on_body(body)

    # Closing

    def refuse(self, refusal: Refusal) -> None:
        """Answer a request that is not let in, and close the connection without losing the answer."""
        if self.state == CLOSING or self.transport.is_closing():
            return
        self.state = CLOSING
        self.since = self.loop.time()
        for cycle in (self.cycle, *(cycle for cycle, _ in self.pipeline)):
            if isinstance(cycle, Turn):
                cycle.lost()
        self.pipeline.clear()
        self.desk.refused(refusal)
        self.transport.write(refusal.response())
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def shutdown(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self.cycle.keep_alive = False

    def pause_writing(self) -> None:
        super().pause_writing()
        self.stalled = self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.stalled = 0.0

    def sweep(self, now: float) -> None:
        """Called about every second: end what has waited too long."""
        limits, waited = self.desk.limits, now - self.since
        if self.stalled and now - self.stalled > limits.body_timeout:
            self.transport.abort()
        elif self.state == CLOSING:
            if waited > LINGER:
                self.transport.abort()
        elif self.state == HEADERS and waited > limits.header_timeout:
            self.refuse(Refusal(408, "The headers did not arrive in time."))
        elif self.state == BODY and waited > limits.body_timeout:
            self.refuse(Refusal(408, "The body did not arrive in time."))
        elif self.state == IDLE and waited > limits.idle_timeout:
            self.transport.close()
        elif isinstance(self.cycle, Turn):
            self.cycle.keep_warm(now)

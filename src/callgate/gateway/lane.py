"""The fast lane: a uvicorn protocol that takes POSTs on MCP endpoints itself and leaves all else to Starlette.

One connection is one ``Lane``; one POST on it is one ``Turn``. Turns and ASGI requests of a connection share
uvicorn's queue, so that pipelined requests are answered in order. Every request, whoever answers it, passes
``gate.admit`` (Host, Origin, header limits) here, at the one place where requests come in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from callgate.gateway.gate import Refusal, admit
from callgate.gateway.heads import Head, Heads
from callgate.gateway.turn import Turn

if TYPE_CHECKING:
    from callgate.gateway.front import FrontDesk

#: A refused connection is read and discarded for this long, so that the client sees the answer and not a reset.
LINGER = 1.0
DISCARD = 4 * 1024 * 1024
#: A chunked body may take this many times ``max_body`` on the wire (chunks of one byte take six bytes each).
CHUNKED = 8
#: So many requests, with bodies of this size (bytes), may wait behind the one that is being answered; then the
#: connection is not read, and whether the client is still there is not known before something is written.
WAITING = 8
SMALL = 64 * 1024
#: A client that is behind has to read this much (bytes) between two sweeps to count as reading.
PROGRESS = 1024

SPOKEN = ("1.1", "1.0")

IDLE, HEADERS, BODY, BUSY, CLOSING = range(5)


class Lane(HttpToolsProtocol):
    """One client connection. ``state`` says what is being read, ``since`` when that began (for the sweep).

    ``cycle`` is the request that came last, ``active`` the one that is being answered, ``reading`` the one whose
    body is still coming in. Those between ``active`` and ``cycle`` wait in ``pipeline``.
    """

    desk: FrontDesk
    cycle: Any  # a Turn or one of uvicorn's request cycles

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self.state = IDLE
        self.since = self.loop.time()
        self.stalled = 0.0
        self.backlog = 0
        self.first = self.head_bytes = self.body_bytes = self.chunk = self.discarded = self.asgi_bytes = 0
        self.active: Any = None
        self.reading: Any = None
        self.turn: Turn | None = None
        self.heads = Heads()
        self.offered = b""
        self.last_word: Refusal | None = None
        if len(self.connections) > self.desk.limits.max_connections:
            self.refuse(Refusal(503, "Too many connections."))

    def connection_lost(self, exc: Exception | None) -> None:
        lost = [self.active, *(cycle for cycle, _ in self.pipeline)]
        self.pipeline.clear()
        super().connection_lost(exc)
        for cycle in lost:
            _abandon(cycle)

    def data_received(self, data: bytes) -> None:
        if self.state == IDLE and not self.flow.write_paused:
            known = self.heads.find(data)
            if known is not None:
                self._take_turn_again(*known)
                return
            self.offered = data
        self.chunk = len(data)
        if self.state == CLOSING:
            self.discarded += self.chunk
            if self.discarded > DISCARD:
                self.transport.abort()
            return
        if self.state == HEADERS:
            self.head_bytes += self.chunk
        elif self.state == BODY:
            self.body_bytes += self.chunk
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # refused when its headers were complete
        except httptools.HttpParserError:
            self.refuse(Refusal(400, "The request is not valid HTTP."))
        limits = self.desk.limits
        if self.state == HEADERS and self.head_bytes > limits.max_header_bytes:
            self.refuse(Refusal(431, "The headers are too large."))
        elif self.state == BODY and self.body_bytes > CHUNKED * limits.max_body + limits.max_header_bytes:
            self.refuse(Refusal(413, f"The body is larger than {limits.max_body} bytes."))

    # What the parser reports

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self.turn = self.reading = None
        self.first, self.head_bytes, self.body_bytes = self.chunk, 0, 0
        if self.state != CLOSING:
            self.state = HEADERS
            self.since = self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.state == HEADERS:  # trailers are no headers
            self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        if self.state == CLOSING:
            return
        self.state = BODY
        self.since = self.loop.time()
        by_name = dict(self.headers)
        method = self.parser.get_method()
        refusal = admit(self.headers, by_name, self._head_size(), self.desk)
        if self.parser.get_http_version() not in SPOKEN:
            refusal = Refusal(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
        elif refusal is None and self.parser.should_upgrade():
            # The offer might be ignored, but the parser takes the body for the other protocol then.
            refusal = Refusal(400, "This endpoint does not upgrade connections, and is no proxy.")
        if refusal is not None:
            self.refuse(refusal)
            return
        door = self.desk.door(self.url) if method == b"POST" else None
        if door is None:
            self._leave_to_asgi()
        else:
            if self.offered:
                self.heads.remember(self.offered, door, self.headers, self.desk.limits.max_body)
            self._take_turn(door, by_name)
        self.offered = b""

    def _head_size(self) -> int:
        """Bytes of request line and headers; a rough upper bound where that is small enough to tell."""
        most = self.first + self.head_bytes
        if most <= self.desk.limits.max_header_bytes:
            return most
        return len(self.url) + sum([len(name) + len(value) for name, value in self.headers])

    def on_body(self, body: bytes) -> None:
        if self.state == CLOSING:
            return
        if self.turn is None:
            self._asgi_body(body)
        elif not self.turn.add(body):
            self.refuse(Refusal(413, f"The body is larger than {self.desk.limits.max_body} bytes."))
        elif self.desk.held and self.turn.size > SMALL and self.desk.crowded:
            self.refuse(Refusal(503, "Too many large bodies are on their way."))
        elif self.turn is not self.active and self.turn.size > SMALL:
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        if self.state == CLOSING:
            return
        self.state = BUSY
        self.reading = None
        if self.turn is None:
            super().on_message_complete()
            self._rest()
        else:
            self.turn.completed()

    # Turns

    def _take_turn(self, door: str, headers: Mapping[bytes, bytes]) -> None:
        current = self.parser.get_http_version() == "1.1"
        turn = Turn(self, door, headers, current and self.parser.should_keep_alive())
        turn.chunks = current
        waits = self.pipeline or (self.cycle is not None and not self.cycle.response_complete)
        self.turn = self.reading = self.cycle = turn
        if waits or self.flow.write_paused:
            self.pipeline.appendleft((turn, None))  # type: ignore[arg-type]
            if len(self.pipeline) >= WAITING or self.flow.write_paused:
                self.flow.pause_reading()
        else:
            self._start_asgi_task(turn, None)

    def _take_turn_again(self, head: Head, body: bytes) -> None:
        """A request whose head is known, on a connection that rests: nothing to parse, nothing to wait for."""
        self.state = BUSY
        self.turn = self.cycle = self.active = turn = Turn(self, head.door, head.headers, True)
        turn.whole(body)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self.active = cycle
        if isinstance(cycle, Turn):
            cycle.start()
        else:
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        self.active = None
        if not self.transport.is_closing():
            self._go_on()

    def _go_on(self) -> None:
        """Nothing is being answered: begin with the next request, once the client has read the last answer."""
        if self.flow.write_paused:
            self.flow.pause_reading()  # ``resume_writing`` comes back here
        elif self.pipeline:
            self.loop.call_soon(self._start_next)  # soon: many short answers must not nest
        elif self.last_word is not None:
            self._say_last_word()
        else:
            if self.flow.read_paused:
                self._read_on()
            self._rest()

    def _start_next(self) -> None:
        if self.active is None and self.pipeline and not (self.flow.write_paused or self.transport.is_closing()):
            cycle, app = self.pipeline.pop()
            if not self.pipeline and self.flow.read_paused:
                self._read_on()
            self._start_asgi_task(cycle, app)

    def _read_on(self) -> None:
        self.since = self.loop.time()  # what the client could not send meanwhile is not late
        self.flow.resume_reading()

    def _rest(self) -> None:
        if self.state == BUSY and self.active is None and not self.pipeline:
            self.state = IDLE
            self.since = self.loop.time()

    def _leave_to_asgi(self) -> None:
        url, headers, expects = self.url, self.headers, self.desk.expects_continue(self.headers)
        super().on_message_begin()
        self.url = url
        self.headers.extend(headers)
        self.expect_100_continue = expects
        self.asgi_bytes = 0
        super().on_headers_complete()
        self.reading = self.cycle

    def _asgi_body(self, body: bytes) -> None:
        self.asgi_bytes += len(body)  # not what waits to be read: the application reads while more comes
        if self.asgi_bytes > self.desk.limits.max_body:
            self.refuse(Refusal(413, f"The body is larger than {self.desk.limits.max_body} bytes."))
        else:
            super().on_body(body)

    # Closing

    def refuse(self, refusal: Refusal) -> None:
        """Refuse what is being read: the requests before it are answered first, then the connection ends."""
        if self.state == CLOSING or self.transport.is_closing():
            return
        self.state = CLOSING
        self.last_word = refusal
        self.desk.refused(refusal)
        refused, self.reading = self.reading, None
        if refused is not None:
            _abandon(refused)
            if refused is self.active:
                self.active = None
            elif self.pipeline and self.pipeline[0][0] is refused:
                self.pipeline.popleft()
            if refused.response_complete or getattr(refused, "response_started", False):
                self.last_word = None  # it has its answer, or half of it
        if self.active is None and not self.pipeline:
            self._say_last_word()
        else:
            self.flow.resume_reading()  # to see the client go; what comes is discarded

    def _say_last_word(self) -> None:
        """Write the refusal and close the connection without losing it."""
        refusal, self.last_word = self.last_word, None
        self.since = self.loop.time()
        if refusal is not None:
            self.transport.write(refusal.response())
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def shutdown(self) -> None:
        if self.active is None and not self.pipeline:
            self.transport.close()
        else:
            self.cycle.keep_alive = False

    def pause_writing(self) -> None:
        super().pause_writing()
        self.stalled = self.loop.time()
        self.backlog = self.transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.stalled = 0.0
        if self.active is None and not self.transport.is_closing():
            self._go_on()

    def sweep(self, now: float) -> None:
        """Called about every second: end what has waited too long."""
        limits, waited = self.desk.limits, 0.0 if self.flow.read_paused else now - self.since
        if self.stalled and self._unread_for(now) > limits.body_timeout:
            self.transport.abort()
        elif self.state == CLOSING and self.active is None and not self.pipeline:
            if waited > LINGER:
                self.transport.abort()
        elif self.state == HEADERS and waited > limits.header_timeout:
            self.refuse(Refusal(408, "The headers did not arrive in time."))
        elif self.state == BODY and waited > limits.body_timeout:
            self.refuse(Refusal(408, "The body did not arrive in time."))
        elif self.state == IDLE and waited > limits.idle_timeout:
            self.transport.close()
        elif isinstance(self.active, Turn):
            self.active.keep_warm(now)

    def _unread_for(self, now: float) -> float:
        """Seconds since the client last read something worth mentioning."""
        left = self.transport.get_write_buffer_size()
        if left <= self.backlog - PROGRESS:
            self.stalled = now
        self.backlog = left
        return now - self.stalled


def _abandon(cycle: Any) -> None:
    """Nobody waits for the answer to this request any more."""
    if isinstance(cycle, Turn):
        cycle.lost()
    elif cycle is not None:
        cycle.disconnected = True
        cycle.message_event.set()

"""One POST on an MCP endpoint: gathers the body, has it answered, writes the response.

The response is one JSON object, or, from the first notification on, an event stream that ends with it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from callgate.gateway.inbound import Reply
from callgate.gateway.replay import PRIMED, RETRY, Tape

if TYPE_CHECKING:
    from callgate.gateway.lane import Lane
    from callgate.gateway.session import Session

STATUS_LINES = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in HTTPStatus}
JSON_OK = STATUS_LINES[200] + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
CALL_OK = STATUS_LINES[200] + b"content-type: application/json\r\ncallgate-call-id: %b\r\ncontent-length: %d\r\n\r\n%b"
STREAM_OK = (
    STATUS_LINES[200] + b"content-type: text/event-stream\r\ncache-control: no-cache, no-transform\r\n"
    b"x-accel-buffering: no\r\ntransfer-encoding: chunked\r\n"
)
#: The gate let this Origin in, so its pages may read the answer.
ALLOW_ORIGIN = (
    b"access-control-allow-origin: %b\r\nvary: origin\r\n"
    b"access-control-expose-headers: mcp-session-id, callgate-call-id, www-authenticate, dpop-nonce, "
    b"retry-after, ratelimit-policy, ratelimit\r\n"
)
EVENT = b"event: message\ndata: %b\n\n"
KEPT_EVENT = b"id: %b\nevent: message\ndata: %b\n\n"
#: Tells a client the id with which it may come back before anything was said.
PRIME = b"id: %b\nretry: %d\ndata: \n\n"
#: A reader this far behind loses progress and log messages, never the answer.
BEHIND = 1024 * 1024
#: Bodies above this size (bytes) count towards what the listener holds (``front.HELD``).
LARGE = 64 * 1024
#: An open event stream gets a comment this often (seconds), against idle timeouts on the way (rule HTTP-7).
WARM = 15.0


class Turn:
    """A request and its response on one connection. Looks to uvicorn like one of its own request cycles.

    ``id`` is the JSON-RPC id, once it is read; ``chunks`` says whether the client's HTTP version knows chunks, which
    event streams need; ``survives`` that the request goes on when the client is gone. ``session`` is the legacy session
    whose client may come back for the rest of an event stream, which is kept on ``tape`` from its beginning.
    """

    # What most requests leave as it is stands here: a call makes one turn.
    response_complete = disconnected = streaming = survives = False
    chunks = True
    id: Any = None
    size = _held = 0
    task: asyncio.Task[None] | None = None
    session: Session | None = None
    tape: Tape | None = None
    _started = _complete = False
    _written = 0.0
    _extra = b""

    def __init__(self, lane: Lane, door: str, headers: Mapping[bytes, bytes], keep_alive: bool) -> None:
        self.lane = lane
        self.door = door
        self.headers = headers
        self.keep_alive = keep_alive
        self.message_event = NEVER
        self._body: list[bytes] = []
        if b"origin" in headers:
            self._extra = ALLOW_ORIGIN % headers[b"origin"]

    def start(self) -> None:
        """It is this request's turn to be answered."""
        self._started = True
        if self._complete:
            self._serve()
        elif self.headers.get(b"expect", b"").lower() == b"100-continue":
            self.lane.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def whole(self, body: bytes) -> None:
        """The request is there at once, on a connection that rests: nothing to wait for. ``body`` is no larger than
        what ``Heads`` remembers lengths of."""
        self._started = self._complete = True
        self.size = len(body)
        self.task = begin(self.lane.loop, self.lane.desk.serve(self, body))

    def add(self, chunk: bytes) -> bool:
        """Take a piece of the body; false when there is too much of it."""
        self.size += len(chunk)
        self._body.append(chunk)
        if self.size > LARGE:
            self.lane.desk.held += self.size - self._held
            self._held = self.size
        return self.size <= self.lane.desk.limits.max_body

    def _let_go(self) -> None:
        self.lane.desk.held -= self._held
        self._held = 0

    def completed(self) -> None:
        self._complete = True
        if self._started:
            self._serve()

    def _serve(self) -> None:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        lane = self.lane
        if self._held:
            self._let_go()
        # ``serve`` handles every error, and the turn holds the task: it needs no callback when it is done.
        self.task = begin(lane.loop, lane.desk.serve(self, body))

    def lost(self) -> None:
        """The client is gone. In the modern era that cancels the request; in the legacy era it does not (HTTP-14)."""
        self.disconnected = True
        self._let_go()
        if self.tape is not None:
            self.tape.left(self)
        self._part()
        if self.task is not None and not self.survives:
            self.task.cancel()

    def _part(self) -> None:
        """The request goes on, or ends, without its connection."""
        task = self.task
        if task is None or task.done():
            return
        # Nobody else waits for it any more, so the listener does when it closes.
        self.lane.tasks.add(task)
        task.add_done_callback(self.lane.tasks.discard)

    # Writing

    def emit(self, message: bytes) -> bool:
        """Send a notification before the answer; the response becomes an event stream. False when its reader is too far
        behind: it was not sent.
        """
        transport = self.lane.transport
        if self.lane.flow.write_paused and transport.get_write_buffer_size() > BEHIND and not self.disconnected:
            return False
        self.say(message)
        return True

    def say(self, message: bytes) -> bool:
        """Send what must not be lost; false when the client is gone and cannot come back for it."""
        if self.tape is None:
            if self.disconnected or self.response_complete:
                return False
            if not self.streaming:
                self.open_stream()
        if self.tape is not None:
            self.tape.say(message)
        else:
            self._event(EVENT % message)
        return True

    def open_stream(self) -> None:
        self.streaming = True
        close = b"" if self.keep_alive else b"connection: close\r\n"
        self.lane.transport.write(STREAM_OK + self._extra + close + b"\r\n")
        if self.session is not None:
            self.tape = self.session.tapes.begin()
            self.tape.reader = self
            if self.session.version in PRIMED:
                self._event(PRIME % (self.tape.last.encode(), RETRY))

    def hear(self, id: str, message: bytes) -> None:
        """Write an event of the tape."""
        self._event(KEPT_EVENT % (id.encode(), message))

    def cut(self) -> None:
        """The tape has ended, or the client goes on reading it elsewhere: the response is complete."""
        self._part()
        self._end_stream(b"")
        self._done()

    def _event(self, event: bytes) -> None:
        self.lane.transport.write(b"%x\r\n%b\r\n" % (len(event), event))
        self._written = self.lane.loop.time()

    def keep_warm(self, now: float) -> None:
        """Called about every second. A client that waits long for its first event gets an id to come back with."""
        if not self.streaming and self.session is None:
            return
        if not self._written:
            self._written = now
        if not self.lane.flow.write_paused and now - self._written > WARM:
            self._written = now
            if self.streaming:
                self.lane.transport.write(b"3\r\n:\n\n\r\n")
            else:
                self.open_stream()

    def finish(self, reply: Reply) -> None:
        """Write the answer and give the connection to the next request."""
        if self.tape is not None:
            self.tape.end(_one_line(reply.body))
            return
        if self.disconnected or self.response_complete:
            return
        if self.streaming:
            self._end_stream(reply.body)
        else:
            self.lane.transport.write(self._plain(reply))
        self._done()

    def _end_stream(self, body: bytes) -> None:
        if body:
            self._event(EVENT % _one_line(body))
        self.lane.transport.write(b"0\r\n\r\n")

    def answer(self, status: int, body: bytes = b"", headers: bytes = b"") -> None:
        """Write a response that is not a reply to a message (401, 415 …)."""
        if self.tape is not None:
            self.tape.end(_one_line(body))
            return
        if self.disconnected or self.response_complete:
            return
        if self.streaming:  # the status has left long ago
            self._end_stream(body)
        else:
            content = b"content-type: application/json\r\n" if body else b""
            extra = content + headers + self._extra + (b"" if self.keep_alive else b"connection: close\r\n")
            head = b"%b%bcontent-length: %d\r\n\r\n" % (STATUS_LINES[status], extra, len(body))
            self.lane.transport.write(head + body)
        self._done()

    def _plain(self, reply: Reply) -> bytes:
        body = reply.body
        if reply.status == 200 and self.keep_alive and not (reply.session or self._extra) and body:
            if reply.call:
                return CALL_OK % (reply.call.encode(), len(body), body)
            return JSON_OK % (len(body), body)
        extra = self._extra
        if reply.call:
            extra += b"callgate-call-id: %b\r\n" % reply.call.encode()
        if reply.session:
            extra += b"mcp-session-id: %b\r\n" % reply.session.encode()
        if reply.challenge:
            extra += b"www-authenticate: %b\r\n" % reply.challenge.encode()
        extra += reply.headers
        if not self.keep_alive:
            extra += b"connection: close\r\n"
        if body:
            extra += b"content-type: application/json\r\n"
        return b"%b%bcontent-length: %d\r\n\r\n%b" % (STATUS_LINES[reply.status], extra, len(body), body)

    def _done(self) -> None:
        self.response_complete = True
        if not self.keep_alive:
            self.lane.transport.close()
        self.lane.on_response_complete()


def begin(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task that runs to its first wait at once, where Python can (3.12): a list or a ping is done by then."""
    if sys.version_info >= (3, 12):
        return asyncio.Task(work, loop=loop, eager_start=True)
    return loop.create_task(work)


class _Never:
    """uvicorn sets this event when a connection is lost; a turn has nobody waiting for it."""

    def set(self) -> None:
        pass


NEVER = _Never()


def _one_line(body: bytes) -> bytes:
    return body.replace(b"\n", b" ").replace(b"\r", b" ") if b"\n" in body or b"\r" in body else body

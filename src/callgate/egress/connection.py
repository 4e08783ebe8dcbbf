"""One connection: writes a request in one piece, parses one response, and knows whether it may be used again."""

from __future__ import annotations

import asyncio
import math
import re
import ssl
from typing import Protocol, cast

import httptools
import msgspec

from callgate.errors import UpstreamError, UpstreamTimeout

from .deadlines import Deadlines
from .response import Response
from .sse import EventStream

LINGER = 1.0


class Bounds(msgspec.Struct, frozen=True, gc=False):
    """Bytes accepted for the head of a response, and for its body (or one event of it)."""

    head: int = 64 * 1024
    body: int = 16 * 1024 * 1024


class Lost(UpstreamError):
    """The connection ended while a response was awaited. ``heard``: a byte of it had arrived. ``unread``: the
    peer reset the connection, which a kernel does when data was never read by the peer's process.
    """

    heard = False
    unread = False


class Owner(Protocol):
    def release(self, connection: Connection) -> None:
        """The response is complete and the connection clean."""

    def lost(self, connection: Connection) -> None:
        """The connection is gone or will be; called once."""


class Connection(asyncio.Protocol):
    """At most one request at a time. A response that breaks a bound or the grammar, bytes that nobody asked
    for, and a caller that gives up all close the connection, so that a dirty one is never used again.
    """

    def __init__(self, owner: Owner, bounds: Bounds, deadlines: Deadlines) -> None:
        self._owner = owner
        self._bounds = bounds
        self._deadlines = deadlines
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Response] | None = None
        self._stream: EventStream | None = None
        self._response: Response | None = None
        self._headers: dict[bytes, bytes] = {}
        self._chunks: list[bytes] = []
        self._size = 0
        self._framing = 0  # bytes since the last byte of a body: headers, chunk sizes, trailers
        self._busy = self._in_body = self._complete = self._wants_events = self._keep = self._discard = False
        self._head_only = False
        self.heard = self.closed = False
        self.served = 0
        self.idle_until = 0.0
        self.deadline = 0.0

    # The caller's side.

    def send(self, data: bytes, deadline: float, events: bool) -> asyncio.Future[Response]:
        """Write one request. The future gets the response, or its head when that announces events."""
        assert self._transport is not None
        self._busy = True
        self._wants_events = events
        self._in_body = self._complete = self.heard = self._discard = False
        self._framing = 0
        self.deadline = deadline
        if deadline < math.inf:
            self._deadlines.add(self)
        self._waiter = waiter = self._loop.create_future()
        self._transport.write(data)
        return waiter

    async def tunnel(self, data: bytes, deadline: float) -> int:
        """Send a CONNECT request and return the status of the answer; afterwards the bytes are no longer HTTP."""
        self._head_only = True
        try:
            return (await self.send(data, deadline, False)).status
        finally:
            self._head_only = self._busy = False
            self._deadlines.discard(self)
            self._parser = httptools.HttpResponseParser(self)

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        assert self._transport is not None
        transport = await self._loop.start_tls(self._transport, self, context, server_hostname=host)
        if transport is None:
            raise ConnectionResetError("connection closed")
        self._transport = transport

    def close(self) -> None:
        """Close in order; a running response fails."""
        self._fail(UpstreamError("is being shut down"))

    def abort(self) -> None:
        """Close now and forget the response."""
        self._deadlines.discard(self)
        self._busy = False
        if self._transport is not None:
            self._transport.abort()
        self._gone()

    def expire(self) -> None:
        self._fail(UpstreamTimeout("did not answer in time"))

    @property
    def keep_alive(self) -> float | None:
        """How long the peer said that it keeps an idle connection, in seconds."""
        told = self._headers.get(b"keep-alive")
        found = re.search(rb"timeout=(\d{1,6})", told) if told else None
        return float(found[1]) if found else None

    # The stream's side (sse.Source).

    def pause(self) -> None:
        if self._transport is not None and not self.closed:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self.closed:
            self._transport.resume_reading()

    def abandon(self) -> None:
        self.abort()

    def linger(self) -> None:
        self._stream = None
        self._discard = True
        self.resume()
        self.deadline = min(self.deadline, self._loop.time() + LINGER)

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not subclasses

    def data_received(self, data: bytes) -> None:
        if not self._busy:
            self.abort()
            return
        self.heard = True
        self._framing += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(UpstreamError("switched to another protocol"))
        except httptools.HttpParserError as error:
            if self._busy:
                self._fail(UpstreamError(f"sent a malformed response ({error})"))
        if self._complete:
            self._finish()
        elif self._framing > self._bounds.head and self._busy:
            self._fail(UpstreamError(f"sent response headers larger than {self._bounds.head} bytes"))

    def eof_received(self) -> bool:
        if not self._busy:
            self._gone()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if self._busy:
            if self._in_body and error is None and not self._delimited():
                self._keep = False
                self._finish()
            else:
                lost = Lost("closed the connection before its answer was complete")
                lost.heard = self.heard
                lost.unread = isinstance(error, ConnectionError)
                self._fail(lost)
        self._gone()

    # The parser's side.

    def on_message_begin(self) -> None:
        if self._complete and self._busy:
            self._fail(UpstreamError("sent more than one response"))
        self._headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200 or not self._busy:
            return
        self._in_body = True
        self._response = response = Response(status, self._headers)
        announced = self._headers.get(b"content-length", b"")
        self._size = 0
        if self._head_only:
            self._answer(response)
        elif announced and int(announced) > self._bounds.body:
            self._fail(UpstreamError(f"announced a body larger than {self._bounds.body} bytes"))
        elif self._wants_events and status == 200 and response.content_type == b"text/event-stream":
            response.events = self._stream = EventStream(self, self._bounds.body)
            self._answer(response)

    def on_body(self, chunk: bytes) -> None:
        self._framing = 0
        if not self._busy or self._discard or self._head_only:
            return
        if self._stream is not None:
            try:
                self._stream.feed(chunk)
            except UpstreamError as error:
                self._fail(error)
            return
        self._size += len(chunk)
        if self._size > self._bounds.body:
            self._fail(UpstreamError(f"sent a body larger than {self._bounds.body} bytes"))
        else:
            self._chunks.append(chunk)

    def on_message_complete(self) -> None:
        if self._in_body and self._busy:
            self._keep = self._parser.should_keep_alive()
            self._complete = True

    # How it ends.

    def _delimited(self) -> bool:
        return b"content-length" in self._headers or b"transfer-encoding" in self._headers

    def _answer(self, response: Response) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(response)

    def _finish(self) -> None:
        response, self._response = self._response, None
        stream, self._stream = self._stream, None
        chunks, self._chunks = self._chunks, []
        self._busy = self._complete = False
        self._deadlines.discard(self)
        self.served += 1
        if self._keep and not self.closed:
            self._owner.release(self)
        elif self._transport is not None:
            self._transport.close()
            self._gone()
        if stream is not None:
            stream.end()
        elif response is not None and self._waiter is not None:
            response.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            self._answer(response)

    def _fail(self, error: UpstreamError) -> None:
        waiter, self._waiter = self._waiter, None
        stream, self._stream = self._stream, None
        self._complete = False
        self.abort()
        if stream is not None:
            stream.end(error)
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def _gone(self) -> None:
        if not self.closed:
            self.closed = True
            self._chunks.clear()
            self._owner.lost(self)

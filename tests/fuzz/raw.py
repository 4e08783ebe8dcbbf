"""HTTP over a bare socket: bytes in, replies out, and no opinion on what is allowed."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time
from collections.abc import Iterable
from io import BufferedReader
from typing import Any, NamedTuple

DEADLINE = 8.0
"""Seconds within which everything has to be answered or closed; far above every limit that the gateway is given."""

Address = tuple[str, int]


class Hang(AssertionError):
    """The other side neither answered nor closed in time."""


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body; of an event stream the last event."""
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            lines = [line for line in self.body.split(b"\n") if line.startswith(b"data:")]
            return json.loads(lines[-1].removeprefix(b"data:"))
        return json.loads(self.body)

    @property
    def error(self) -> int | None:
        """The JSON-RPC error code."""
        message = self.json
        return message["error"]["code"] if isinstance(message, dict) and "error" in message else None


class Connection:
    """One client connection. Reading waits until ``DEADLINE`` seconds after the last thing that was sent."""

    def __init__(self, address: Address) -> None:
        self.socket = socket.create_connection(address, timeout=DEADLINE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream: BufferedReader = self.socket.makefile("rb")

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send; a side that has closed already is not an error, it may have answered before."""
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(data)

    def finish(self) -> None:
        """Say that nothing more will come."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def speaks(self, timeout: float) -> bool:
        """Whether something (or the end) arrives in this time."""
        return bool(select.select([self.socket], [], [], timeout)[0])

    def reply(self, timeout: float = DEADLINE) -> Reply | None:
        """The next reply, or ``None`` when the other side closed; ``Hang`` when neither happens in time."""
        self.socket.settimeout(timeout)
        try:
            return read_reply(self._stream)
        except ConnectionError:
            return None
        except TimeoutError:
            raise Hang(f"neither answered nor closed within {timeout:g} s") from None

    def replies(self, timeout: float = DEADLINE) -> list[Reply]:
        """All replies until the other side closes."""
        until, found = time.monotonic() + timeout, []
        while reply := self.reply(max(0.01, until - time.monotonic())):
            found.append(reply)
        return found


def read_reply(stream: BufferedReader) -> Reply | None:
    """One HTTP/1.1 response (informational ones are skipped), or ``None`` at the end of the stream."""
    line = stream.readline(65_536)
    if not line:
        return None
    version, status, *_ = line.split(b" ", 2)
    assert version in (b"HTTP/1.1", b"HTTP/1.0"), f"not an HTTP response: {line!r}"
    headers = dict(read_headers(stream))
    if status.startswith(b"1"):
        return read_reply(stream)
    return Reply(int(status), headers, read_body(stream, int(status), headers))


def read_headers(stream: BufferedReader) -> Iterable[tuple[str, str]]:
    while (line := stream.readline(65_536)).rstrip(b"\r\n"):
        name, colon, value = line.decode("latin-1").partition(":")
        assert colon, f"not a header: {line!r}"
        yield name.strip().lower(), value.strip()


def read_body(stream: BufferedReader, status: int, headers: dict[str, str]) -> bytes:
    if status in (204, 304):
        return b""
    if headers.get("transfer-encoding") == "chunked":
        chunks = b""
        while size := int(stream.readline(), 16):
            chunks += stream.read(size)
            stream.readline()
        stream.readline()
        return chunks
    return stream.read(int(headers["content-length"])) if "content-length" in headers else stream.read()


def ask(address: Address, data: bytes) -> Reply:
    """Send one whole request on a connection of its own; the other side has to answer it."""
    with Connection(address) as connection:
        connection.send(data)
        reply = connection.reply()
    assert reply is not None, "closed without an answer"
    return reply


def outcome(address: Address, data: bytes, patience: float = 0.05) -> list[Reply]:
    """Send anything at all. When nothing comes back soon, say that nothing more will follow; then it must end."""
    with Connection(address) as connection:
        connection.send(data)
        if not connection.speaks(patience):
            connection.finish()
            return connection.replies()
        first = connection.reply()
        connection.finish()
        return [first, *connection.replies()] if first else []

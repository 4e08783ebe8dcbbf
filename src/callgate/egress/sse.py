"""Server-sent events, read as they arrive (WHATWG HTML, section 9.2.6)."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import Protocol

from callgate.errors import UpstreamError

HIGH_WATER = 256 * 1024
OVERHEAD = 64  # an event without data takes memory too
MAX_RETRY = 60_000
_BOM = b"\xef\xbb\xbf"
_ID = re.compile(rb"[\x21-\x7e]{1,1024}\Z")  # what may stand in a header


class SseParser:
    """Turns chunks into the data of ``message`` events. Comments and events of other names are skipped.

    ``limit`` bounds one event (and one line) in bytes; more is an ``UpstreamError``. ``endpoint`` is the data of the
    last ``endpoint`` event (HTTP+SSE of 2024-11-05), which itself comes as an event without data. ``last_id`` names the
    last event that can be named in a header, ``retry`` is the pause in milliseconds that the server asks for.
    """

    endpoint = b""
    last_id = b""
    retry = -1

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tail: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._started = False
        self._data: list[bytes] = []
        self._name = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        if not chunk:
            return []
        if self._after_cr and chunk[:1] == b"\n":
            chunk = chunk[1:]
        self._after_cr = False
        self._size += len(chunk)
        if b"\n" not in chunk and b"\r" not in chunk:
            self._tail.append(chunk)
            return self._checked([])
        self._tail.append(chunk)
        lines = b"".join(self._tail).splitlines(keepends=True)
        self._tail = [] if lines[-1].endswith((b"\n", b"\r")) else [lines.pop()]
        self._after_cr = not self._tail and lines[-1].endswith(b"\r")
        if not self._started:
            self._started = True
            lines[0] = lines[0].removeprefix(_BOM)
        events: list[bytes] = []
        for line in lines:
            self._line(line.rstrip(b"\r\n"), events)
        return self._checked(events)

    def _checked(self, events: list[bytes]) -> list[bytes]:
        if self._size > self._limit:
            # A chunk may complete one event and begin the next one, so count what is really held.
            self._size = sum(map(len, self._tail)) + sum(map(len, self._data))
            if self._size > self._limit or any(len(event) > self._limit for event in events):
                raise UpstreamError(f"an event is larger than {self._limit} bytes")
        return events

    def _line(self, line: bytes, events: list[bytes]) -> None:
        if not line:
            if self._data and self._name in (b"", b"message"):
                events.append(b"\n".join(self._data) if len(self._data) > 1 else self._data[0])
            elif self._data and self._name == b"endpoint":
                self.endpoint = self._data[0]
                events.append(b"")
            self._data, self._name = [], b""
            self._size = sum(map(len, self._tail))
        elif line.startswith(b"data:"):
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line == b"data":
            self._data.append(b"")
        elif line.startswith(b"event:"):
            self._name = line[6:].strip()
        elif line.startswith(b"id:"):
            self.last_id = name if _ID.match(name := line[3:].strip()) else b""
        elif line.startswith(b"retry:") and (pause := line[6:].strip()).isdigit():
            self.retry = min(int(pause[:9]), MAX_RETRY)


class Source(Protocol):
    """The connection that a stream reads from."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def abandon(self) -> None:
        """Nobody wants the rest: close the connection."""

    def linger(self) -> None:
        """The last wanted event was read: keep the connection only if the response ends at once."""


class EventStream:
    """The events of one response, in order. ``next`` gives the data of the next one, ``None`` at the end.

    At most ``HIGH_WATER`` bytes (or one event) wait here; then reading from the peer pauses. ``hide`` takes
    secrets out of an event.
    """

    hide: Callable[[bytes], bytes] | None = None

    def __init__(self, source: Source, limit: int) -> None:
        self._source = source
        self._parser = SseParser(limit)
        self._events: deque[bytes] = deque()
        self._held = 0
        self._paused = False
        self._ended = False
        self._error: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def feed(self, chunk: bytes) -> None:
        for event in self._parser.feed(chunk):
            self._events.append(event)
            self._held += len(event) + OVERHEAD
        if self._held > HIGH_WATER and not self._paused:
            self._paused = True
            self._source.pause()
        if self._events:
            self._wake()

    def end(self, error: UpstreamError | None = None) -> None:
        self._ended = True
        self._error = error
        self._wake()

    async def next(self) -> bytes | None:
        """The next event. Waits as long as the response's own deadline allows; the connection enforces it."""
        while not self._events:
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        event = self._events.popleft()
        self._held -= len(event) + OVERHEAD
        if self._paused and self._held <= HIGH_WATER // 2:
            self._paused = False
            self._source.resume()
        return event if self.hide is None else self.hide(event)

    @property
    def endpoint(self) -> bytes:
        """Where the server of this stream wants its messages (HTTP+SSE of 2024-11-05); empty until it said so."""
        return self._parser.endpoint

    @property
    def last_id(self) -> bytes:
        """Where the stream can be taken up again (``Last-Event-ID``); empty when the server named no place."""
        return self._parser.last_id

    @property
    def retry(self) -> int:
        """The milliseconds to wait before that, or -1."""
        return self._parser.retry

    def finish(self) -> None:
        """The caller has what it wanted."""
        if not self._ended:
            self._events.clear()
            self._source.linger()

    def close(self) -> None:
        """The caller gives up; a response that is still running is cut off."""
        if not self._ended:
            self._source.abandon()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

"""What the event streams of legacy sessions said, kept for clients that lose a stream and come back for the rest.

A stream that may be resumed (versions 2025-03-26 to 2025-11-25) is written on a ``Tape``: every event has an id, and
a client that names the last one it saw (``Last-Event-ID``) gets what it missed of that stream, and then what is still
said on it. Modern streams have no ids (rule HTTP-16).
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from typing import Protocol

#: What is kept of all streams of one principal together: so many events, and so many bytes.
EVENTS = 4096
BYTES = 8 * 1024 * 1024
#: Versions before there were event ids.
WITHOUT_IDS = ("2024-11-05",)
#: Versions whose clients understand an event without data, which tells them the id to come back with.
PRIMED = ("2025-11-25",)
#: A client whose stream ends early comes back after this time (milliseconds).
RETRY = 1000
#: Events, and bytes of them, that may wait for a slow reader of a stream; then the oldest is dropped.
STREAM_BUFFER = 256
STREAM_BYTES = 8 * 1024 * 1024

#: Tapes of one session before those that ended are looked through.
FEW = 16

Event = tuple[str, bytes]


class Reader(Protocol):
    """The end of a stream at which a client reads."""

    def hear(self, id: str, message: bytes) -> None:
        """Write one event."""

    def cut(self) -> None:
        """Nothing more comes on this connection."""


class Shelf:
    """The tapes of one principal, all sessions together: when there is no more room, the oldest event goes."""

    def __init__(self, events: int = EVENTS, bytes: int = BYTES) -> None:
        self.room = (events, bytes)
        self.bytes = self.events = 0
        self._order: deque[Tape] = deque()  # the tape of every event, oldest first; also of tapes that were thrown away

    def keep(self, tape: Tape, message: bytes) -> None:
        tape.events.append((tape.said, message))
        self._order.append(tape)
        self.events += 1
        self.bytes += len(message)
        while self.events > self.room[0] or self.bytes > self.room[1]:
            self._drop()
        if len(self._order) > 2 * self.room[0]:
            self._tidy()

    def throw_away(self, tape: Tape) -> None:
        self.events -= len(tape.events)
        self.bytes -= sum(len(message) for _, message in tape.events)
        tape.events.clear()
        tape.shelf = None

    def _drop(self) -> None:
        tape = self._order.popleft()
        if tape.events:
            self.events -= 1
            self.bytes -= len(tape.events.popleft()[1])

    def _tidy(self) -> None:
        self._order = deque(tape for tape in self._order if tape.events)


class Tape:
    """One event stream, its events numbered from 1. ``own`` says that it belongs to no request: a GET stream."""

    def __init__(self, shelf: Shelf, name: str, own: bool) -> None:
        self.name = name
        self.own = own
        self.said = 0
        self.ended = False
        self.events: deque[tuple[int, bytes]] = deque()
        self.reader: Reader | None = None
        self.shelf: Shelf | None = shelf  # ``None``: nobody can come back any more

    @property
    def last(self) -> str:
        """The id of the newest event; of a silent stream, an id that comes before all."""
        return f"{self.name}-{self.said}"

    def say(self, message: bytes) -> None:
        if self.ended:
            return
        self.said += 1
        if self.shelf is not None:
            self.shelf.keep(self, message)
        if self.reader is not None:
            self.reader.hear(self.last, message)

    def end(self, message: bytes = b"") -> None:
        """Say the last thing, if there is one, and nothing more."""
        if self.ended:
            return
        if message:
            self.say(message)
        self.ended = True
        reader, self.reader = self.reader, None
        if reader is not None:
            reader.cut()

    def left(self, reader: Reader) -> None:
        """This reader is gone; what is said now waits for the next."""
        if self.reader is reader:
            self.reader = None

    def after(self, number: int) -> list[Event]:
        """The events behind this one, as far as they are still kept."""
        return [(f"{self.name}-{each}", message) for each, message in self.events if each > number]


class Stream(asyncio.Queue["Event | None"]):
    """What waits for the reader of a GET stream (or of stdout), oldest first; ``None`` ends it.

    ``own``: messages that belong to no request go here. ``missed`` is what a client that came back gets first.
    ``held`` are the bytes that wait.
    """

    def __init__(self, tape: Tape | None = None, missed: list[Event] | None = None, size: int = STREAM_BUFFER) -> None:
        super().__init__(size)
        self.held = 0
        self.tape = tape
        self.missed = missed or []
        self.own = tape is None or tape.own
        if tape is None:
            return
        before, tape.reader = tape.reader, self
        if before is not None:
            before.cut()  # whoever comes back says that it lost the other connection
        if tape.ended:
            tape.reader = None
            self.cut()

    def push(self, message: bytes) -> None:
        if self.tape is None:
            self.hear("", message)
        else:
            self.tape.say(message)

    def hear(self, id: str, message: bytes) -> None:
        self._line_up((id, message))

    def cut(self) -> None:
        self._line_up(None)

    def leave(self) -> None:
        if self.tape is not None:
            self.tape.left(self)

    def put_nowait(self, event: Event | None) -> None:
        super().put_nowait(event)
        self.held += _size(event)

    def get_nowait(self) -> Event | None:
        event = super().get_nowait()
        self.held -= _size(event)
        return event

    def _line_up(self, event: Event | None) -> None:
        while self.full() or (self.maxsize and self.held + _size(event) > STREAM_BYTES and not self.empty()):
            self.get_nowait()
        self.put_nowait(event)


def _size(event: Event | None) -> int:
    return len(event[1]) if event is not None else 0


class Tapes:
    """The tapes of one session. Its event ids begin with ``tag``, so that another session's, or those from before a
    restart, name nothing here.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._tag = ""
        self._count = 0
        self._by_name: dict[str, Tape] = {}
        self._own: list[Tape] = []
        self._full = FEW

    def begin(self, own: bool = False) -> Tape:
        """A new tape; now and then, those of which nothing is kept and nothing comes are forgotten."""
        if len(self._by_name) >= self._full:
            self._by_name = {name: each for name, each in self._by_name.items() if each.events or not each.ended}
            self._full = 2 * len(self._by_name) + FEW
        self._tag = self._tag or os.urandom(4).hex()
        self._count += 1
        tape = Tape(self._shelf, f"{self._tag}-{self._count}", own)
        self._by_name[tape.name] = tape
        if own:
            self._own.append(tape)
        return tape

    def find(self, id: str) -> tuple[Tape, int] | None:
        """The tape of an event, and the number of the event in it."""
        name, _, number = id.rpartition("-")
        tape = self._by_name.get(name)
        if tape is None or not (number.isascii() and number.isdigit()) or len(number) > 9 or int(number) > tape.said:
            return None
        return tape, int(number)

    def unread(self) -> Tape | None:
        """The newest GET stream, if its reader was lost and may come back."""
        return self._own[-1] if self._own else None

    def forget_unread(self) -> None:
        """The client opened another GET stream instead of coming back: the lost ones end."""
        for tape in self._own:
            tape.ended = tape.reader is None
        self._own = [tape for tape in self._own if not tape.ended]

    def clear(self) -> None:
        """The session has ended. What still runs has its last word, and nobody can come back for it."""
        for tape in self._by_name.values():
            self._shelf.throw_away(tape)
        self._by_name.clear()
        self._own.clear()

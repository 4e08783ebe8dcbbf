"""Legacy sessions: ids are sealed (AES-GCM) and bound to the principal and the door.

A session lives in this process, bounded per principal and in time. A sealed id from before a restart opens the
session again from what it carries, unless it had ended or is older than ``session_ttl``. Somebody else's id is
answered like an unknown one (404), so that a stolen id says nothing.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from callgate.config import Limits
from callgate.errors import ProtocolError
from callgate.gateway.asking import Questions, can_answer, failed
from callgate.gateway.ended import Ended
from callgate.gateway.replay import WITHOUT_IDS, Shelf, Stream, Tapes
from callgate.gateway.sealed import Box
from callgate.types import Answer, Call, Front, Principal, Question

Transport = Literal["http", "stdio"]


#: What a client says of itself is sealed into its session id whole, if it takes no more than this (bytes).
LARGE = 768
#: The longest session id that is looked at (characters).
LONGEST = 2048
#: Capabilities of clients that mean something here, with what callgate knows to be in them.
KNOWN = {
    "elicitation": {"form", "url"}, "roots": {"listChanged"}, "sampling": {"tools", "context"},
    "tasks": {"cancel", "list", "requests"}, "extensions": {"io.modelcontextprotocol/ui"},
}  # fmt: skip


EMPTY: OrderedDict[str, Session] = OrderedDict()


class Ticket(msgspec.Struct, frozen=True, array_like=True):
    """What a session id carries, sealed."""

    principal: str
    door: str
    version: str
    capabilities: dict[str, Any]
    boot: bytes
    nonce: bytes
    issued: int


class Session:
    """One legacy conversation. ``running`` maps request ids (as JSON) to the task that answers them, ``streams`` are
    the open GET streams, oldest first, ``tapes`` what event streams said, ``questions`` what the client was asked.
    ``who`` is the principal as it was recognised last: its roles may be others than before.
    """

    def __init__(self, id: str, ticket: Ticket, transport: Transport, shelf: Shelf) -> None:
        self.id = id
        self.ticket = ticket
        self.used = time.monotonic()
        self.who: Principal | None = None
        self.initialized = False
        self.running: dict[bytes, asyncio.Task[Any]] = {}
        self.streams: list[Stream] = []
        self.tapes = Tapes(shelf)
        self.questions = Questions()
        self.askable = can_answer(ticket.capabilities)
        self.resumable = transport == "http" and ticket.version not in WITHOUT_IDS
        self._transport = transport
        self._log_level: str | None = None
        self.front = self._make_front()

    @property
    def version(self) -> str:
        return self.ticket.version

    def set_log_level(self, level: str) -> None:
        self._log_level = level
        self.front = self._make_front()

    def _make_front(self) -> Front:
        ticket = self.ticket
        return Front(
            ticket.door, ticket.version, "legacy", self._transport, ticket.capabilities, self._log_level, self.id
        )  # fmt: skip

    def listen(self, last: str | None = None) -> Stream:
        """Open a GET stream; one whose client names the last event that it saw goes on where that one was lost."""
        found = self.tapes.find(last) if last is not None and self.resumable else None
        if found is not None:
            tape, number = found
            stream = Stream(tape, tape.after(number))
        else:
            self.tapes.forget_unread()
            stream = Stream(self.tapes.begin(own=True) if self.resumable else None)
        self.streams.append(stream)
        return stream

    def takes_over(self, last: str | None) -> bool:
        """Whether a client that saw this event last would take an open GET stream over, so that there is none more."""
        found = self.tapes.find(last) if last is not None else None
        return found is not None and found[0].reader in self.streams

    def leave(self, stream: Stream) -> None:
        """The reader of a stream is gone."""
        self.streams.remove(stream)
        stream.leave()

    def push(self, message: bytes) -> bool:
        """Send a message that belongs to no request on one GET stream, the newest: nothing goes out twice (2025-11-25,
        "Multiple Connections"). It waits for a client that lost its stream and may come back; without any stream, it
        is not sent (false). A reader that is too slow loses the oldest ones.
        """
        stream = next((each for each in reversed(self.streams) if each.own), None)
        if stream is not None:
            stream.push(message)
            return True
        tape = self.tapes.unread()
        if tape is not None:
            tape.say(message)
        return tape is not None

    async def ask(self, question: Question) -> Answer:
        """Ask the client something that belongs to no request of its own."""
        return await self.questions.ask(self.ticket.capabilities, self.push, question)

    def close_streams(self) -> None:
        for stream in self.streams:
            stream.cut()

    def end(self) -> None:
        self.close_streams()
        self.questions.fail("The session has ended.")
        self.tapes.clear()
        for task in tuple(self.running.values()):
            task.cancel()


class Sessions:
    """All legacy sessions of this process."""

    def __init__(
        self,
        key: Callable[[], bytes],
        limits: Limits,
        on_end: Callable[[str], None] | None = None,
        ended: Ended | None = None,
    ) -> None:
        self.limits = limits
        self._on_end = on_end
        self._ended = ended if ended is not None else Ended()
        self._box = Box(key, b"session", Ticket, LONGEST)
        self._boot = os.urandom(8)
        self._by_id: dict[str, Session] = {}
        self._of: dict[str, OrderedDict[str, Session]] = {}
        self._shelves: dict[str, Shelf] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def open(
        self, who: Principal, door: str, version: str, capabilities: Mapping[str, Any], transport: Transport = "http"
    ) -> Session:
        """Begin a session; the principal's least recently used one ends when there are too many."""
        kept = dict(capabilities) if len(msgspec.json.encode(capabilities)) <= LARGE else _known(capabilities)
        ticket = Ticket(who.key, door, version, kept, self._boot, os.urandom(12), int(time.time()))
        shelf = self._make_room(who.key)
        session = Session(self._box.seal(ticket, ticket.nonce), ticket, transport, shelf)
        self._add(session)
        return session

    def find(self, id: bytes, who: Principal, door: str) -> Session:
        """The session of a sealed id; ``ProtocolError`` 404 unless it lives and is this principal's at this door."""
        name = id.decode("latin-1")
        session = self._by_id.get(name) or self._revived(name, who, door)
        if session is None or session.ticket.principal != who.key or session.ticket.door != door:
            raise ProtocolError("The session does not exist or has ended.", status=404, hint="Send `initialize` again.")
        self.touch(session, who)
        return session

    def touch(self, session: Session, who: Principal) -> None:
        """The session is used."""
        session.used = time.monotonic()
        session.who = who
        self._of[session.ticket.principal].move_to_end(session.id)

    def end(self, session: Session) -> None:
        """The session is over, and its id opens nothing any more, in no process."""
        if session.id in self._by_id and session.front.transport == "http":
            self._ended.add(session.ticket.nonce, session.ticket.issued)
        self._close(session)

    def _close(self, session: Session) -> None:
        if self._by_id.pop(session.id, None) is not None:
            mine = self._of[session.ticket.principal]
            del mine[session.id]
            if not mine:
                del self._of[session.ticket.principal]
                del self._shelves[session.ticket.principal]
            session.end()
            if self._on_end is not None:
                self._on_end(session.id)

    def get(self, id: str) -> Session | None:
        return self._by_id.get(id)

    def ids_of(self, principal: str) -> tuple[str, ...]:
        """The sessions of a principal."""
        return tuple(self._of.get(principal, ()))

    def as_now(self, call: Call) -> Call:
        """A call that was made in a session, made by its principal as it is known now."""
        session = self._by_id.get(call.front.session or "")
        who = session.who if session is not None else None
        return call if who is None or who is call.principal else msgspec.structs.replace(call, principal=who)

    async def ask(self, principal: str, id: str, question: Question) -> Answer:
        """Ask the client of a session something that belongs to no request of its own."""
        session = self._by_id.get(id)
        if session is None or session.ticket.principal != principal:
            return failed("The session has ended.")
        return await session.ask(question)

    def streams_of(self, principal: str) -> int:
        """Open GET streams of a principal."""
        return sum(len(session.streams) for session in self._of.get(principal, {}).values())

    def sweep(self) -> None:
        """End the sessions that were not used for ``limits.session_ttl`` and have nothing running or listening."""
        oldest = time.monotonic() - self.limits.session_ttl
        for session in [each for each in self._by_id.values() if each.used < oldest]:
            if not session.running and not session.streams:
                self.end(session)

    def push(self, notification: bytes, door: str) -> None:
        """Tell all sessions at a door."""
        for session in self._by_id.values():
            if session.ticket.door == door:
                session.push(notification)

    def close_streams(self) -> None:
        """End all GET streams; their clients connect again, to the next process."""
        for session in self._by_id.values():
            session.close_streams()

    def aclose(self) -> None:
        """This process ends; the next one may open the sessions again."""
        for session in tuple(self._by_id.values()):
            self._close(session)

    def _make_room(self, principal: str) -> Shelf:
        """Make room for one more session of a principal; returns the shelf that all of them share."""
        while len(mine := self._of.get(principal, EMPTY)) >= self.limits.max_sessions:
            self.end(next(iter(mine.values())))
        return self._shelves.setdefault(principal, Shelf())

    def _add(self, session: Session) -> None:
        self._of.setdefault(session.ticket.principal, OrderedDict())[session.id] = session
        self._by_id[session.id] = session

    def _revived(self, id: str, who: Principal, door: str) -> Session | None:
        """A session of an earlier process (or of another replica), opened again from its sealed id."""
        ticket = self._box.open(id)
        if ticket is None or ticket.boot == self._boot or ticket.nonce in self._ended:
            return None
        if (ticket.principal, ticket.door) != (who.key, door):
            return None  # a stolen id must not even take a place among its owner's sessions
        if ticket.issued < time.time() - self.limits.session_ttl:
            return None
        session = Session(id, ticket, "http", self._make_room(who.key))
        session.initialized = True
        self._add(session)
        return session


def _known(capabilities: Mapping[str, Any]) -> dict[str, Any]:
    """The capabilities that the protocol defines, without whatever else a client put there."""
    given = {name: value for name in KNOWN if isinstance(value := capabilities.get(name), dict)}
    known = {name: {key: value[key] for key in KNOWN[name] & value.keys()} for name, value in given.items()}
    return known if len(msgspec.json.encode(known)) <= LARGE else {name: {} for name in known}

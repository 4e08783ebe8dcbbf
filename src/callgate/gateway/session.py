"""Legacy sessions: ids are sealed (AES-GCM) and bound to the principal and the door.

A session lives in this process, bounded per principal and in time. A sealed id from before a restart opens the
session again from what it carries, unless it was ended since or is older than ``session_ttl``. Somebody else's id is
answered like an unknown one (404), so that a stolen id says nothing.
"""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from callgate.config import Limits
from callgate.errors import ProtocolError
from callgate.types import Front, Principal

Transport = Literal["http", "stdio"]

#: Notifications that may wait for a slow reader of the GET stream; then the oldest is dropped.
STREAM_BUFFER = 256
#: Ids from before a restart that were ended since, and must not open again.
ENDED = 10_000

Stream = asyncio.Queue[bytes | None]


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
    the open GET streams, oldest first; a ``None`` in one ends it.
    """

    def __init__(self, id: str, ticket: Ticket, transport: Transport = "http") -> None:
        self.id = id
        self.ticket = ticket
        self.used = time.monotonic()
        self.initialized = False
        self.running: dict[bytes, asyncio.Task[Any]] = {}
        self.streams: list[Stream] = []
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

    def push(self, notification: bytes) -> None:
        """Send a notification on one GET stream, the newest: no message goes out twice (2025-11-25, "Multiple
        Connections"). A reader that is too slow loses the oldest ones.
        """
        if self.streams:
            _put(self.streams[-1], notification)

    def close_streams(self) -> None:
        for stream in self.streams:
            _put(stream, None)

    def end(self) -> None:
        self.close_streams()
        for task in tuple(self.running.values()):
            task.cancel()


def _put(stream: Stream, message: bytes | None) -> None:
    if stream.full():
        stream.get_nowait()
    stream.put_nowait(message)


class Sessions:
    """All legacy sessions of this process."""

    def __init__(self, key: Callable[[], bytes], limits: Limits) -> None:
        self.limits = limits
        self._key = key
        self._seal: Any = None
        self._boot = os.urandom(8)
        self._by_id: dict[str, Session] = {}
        self._of: dict[str, OrderedDict[str, Session]] = {}
        self._ended: OrderedDict[bytes, None] = OrderedDict()  # by nonce: one ticket can be written as several ids

    def __len__(self) -> int:
        return len(self._by_id)

    def open(
        self, who: Principal, door: str, version: str, capabilities: Mapping[str, Any], transport: Transport = "http"
    ) -> Session:
        """Begin a session; the principal's least recently used one ends when there are too many."""
        kept = dict(capabilities) if len(msgspec.json.encode(capabilities)) <= 512 else _known(capabilities)
        ticket = Ticket(who.key, door, version, kept, self._boot, os.urandom(12), int(time.time()))
        session = Session(self._sealed(ticket), ticket, transport)
        self._add(session)
        return session

    def find(self, id: bytes, who: Principal, door: str) -> Session:
        """The session of a sealed id; ``ProtocolError`` 404 unless it lives and is this principal's at this door."""
        name = id.decode("latin-1")
        session = self._by_id.get(name) or self._revived(name, who, door)
        if session is None or session.ticket.principal != who.key or session.ticket.door != door:
            raise ProtocolError("The session does not exist or has ended.", status=404, hint="Send `initialize` again.")
        session.used = time.monotonic()
        self._of[who.key].move_to_end(name)
        return session

    def end(self, session: Session) -> None:
        if self._by_id.pop(session.id, None) is not None:
            mine = self._of[session.ticket.principal]
            del mine[session.id]
            if not mine:
                del self._of[session.ticket.principal]
            if session.ticket.boot != self._boot:
                self._ended[session.ticket.nonce] = None
                if len(self._ended) > ENDED:
                    self._ended.popitem(last=False)
            session.end()

    def streams_of(self, principal: str) -> int:
        """Open GET streams of a principal."""
        return sum(len(session.streams) for session in self._of.get(principal, {}).values())

    def sweep(self) -> None:
        """End the sessions that were not used for ``limits.session_ttl`` and have nothing running or listening."""
        oldest = time.monotonic() - self.limits.session_ttl
        for session in [each for each in self._by_id.values() if each.used < oldest]:
            if not session.running and not session.streams:
                self.end(session)

    def push(self, notification: bytes) -> None:
        for session in self._by_id.values():
            session.push(notification)

    def close_streams(self) -> None:
        """End all GET streams; their clients connect again, to the next process."""
        for session in self._by_id.values():
            session.close_streams()

    def aclose(self) -> None:
        for session in tuple(self._by_id.values()):
            self.end(session)

    def _add(self, session: Session) -> None:
        mine = self._of.setdefault(session.ticket.principal, OrderedDict())
        while len(mine) >= self.limits.max_sessions:
            self.end(next(iter(mine.values())))
            mine = self._of.setdefault(session.ticket.principal, OrderedDict())
        mine[session.id] = session
        self._by_id[session.id] = session

    def _revived(self, id: str, who: Principal, door: str) -> Session | None:
        """A session of an earlier process (or of another replica), opened again from its sealed id."""
        ticket = self._opened(id)
        if ticket is None or ticket.boot == self._boot or ticket.nonce in self._ended:
            return None
        if (ticket.principal, ticket.door) != (who.key, door):
            return None  # a stolen id must not even take a place among its owner's sessions
        if ticket.issued < time.time() - self.limits.session_ttl:
            return None
        session = Session(id, ticket)
        session.initialized = True
        self._add(session)
        return session

    def _cipher(self) -> Any:
        if self._seal is None:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            self._seal = AESGCM(self._key())
        return self._seal

    def _sealed(self, ticket: Ticket) -> str:
        sealed = self._cipher().encrypt(ticket.nonce, msgspec.json.encode(ticket), b"session")
        return base64.urlsafe_b64encode(ticket.nonce + sealed).decode().rstrip("=")

    def _opened(self, id: str) -> Ticket | None:
        if not 40 <= len(id) <= 2048:
            return None
        try:
            raw = base64.b64decode(id + "=" * (-len(id) % 4), b"-_", validate=True)
            return msgspec.json.decode(self._cipher().decrypt(raw[:12], raw[12:], b"session"), type=Ticket)
        except Exception:  # InvalidTag, binascii.Error, DecodeError: all mean that the id is not ours
            return None


def _known(capabilities: Mapping[str, Any]) -> dict[str, Any]:
    """The capabilities that the protocol defines, without whatever else a client put there."""
    return {name: {} for name in ("elicitation", "roots", "sampling", "tasks") if name in capabilities}

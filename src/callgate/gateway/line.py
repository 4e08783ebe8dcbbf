"""Clients of 2024-11-05 that speak HTTP+SSE: one GET stream for all that is said to them, and a URL to post to.

A line is such a stream and the session that ``initialize`` opens on it; the session ends with the stream. Messages take
the same way as those of every other transport (``dispatch.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from callgate.errors import CallgateError, Overloaded, ProtocolError
from callgate.gateway import wire
from callgate.gateway.batch import answer_batch, part
from callgate.gateway.dispatch import in_session, notified, start_session
from callgate.gateway.inbound import Inbound, Reply, check_shape, id_of, is_response, now
from callgate.gateway.replay import Stream
from callgate.gateway.replies import called_off, failure
from callgate.gateway.session import Session
from callgate.types import Conduct, Principal

if TYPE_CHECKING:
    from callgate.gateway.house import House

log = logging.getLogger("callgate.gateway")

#: What may wait (bytes) for a client that does not read: then notifications are lost and messages are refused.
BEHIND = 4 * 1024 * 1024


class Outlet(Stream):
    """The stream of a line. Answers and questions wait for its reader however long; notifications are dropped when
    too much waits.
    """

    def __init__(self) -> None:
        super().__init__(size=0)

    def hear(self, id: str, message: bytes) -> None:
        if self.held <= BEHIND:
            self.say(message)

    def say(self, message: bytes) -> bool:
        self.put_nowait(("", message))
        return True


class Line:
    """One client on HTTP+SSE. Only the client knows ``id``, which means something only with the client's credential."""

    def __init__(self, house: House, who: Principal, door: str) -> None:
        self.id = secrets.token_urlsafe(24)
        self.house = house
        self.who = who
        self.door = door
        self.stream = Outlet()
        self.session: Session | None = None
        self._conduct = Conduct(self._emit)
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, message: Any, who: Principal, size: int) -> None:
        """Begin to answer one message; the answer goes onto the stream. Raises for what cannot be answered at all."""
        if self.stream.held > BEHIND or len(self._tasks) >= self.house.settings.limits.max_calls:
            raise Overloaded("Too much waits to be read or answered here.", hint="Read the event stream.")
        if not isinstance(message, list) and not is_response(message):
            check_shape(message)
        inbound = Inbound(message, who, self.door, size, now(), {}, self.session, self._conduct)
        if self.session is None:
            self._begin(inbound)
        elif is_response(message):
            self.session.questions.answered(message)
        elif isinstance(message, dict) and "id" not in message:
            notified(message, self.session, self.house)
        else:
            self.house.sessions.touch(self.session, who)
            self._run(self._answer(inbound, self.session))

    def leave(self) -> None:
        """The client is gone, and its session with it."""
        if self.session is not None:
            with contextlib.suppress(ValueError):
                self.session.streams.remove(self.stream)
            self.house.sessions.end(self.session)
        for task in self._tasks:
            task.cancel()

    def _begin(self, inbound: Inbound) -> None:
        """``initialize`` comes first."""
        message: Any = inbound.message
        if not isinstance(message, dict) or message.get("method") != "initialize" or "id" not in message:
            raise ProtocolError("Send `initialize` first.")
        try:
            self.session, reply = start_session(inbound, self.house)
        except CallgateError as error:
            reply = failure(inbound.id, error, modern=False)
        self.stream.say(reply.body)
        session = self.session
        if session is not None:
            session.resumable = False  # it lives and dies with this stream
            session.streams.append(self.stream)
            if session.askable:
                ask = partial(session.questions.ask, session.front.capabilities, self.stream.say)
                self._conduct = Conduct(self._emit, ask)

    def _emit(self, message: bytes) -> None:
        self.stream.hear("", message)

    async def _answer(self, inbound: Inbound, session: Session) -> None:
        id = id_of(inbound.message)
        try:
            reply = await self._reply(inbound, session)
        except CallgateError as error:
            reply = failure(id, error, modern=False)
        except asyncio.CancelledError:
            self.stream.say(called_off(id).body)
            raise
        except Exception:
            log.exception("a request could not be answered")
            reply = failure(id, ProtocolError("Internal error.", wire.INTERNAL_ERROR), modern=False)
        if reply.body:
            self.stream.say(_one_line(reply.body))

    async def _reply(self, inbound: Inbound, session: Session) -> Reply:
        message: Any = inbound.message
        if isinstance(message, list):
            return await answer_batch(message, session, lambda each: part(inbound, each), self.house)
        if message["method"] == "initialize":
            raise ProtocolError("The session is already open.")
        return await in_session(inbound, self.house)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Lines:
    """The open lines of this process."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._by_id: dict[str, Line] = {}

    def open(self, who: Principal, door: str) -> Line:
        if self._house.streams_of(who) >= self._house.settings.limits.max_streams:
            raise Overloaded("Too many open streams for this caller.")
        line = Line(self._house, who, door)
        self._by_id[line.id] = line
        return line

    def find(self, id: str, who: Principal, door: str) -> Line:
        """The line of an id; somebody else's is as unknown as one that never was."""
        line = self._by_id.get(id)
        if line is None or line.who.key != who.key or line.door != door:
            raise ProtocolError("The session does not exist or has ended.", status=404, hint="Open the stream again.")
        return line

    def leave(self, line: Line) -> None:
        if self._by_id.pop(line.id, None) is not None:
            line.leave()

    def silent(self, principal: str) -> int:
        """Open lines of a principal that have no session yet; the others count as streams of their sessions."""
        return sum(line.who.key == principal and line.session is None for line in self._by_id.values())

    def close(self) -> None:
        """End all streams; their clients connect again."""
        for line in tuple(self._by_id.values()):
            line.stream.cut()


def _one_line(body: bytes) -> bytes:
    return body.replace(b"\n", b" ").replace(b"\r", b" ") if b"\n" in body or b"\r" in body else body

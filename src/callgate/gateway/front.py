"""The front desk: recognises who sent an HTTP request and has the message in it answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from callgate.catalog import EVERYTHING, server_door, virtual_door
from callgate.config import Limits
from callgate.errors import CallgateError, ProtocolError, Unauthenticated
from callgate.gateway import wire
from callgate.gateway.dispatch import (
    Inbound,
    Reply,
    check_shape,
    failure,
    is_response,
    legacy,
    modern,
    now,
    start_session,
)
from callgate.gateway.gate import Names, Refusal
from callgate.gateway.ladder import LEGACY_VERSIONS, is_modern
from callgate.gateway.session import Session
from callgate.types import Principal, RpcError

if TYPE_CHECKING:
    from callgate.gateway.house import House
    from callgate.gateway.turn import Turn

log = logging.getLogger("callgate.gateway")

#: JSON-RPC batches exist in one version only.
BATCH_VERSION = "2025-03-26"
BATCH_LIMIT = 100
CANCELLED = -31499
CHALLENGE = b'www-authenticate: Bearer realm="callgate"\r\n'


class FrontDesk:
    """Answers the POSTs of one listener."""

    def __init__(self, house: House, names: Names) -> None:
        self.house = house
        self.names = names
        self._accepts: dict[bytes, tuple[bool, bool]] = {}

    @property
    def limits(self) -> Limits:
        return self.house.settings.limits

    def door(self, url: bytes) -> str | None:
        """The door of a request target, or ``None`` when no MCP endpoint is there."""
        path = url.partition(b"?")[0]
        if path == b"/mcp":
            return EVERYTHING
        parts = path.decode("latin-1").rstrip("/").split("/")[1:]
        settings = self.house.settings
        if parts == ["mcp"]:
            return EVERYTHING
        if len(parts) == 2 and parts[0] == "mcp" and parts[1] in settings.virtual_servers:
            return virtual_door(parts[1])
        if len(parts) == 3 and parts[0] == "servers" and parts[2] == "mcp":
            server = settings.servers.get(parts[1])
            return server_door(parts[1]) if server is not None and not server.disabled else None
        return None

    def refused(self, refusal: Refusal) -> None:
        self.house.refusals.add(str(refusal.status))

    @staticmethod
    def expects_continue(headers: Sequence[tuple[bytes, bytes]]) -> bool:
        return any(name == b"expect" and value.lower() == b"100-continue" for name, value in headers)

    async def recognise(self, headers: Mapping[bytes, bytes]) -> Principal:
        credential = headers.get(b"authorization")
        recogniser = self.house.recogniser
        return recogniser.known(credential) or await recogniser.recognise(credential)

    async def serve(self, turn: Turn, body: bytes) -> None:
        """Answer one POST, whatever happens."""
        try:
            who = await self.recognise(turn.headers)
            streams = self._content(turn.headers)
            reply = await self._reply(turn, who, body, streams)
            turn.finish(reply)
        except Unauthenticated as error:
            self.house.note_stranger(error, turn.door)
            turn.answer(401, wire.error(None, RpcError(error.rpc_code, error.message)), CHALLENGE)
        except CallgateError as error:
            reply = failure(None, error, modern=False)
            turn.answer(reply.status if reply.status != 200 else 400, reply.body)
        except asyncio.CancelledError:
            turn.answer(200, wire.error(None, RpcError(CANCELLED, "The request was cancelled.")))
            raise
        except Exception:
            log.exception("a request could not be answered")
            turn.answer(500, wire.error(None, RpcError(wire.INTERNAL_ERROR, "Internal error.")))

    async def _reply(self, turn: Turn, who: Principal, body: bytes, streams: bool) -> Reply:
        received = now()
        message: Any = wire.read(body, self.limits.max_depth)
        headers = turn.headers
        if isinstance(message, list):
            return await self._batch(turn, who, message)
        inbound = Inbound(message, who, turn.door, len(body), received, headers, None, turn.emit if streams else None)
        if isinstance(message, dict) and is_modern(message, headers):
            check_shape(message)
            return await modern(inbound, self.house)
        inbound.session = session = self._session(message, who, turn)
        if session is None:
            check_shape(message)
            return start_session(inbound, self.house)[1] if "id" in message else Reply(status=400)
        turn.survives = True
        return await self._in_session(inbound, session, turn)

    def _session(self, message: Any, who: Principal, turn: Turn) -> Session | None:
        """The session of a legacy message; ``None`` for ``initialize``, which opens one."""
        if isinstance(message, dict) and message.get("method") == "initialize":
            return None
        id = turn.headers.get(b"mcp-session-id")
        if id is None:
            raise ProtocolError(
                "The Mcp-Session-Id header is missing.", hint="Send `initialize` first, or speak 2026-07-28."
            )
        session = self.house.sessions.find(id, who, turn.door)
        version = turn.headers.get(b"mcp-protocol-version")
        if version is not None and version.decode("latin-1") not in LEGACY_VERSIONS:
            raise ProtocolError(f"Unsupported protocol version; the session speaks {session.version}.")
        return session

    async def _in_session(self, inbound: Inbound, session: Session, turn: Turn) -> Reply:
        message: Any = inbound.message
        if is_response(message):
            return Reply(status=202)  # an answer to a request of ours; there are none yet
        check_shape(message)
        if "id" not in message:
            return await legacy(inbound, self.house)
        key = wire.encode(message["id"])
        if key in session.running:
            raise ProtocolError("A request with this id is still running.")
        assert turn.task is not None
        session.running[key] = turn.task
        try:
            return await legacy(inbound, self.house)
        finally:
            del session.running[key]

    async def _batch(self, turn: Turn, who: Principal, messages: list[Any]) -> Reply:
        """A JSON-RPC batch: version 2025-03-26 has them, no other."""
        session = self._session(None, who, turn)
        assert session is not None
        if session.version != BATCH_VERSION:
            raise ProtocolError(f"Batches are not part of version {session.version}.")
        if not 0 < len(messages) <= BATCH_LIMIT:
            raise ProtocolError(f"A batch holds 1 to {BATCH_LIMIT} messages.")
        turn.survives = True
        replies = await asyncio.gather(*[self._one_of(each, who, turn, session) for each in messages])
        bodies = [reply.body for reply in replies if reply.body]
        return Reply(b"[" + b",".join(bodies) + b"]") if bodies else Reply(status=202)

    async def _one_of(self, message: Any, who: Principal, turn: Turn, session: Session) -> Reply:
        try:
            check_shape(message)
            if message["method"] == "initialize":
                raise ProtocolError("initialize must not be part of a batch.")
            inbound = Inbound(message, who, turn.door, len(wire.encode(message)), now(), turn.headers, session, None)
            return await legacy(inbound, self.house)
        except CallgateError as error:
            return failure(message.get("id") if isinstance(message, dict) else None, error, modern=False)

    def _content(self, headers: Mapping[bytes, bytes]) -> bool:
        """Check Content-Type and Accept; returns whether the client reads event streams."""
        kind = headers.get(b"content-type", b"")
        if kind != b"application/json" and kind.partition(b";")[0].strip().lower() != b"application/json":
            raise ProtocolError("The Content-Type must be application/json.", status=415)
        accept = headers.get(b"accept", b"*/*")
        known = self._accepts.get(accept)
        if known is None:
            if len(self._accepts) > 256:
                self._accepts.clear()
            known = self._accepts[accept] = _accepted(accept.decode("latin-1").lower())
        if not known[0]:
            raise ProtocolError("Accept must list application/json and text/event-stream.", status=406)
        return known[1]


def _accepted(accept: str) -> tuple[bool, bool]:
    """Whether the client takes JSON, and whether it takes event streams."""
    kinds = {part.partition(";")[0].strip() for part in accept.split(",")}
    return bool(kinds & {"*/*", "application/*", "application/json"}), bool(
        kinds & {"*/*", "text/*", "text/event-stream"}
    )

"""The front desk: recognises who sent an HTTP request and has the message in it answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from callgate.catalog import EVERYTHING, server_door, virtual_door
from callgate.config import Limits
from callgate.errors import CallgateError, ProtocolError, Unauthenticated
from callgate.gateway import wire
from callgate.gateway.batch import answer_batch, part
from callgate.gateway.challenge import check_audience, refusal
from callgate.gateway.dispatch import in_session, modern, start_session
from callgate.gateway.gate import Names, Refusal
from callgate.gateway.inbound import NOBODY, Inbound, Reply, check_shape, id_of, now
from callgate.gateway.ladder import LEGACY_HEADERS, is_modern
from callgate.gateway.replies import called_off, failure
from callgate.gateway.session import Session
from callgate.gateway.shown import shown_in
from callgate.identity import Shown
from callgate.types import Conduct, Principal, RpcError

if TYPE_CHECKING:
    from callgate.gateway.house import House
    from callgate.gateway.turn import Turn

log = logging.getLogger("callgate.gateway")

#: Pairs of Content-Type and Accept whose meaning is remembered.
REMEMBERED = 256
#: Bytes of large bodies that may wait to be complete, of all connections together: strangers may send them too.
HELD = 256 * 1024 * 1024


class FrontDesk:
    """Answers the POSTs of one listener. ``held`` is what large bodies take that are not complete (bytes)."""

    held = 0

    def __init__(self, house: House, names: Names) -> None:
        self.house = house
        self.names = names
        self.limits: Limits = house.settings.limits  # a reload leaves them as they are (house.FIXED)
        self._contents: dict[tuple[bytes | None, bytes | None], bool] = {}

    def door(self, url: bytes) -> str | None:
        """The door of a request target, or ``None`` when no MCP endpoint is there."""
        path = url.partition(b"?")[0]
        if path == b"/mcp":
            return EVERYTHING
        parts = unquote_to_bytes(path).decode("utf-8", "replace").rstrip("/").split("/")[1:]
        settings = self.house.settings
        if parts == ["mcp"]:
            return EVERYTHING
        if len(parts) == 2 and parts[0] == "mcp" and parts[1] in settings.virtual_servers:
            return virtual_door(parts[1])
        if len(parts) == 3 and parts[0] == "servers" and parts[2] == "mcp":
            server = settings.servers.get(parts[1])
            return server_door(parts[1]) if server is not None and not server.disabled else None
        return None

    @property
    def crowded(self) -> bool:
        return self.held > HELD

    def refused(self, refusal: Refusal) -> None:
        self.house.refusals.count(refusal.status)

    @staticmethod
    def expects_continue(headers: Sequence[tuple[bytes, bytes]]) -> bool:
        return any(name == b"expect" and value.lower() == b"100-continue" for name, value in headers)

    async def recognise(self, headers: Mapping[bytes, bytes], door: str, shown: Shown) -> Principal:
        credential = headers.get(b"authorization")
        recogniser = self.house.recogniser
        who = recogniser.known(credential) or await recogniser.recognise(credential, shown)
        if who.audience:
            check_audience(who, door, self.house)
        return who

    async def serve(self, turn: Turn, body: bytes) -> None:
        """Answer one POST, whatever happens."""
        try:
            who = self.house.recogniser.known(turn.headers.get(b"authorization"))
            if who is None:
                who = await self.recognise(turn.headers, turn.door, shown_in(turn, self.house))
            elif who.audience:
                check_audience(who, turn.door, self.house)
            streams = self._content(turn.headers)
            reply = await self._reply(turn, who, body, streams)
            turn.finish(reply)
        except Unauthenticated as error:
            self.house.refusals.stranger(error, turn.door)
            headers = refusal(error, turn.door, self.house).items()
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers).encode()
            turn.answer(401, wire.error(None, RpcError(error.rpc_code, error.message)), lines)
        except CallgateError as error:
            reply = failure(turn.id, error, modern=False)
            turn.answer(reply.status if reply.status != 200 else 400, reply.body)
        except asyncio.CancelledError:
            turn.finish(called_off(turn.id))
            raise
        except Exception:
            log.exception("a request could not be answered")
            turn.answer(500, wire.error(turn.id, RpcError(wire.INTERNAL_ERROR, "Internal error.")))

    def _reply(self, turn: Turn, who: Principal, body: bytes, streams: bool) -> Awaitable[Reply]:
        received = now()
        message: Any = wire.read(body, self.limits.max_depth)
        turn.id = id_of(message)
        headers = turn.headers
        conduct = Conduct(turn.emit) if streams and turn.chunks else NOBODY
        inbound = Inbound(message, who, turn.door, len(body), received, headers, None, conduct)
        if isinstance(message, dict) and is_modern(message, headers):
            check_shape(message)
            return modern(inbound, self.house)
        return self._legacy(turn, inbound)

    async def _legacy(self, turn: Turn, inbound: Inbound) -> Reply:
        message: Any = inbound.message
        inbound.session = session = self._session(message, inbound.principal, turn)
        if session is None:
            check_shape(message)
            if "id" not in message:
                return Reply(status=400)
            await self.house.personal.prepare(inbound.principal, inbound.door)
            return start_session(inbound, self.house)[1]
        turn.survives = True
        streams = inbound.conduct.emit is not None
        if streams and session.resumable:
            turn.session = session
        if streams and session.askable:
            inbound.conduct = Conduct(turn.emit, partial(session.questions.ask, session.front.capabilities, turn.say))
        if isinstance(message, list):
            return await answer_batch(message, session, lambda each: part(inbound, each), self.house)
        return await in_session(inbound, self.house)

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
        if version is not None and version not in LEGACY_HEADERS:
            raise ProtocolError(f"Unsupported protocol version; the session speaks {session.version}.")
        return session

    @staticmethod
    def check_content(headers: Mapping[bytes, bytes]) -> None:
        """Check the Content-Type of a message whose answer goes elsewhere."""
        _content(headers.get(b"content-type"), None)

    def _content(self, headers: Mapping[bytes, bytes]) -> bool:
        """Check Content-Type and Accept; returns whether the client reads event streams."""
        content = headers.get(b"content-type"), headers.get(b"accept")
        streams = self._contents.get(content)
        if streams is None:
            streams = _content(*content)
            if len(self._contents) >= REMEMBERED:
                self._contents.clear()
            self._contents[content] = streams
        return streams


class BackDesk(FrontDesk):
    """The desk of the admin listener: the same gate and the same limits, and no MCP endpoint."""

    def door(self, url: bytes) -> str | None:
        return None


def _content(kind: bytes | None, accept: bytes | None) -> bool:
    if (kind or b"").partition(b";")[0].strip().lower() != b"application/json":
        raise ProtocolError("The Content-Type must be application/json.", status=415)
    text = "*/*" if accept is None else accept.decode("latin-1").lower()
    kinds = {part.partition(";")[0].strip() for part in text.split(",")}
    if not kinds & {"*/*", "application/*", "application/json"}:
        raise ProtocolError("Accept must list application/json and text/event-stream.", status=406)
    return bool(kinds & {"*/*", "text/*", "text/event-stream"})

"""What the gateway listener serves besides POSTs to MCP endpoints: the legacy GET stream and DELETE, health."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from callgate import __version__
from callgate.errors import CallgateError, Unauthenticated
from callgate.gateway.front import FrontDesk
from callgate.gateway.gate import is_loopback
from callgate.gateway.session import STREAM_BUFFER, Session, Stream
from callgate.gateway.wire import INVALID_REQUEST
from callgate.types import Principal
from callgate.upstream import without_last_words

#: An idle stream gets a comment this often (seconds).
WARM = 15.0
EVENT = b"event: message\ndata: %b\n\n"
#: Headers that proxies add.
FORWARDED = {b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip"}
METHODS = "DELETE, GET, OPTIONS, POST"


def gateway_app(desk: FrontDesk, admin_url: str = "") -> Starlette:
    """The ASGI application behind the lane. Host and Origin were checked by the lane, for these requests too."""
    pages = Pages(desk, admin_url)
    endpoint = [
        Route(path, pages.endpoint, methods=["GET", "DELETE", "OPTIONS", "PUT", "PATCH", "POST"])
        for path in ("/mcp", "/mcp/{name}", "/servers/{name}/mcp")
    ]
    health = [Route("/healthz", pages.healthz), Route("/readyz", pages.readyz)]
    return Starlette(routes=[*endpoint, *health], exception_handlers={404: _not_found, 500: _broken})


class Pages:
    """The handlers, with what they need."""

    def __init__(self, desk: FrontDesk, admin_url: str) -> None:
        self.desk = desk
        self.house = desk.house
        self.admin_url = admin_url

    async def endpoint(self, request: Request) -> Response:
        door = self.desk.door(request.scope["raw_path"])
        if door is None:
            return _error(404, "There is no such endpoint.")
        if request.method == "OPTIONS":
            return self._preflight(request)
        response = await self._answer(request, door)
        if origin := request.headers.get("origin"):  # the lane refused every other Origin already
            response.headers["access-control-allow-origin"] = origin
            response.headers["vary"] = "origin"
        return response

    async def _answer(self, request: Request, door: str) -> Response:
        if request.method not in ("GET", "DELETE"):
            return _error(405, "Use POST.", {"allow": METHODS})
        try:
            who = await self.desk.recognise(dict(request.scope["headers"]))
            id = request.headers.get("mcp-session-id")
            if id is None:
                return _error(405, "GET and DELETE need a session of the legacy era.", {"allow": METHODS})
            session = self.house.sessions.find(id.encode("latin-1"), who, door)
            if request.method == "DELETE":
                self.house.sessions.end(session)
                return Response(status_code=204)
            return self._stream(request, session, who)
        except Unauthenticated as error:
            self.house.note_stranger(error, door)
            return _error(401, error.message, {"www-authenticate": 'Bearer realm="callgate"'}, error.rpc_code)
        except CallgateError as error:
            return _error(getattr(error, "http_status", 400), f"{error.message} {error.hint}".strip())

    def _stream(self, request: Request, session: Session, who: Principal) -> Response:
        if "text/event-stream" not in request.headers.get("accept", ""):
            return _error(406, "Accept must list text/event-stream.")
        if self.house.streams_of(who) >= self.house.settings.limits.max_streams:
            return _error(429, "Too many open streams for this caller.")
        return EventStream(session)

    def _preflight(self, request: Request) -> Response:
        """Tell a page of an allowed Origin what it may send (the lane refused every other Origin already)."""
        headers = {"allow": METHODS}
        if origin := request.headers.get("origin"):
            headers |= {
                "access-control-allow-origin": origin,
                "access-control-allow-methods": METHODS,
                "access-control-allow-headers": request.headers.get("access-control-request-headers", ""),
                "access-control-max-age": "600",
                "vary": "origin",
            }
        return Response(status_code=204, headers=headers)

    async def healthz(self, request: Request) -> Response:
        """The process lives. A caller on this machine is told where the admin listener is."""
        answer: dict[str, Any] = {"status": "ok", "version": __version__}
        if _from_here(request) and self.admin_url:
            answer["admin"] = self.admin_url
            answer["operator_token_file"] = str(self.house.loaded.data_dir / "operator.token")
        return JSONResponse(answer)

    async def readyz(self, request: Request) -> Response:
        """Ready to serve. Callers on this machine are told which servers are down, and of a configuration file that
        was not taken over; nobody has said who they are, so nobody else is.
        """
        journal = self.house.journal
        problems = {"configuration": self.house.trouble, "audit": journal.error}
        ready = not (self.house.strict and (journal.full or journal.error))
        answer: dict[str, Any] = {"ready": ready}
        if _from_here(request):
            answer["problems"] = {key: text for key, text in problems.items() if text}
            answer["servers"] = {
                each.name: {"state": each.state, "reason": without_last_words(each.reason)}
                for each in self.house.statuses()
            }
        return JSONResponse(answer, status_code=200 if ready else 503)


def _from_here(request: Request) -> bool:
    """Whether the caller is on this machine, and not behind a proxy that is."""
    passed_on = any(name in FORWARDED for name, _ in request.scope["headers"])
    return request.client is not None and is_loopback(request.client.host) and not passed_on


class EventStream(StreamingResponse):
    """The GET stream of a session. It is the session's from here on until it ends, however it ends."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.stream: Stream = asyncio.Queue(STREAM_BUFFER)
        session.streams.append(self.stream)
        headers = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no", "mcp-session-id": session.id}
        super().__init__(self._events(), media_type="text/event-stream", headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.session.streams.remove(self.stream)

    async def _events(self) -> AsyncIterator[bytes]:
        yield b":\n\n"
        while True:
            try:
                message = await asyncio.wait_for(self.stream.get(), WARM)
            except TimeoutError:
                yield b":\n\n"
                continue
            if message is None:
                return
            yield EVENT % message


def _error(
    status: int, message: str, headers: dict[str, str] | None = None, code: int = INVALID_REQUEST
) -> JSONResponse:
    return JSONResponse(
        {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}},
        status_code=status,
        headers=headers,
    )


async def _not_found(request: Request, error: Exception) -> Response:
    return _error(
        404, "There is nothing here. MCP endpoints are /mcp, /mcp/{virtual_server} and /servers/{server}/mcp."
    )


async def _broken(request: Request, error: Exception) -> Response:
    return _error(500, "Internal error.")

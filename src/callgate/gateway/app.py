"""What the gateway listener serves besides POSTs to MCP endpoints: the legacy GET stream and DELETE, health."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from callgate import __version__
from callgate.errors import CallgateError, ConfigError, Overloaded, ProtocolError, Unauthenticated
from callgate.gateway import wire
from callgate.gateway.challenge import refusal
from callgate.gateway.connecting import connecting_routes
from callgate.gateway.front import FrontDesk
from callgate.gateway.gate import is_loopback
from callgate.gateway.oauth import oauth_routes
from callgate.gateway.plain_cookies import PlainCookies
from callgate.gateway.replay import Event, Stream
from callgate.gateway.shown import shown_by
from callgate.gateway.turn import EVENT, KEPT_EVENT
from callgate.gateway.wire import INVALID_REQUEST
from callgate.identity import operator_proof, operator_token
from callgate.types import Principal
from callgate.upstream import without_last_words

#: An idle stream gets a comment this often (seconds).
WARM = 15.0
#: Headers that proxies add.
FORWARDED = {b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip"}
METHODS = "DELETE, GET, OPTIONS, POST"
NO_HEADERS: Mapping[str, str] = MappingProxyType({})

Answering = Callable[[Request, Principal, str], Awaitable[Response]]


def gateway_app(desk: FrontDesk, admin_url: str = "") -> Starlette:
    """The ASGI application behind the lane. Host and Origin were checked by the lane, for these requests too."""
    pages = Pages(desk, admin_url)
    endpoint = [
        Route(path, pages.endpoint, methods=["GET", "DELETE", "OPTIONS", "PUT", "PATCH", "POST"])
        for name in ("/mcp", "/mcp/{name}", "/servers/{name}/mcp")
        for path in (name, f"{name}/")
    ]
    # HTTP+SSE (2024-11-05): a virtual server may be called `sse`, so its stream is not at /mcp/sse.
    lines = [
        Route(base + path, handler, methods=[*methods, "OPTIONS"])
        for base in ("", "/mcp/{name}", "/servers/{name}")
        for path, handler, methods in (("/sse", pages.line, ["GET"]), ("/messages", pages.said, ["POST"]))
    ]
    health = [Route("/healthz", pages.healthz), Route("/readyz", pages.readyz)]
    identity = [*oauth_routes(desk), *connecting_routes(desk)]
    routes, broken = [*endpoint, *lines, *health, *identity], {404: _not_found, 500: _broken}
    app = Starlette(routes=routes, exception_handlers=broken, middleware=[Middleware(PlainCookies)])
    # A redirect would lead to where the Host header says, without TLS, and clients send their secrets along.
    app.router.redirect_slashes = False
    return app


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
        return await self._governed(request, door, self._answer)

    async def line(self, request: Request) -> Response:
        """``GET …/sse``: a new line."""
        return await self._on_line(request, b"/sse", self._open_line)

    async def said(self, request: Request) -> Response:
        """``POST …/messages``: a message on an open line."""
        return await self._on_line(request, b"/messages", self._take)

    async def _on_line(self, request: Request, suffix: bytes, answer: Answering) -> Response:
        base = request.scope["raw_path"].partition(b"?")[0].removesuffix(suffix)
        door = self.desk.door(base + b"/mcp" if not base or base.startswith(b"/servers/") else base)
        if door is None:
            return _error(404, "There is no such endpoint.")
        if request.method == "OPTIONS":
            return self._preflight(request)
        return await self._governed(request, door, answer)

    async def _governed(self, request: Request, door: str, answer: Answering) -> Response:
        """The answer to a request whose sender is recognised, whatever becomes of it."""
        try:
            who = await self.desk.recognise(dict(request.scope["headers"]), door, shown_by(request, self.house))
            response = await answer(request, who, door)
        except Unauthenticated as error:
            self.house.refusals.stranger(error, door)
            response = _error(401, error.message, refusal(error, door, self.house), error.rpc_code)
        except CallgateError as error:
            status = getattr(error, "http_status", 429 if isinstance(error, Overloaded) else 400)
            response = _error(status, f"{error.message} {error.hint}".strip())
        if origin := request.headers.get("origin"):  # the lane refused every other Origin already
            response.headers["access-control-allow-origin"] = origin
            response.headers["vary"] = "origin"
        return response

    async def _answer(self, request: Request, who: Principal, door: str) -> Response:
        if request.method not in ("GET", "DELETE"):
            return _error(405, "Use POST.", {"allow": METHODS})
        id = request.headers.get("mcp-session-id")
        if id is None:
            return _error(405, "GET and DELETE need a session of the legacy era.", {"allow": METHODS})
        session = self.house.sessions.find(id.encode("latin-1"), who, door)
        if request.method == "DELETE":
            self.house.sessions.end(session)
            return Response(status_code=204)
        _check_reads(request)
        last = request.headers.get("last-event-id")
        full = self.house.streams_of(who) >= self.house.settings.limits.max_streams
        if full and not session.takes_over(last):
            raise Overloaded("Too many open streams for this caller.")
        stream = session.listen(last)
        return EventStream(stream, lambda: session.leave(stream), self._left(who), {"mcp-session-id": session.id})

    async def _open_line(self, request: Request, who: Principal, door: str) -> Response:
        _check_reads(request)
        line = self.house.lines.open(who, door)
        path = request.scope["raw_path"].partition(b"?")[0].removesuffix(b"/sse")
        where = b"event: endpoint\ndata: %b/messages?session=%b\n\n" % (path, line.id.encode())
        return EventStream(line.stream, lambda: self.house.lines.leave(line), self._left(who), first=where)

    def _left(self, who: Principal) -> Callable[[], float]:
        return lambda: self.house.recogniser.left(who)

    async def _take(self, request: Request, who: Principal, door: str) -> Response:
        line = self.house.lines.find(request.query_params.get("session", ""), who, door)
        self.desk.check_content(dict(request.scope["headers"]))
        body = await request.body()
        line.take(wire.read(body, self.house.settings.limits.max_depth), who, len(body))
        return Response("Accepted", status_code=202)

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
        """The process lives. A caller on this machine is told where the admin listener is; one that sends a nonce also
        gets the proof that this is the gateway whose token it is about to show.
        """
        answer: dict[str, Any] = {"status": "ok", "version": __version__}
        if _from_here(request) and self.admin_url:
            answer["admin"] = self.admin_url
            folder = self.house.loaded.data_dir
            answer["operator_token_file"] = str(folder / "operator.token")
            if nonce := request.query_params.get("nonce", "")[:64]:
                with contextlib.suppress(ConfigError):  # the admin API said at the start what is wrong with the file
                    token = await asyncio.to_thread(operator_token, folder)
                    answer["operator_proof"] = operator_proof(token, self.admin_url.rstrip("/"), nonce)
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


def _check_reads(request: Request) -> None:
    if "text/event-stream" not in request.headers.get("accept", ""):
        raise ProtocolError("Accept must list text/event-stream.", status=406)


def _from_here(request: Request) -> bool:
    """Whether the caller is on this machine, and not behind a proxy that is."""
    passed_on = any(name in FORWARDED for name, _ in request.scope["headers"])
    return request.client is not None and is_loopback(request.client.host) and not passed_on


class EventStream(StreamingResponse):
    """A stream on its way to a client, until it ends, however it ends (then ``leave`` is called), at the latest when
    the credential ends that opened it: ``left`` says in how many seconds. ``first`` is what it begins with.
    """

    def __init__(
        self,
        stream: Stream,
        leave: Callable[[], None],
        left: Callable[[], float],
        more: Mapping[str, str] = NO_HEADERS,
        first: bytes = b":\n\n",
    ) -> None:
        self.stream = stream
        self.leave = leave
        self.left = left
        self.first = first
        headers = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no", **more}
        super().__init__(self._events(), media_type="text/event-stream", headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.leave()

    async def _events(self) -> AsyncIterator[bytes]:
        yield self.first
        for missed in self.stream.missed:
            yield _written(missed)
        while (left := self.left()) > 0:
            try:
                event = await asyncio.wait_for(self.stream.get(), min(WARM, left))
            except TimeoutError:
                yield b":\n\n"
                continue
            if event is None or not self.left():
                return
            yield _written(event)


def _written(event: Event) -> bytes:
    id, message = event
    return KEPT_EVENT % (id.encode(), message) if id else EVENT % message


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

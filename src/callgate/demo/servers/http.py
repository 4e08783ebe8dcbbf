"""A demo server over Streamable HTTP, inside the gateway's process but reached like any other, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import socket
from collections.abc import AsyncIterator

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from callgate.demo.servers.protocol import Offer
from callgate.types import JSON

PATIENCE = 1.0  # seconds that open connections get to close


@contextlib.asynccontextmanager
async def serving(offer: Offer, credential: str) -> AsyncIterator[str]:
    """Serve on a free port of loopback; gives the URL. Only who sends ``credential`` as Authorization is answered."""
    loop = asyncio.get_running_loop()
    config = Config(_app(offer, credential), lifespan="off", access_log=False, log_config=None, ws="none")
    config.load()
    state = ServerState()
    server = await loop.create_server(
        lambda: HttpToolsProtocol(config, state, {}), "127.0.0.1", 0, family=socket.AF_INET
    )
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    finally:
        server.close()
        for connection in tuple(state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while state.connections:
                    await asyncio.sleep(0.01)


def _app(offer: Offer, credential: str) -> Starlette:
    async def endpoint(request: Request) -> Response:
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), credential.encode()):
            return Response(status_code=401)
        message: JSON = msgspec.json.decode(await request.body(), type=dict)
        if "progressToken" in message.get("params", {}).get("_meta", {}):
            return StreamingResponse(_events(offer, message), media_type="text/event-stream")
        answer = await offer.answer(message, _ignore)
        if answer is None:
            return Response(status_code=202)
        status = 404 if "error" in answer else 200
        return Response(msgspec.json.encode(answer), status, media_type="application/json")

    return Starlette(routes=[Route("/mcp", endpoint, methods=["POST"])])


async def _ignore(message: JSON) -> None:
    """Nobody asked for progress."""


async def _events(offer: Offer, message: JSON) -> AsyncIterator[bytes]:
    said: asyncio.Queue[JSON | None] = asyncio.Queue()
    work = asyncio.create_task(offer.answer(message, said.put))
    work.add_done_callback(lambda _: said.put_nowait(None))
    try:
        while (note := await said.get()) is not None:  # the answer, or the client going away, ends it
            yield _event(note)
        yield _event(await work)
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


def _event(message: JSON | None) -> bytes:
    return b"event: message\ndata: " + msgspec.json.encode(message) + b"\n\n"

"""A legacy HTTP server that asks its client on the stream of the call, or on its own stream."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from tests.servers.mcp_http import LegacyServer, error_of, note, result_of
from tests.servers.raw_http import Peer, Request

FORM = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}


@dataclass
class AskingServer(LegacyServer):
    """``ask`` asks on the stream of the call (``aside``: on the server's own) and answers with what it was told.

    ``stateless``: it gives no session ids. ``hellos`` are the parameters of ``initialize``, ``asked`` counts.
    """

    listens: bool = True
    stateless: bool = False
    hellos: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[Any, asyncio.Future[Any]] = field(default_factory=dict)
    own: dict[str, Peer] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    async def __call__(self, request: Request, peer: Peer) -> None:
        session = request.headers.get("mcp-session-id", "")
        if request.method == "GET":
            self.own[session] = peer
        if request.method == "POST":
            message = request.message
            if message.get("method") == "initialize":
                self.hellos.append(message["params"])
                if self.stateless:
                    hello = {"protocolVersion": self.version, "capabilities": {"tools": {}}, "serverInfo": {}}
                    peer.json(result_of(message["id"], hello))
                    return
            if "method" not in message and message["id"] in self.answers:
                self.answers[message["id"]].set_result(message.get("result", message.get("error")))
            if message.get("method") == "tools/call":
                self.calls.append(session)
                if message["params"]["name"] == "ask":
                    await self._ask(message, peer, session)
                    return
        if self.stateless and not session and request.method == "POST":
            self.sessions[:] = ["s"]
            await self._post(request, peer, "s")
            return
        await super().__call__(request, peer)

    async def _ask(self, message: dict[str, Any], peer: Peer, session: str) -> None:
        ident, arguments = message["id"], message["params"]["arguments"]
        peer.sse_head()
        peer.chunk(b": on\n\n")
        question = arguments.get("id", f"q{ident}")
        self.answers[question] = asyncio.get_running_loop().create_future()
        asked = {"method": arguments.get("method", "elicitation/create"), "params": arguments.get("params", FORM)}
        where = self.own[session] if arguments.get("aside") else peer
        where.event({"jsonrpc": "2.0", "id": question, **asked})
        if arguments.get("twice"):
            where.event({"jsonrpc": "2.0", "id": question, **asked})
        peer.event(note("notifications/message", level="info", data="asked"))
        if arguments.get("withdraw"):
            cancelled = {"method": "notifications/cancelled", "params": {"requestId": question}}
            where.event({"jsonrpc": "2.0", **cancelled})
        gone = asyncio.create_task(peer.closed())
        await asyncio.wait({self.answers[question], gone}, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        await asyncio.wait({gone})
        if not self.answers[question].done():
            peer.gone.set()
            return
        peer.event(result_of(ident, {"content": [], "told": self.answers[question].result(), "session": session}))
        peer.chunk(b"")


@dataclass
class BothAsking:
    """Modern, and legacy for those who ask for it: ``refuses`` answers ``initialize`` with an error."""

    modern: Any
    legacy: AskingServer
    refuses: bool = False
    refused: int = 0

    async def __call__(self, request: Request, peer: Peer) -> None:
        if "mcp-method" in request.headers:
            await self.modern(request, peer)
        elif self.refuses:
            self.refused += 1
            peer.json(error_of(request.message.get("id"), -32601, "no initialize"), 400)
        else:
            await self.legacy(request, peer)

"""MCP servers of both eras over the scripted HTTP server, with the quirks that tests need."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from tests.servers.raw_http import Peer, RawServer, Request

TOOLS = [
    {"name": name, "description": f"{name} it", "inputSchema": {"type": "object"}}
    for name in ("echo", "progress", "log", "hang", "fail", "ask")
]


def result_of(ident: Any, result: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": ident, "result": result}


def error_of(ident: Any, code: int, message: str = "no", data: Any = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": ident, "error": {"code": code, "message": message, "data": data}}


def note(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params}


@dataclass
class ModernServer:
    """2026-07-28 only. ``discover_status`` and ``discover_error`` break the handshake."""

    discover_status: int = 200
    discover_error: int | None = None
    ttl_ms: int | None = None
    tools: list[dict[str, Any]] = field(default_factory=lambda: list(TOOLS))
    hung: list[Peer] = field(default_factory=list)

    async def __call__(self, request: Request, peer: Peer) -> None:
        message = request.message
        ident, method = message.get("id"), message["method"]
        if method == "server/discover":
            if self.discover_error is not None:
                peer.json(error_of(ident, self.discover_error), self.discover_status)
            elif self.discover_status != 200:
                peer.body(b"", self.discover_status)
            else:
                peer.json(result_of(ident, _discovered()))
        elif method == "tools/list":
            hints = {} if self.ttl_ms is None else {"ttlMs": self.ttl_ms, "cacheScope": "public"}
            peer.json(result_of(ident, {"tools": self.tools, "resultType": "complete", **hints}))
        elif method == "tools/call":
            await self.call(request, peer)
        else:
            peer.json(error_of(ident, -32601), 404)

    async def call(self, request: Request, peer: Peer) -> None:
        message = request.message
        ident, params = message["id"], message["params"]
        done = {"content": [{"type": "text", "text": "done"}], "resultType": "complete"}
        if params["name"] == "progress":
            peer.sse_head()
            token = params["_meta"].get("progressToken")
            peer.event(note("notifications/progress", progressToken=token, progress=1, total=2))
            peer.event(note("notifications/progress", progressToken="someone else's", progress=9))
            peer.event(result_of(ident, done))
            peer.chunk(b"")
        elif params["name"] == "log":
            peer.sse_head()
            for level in ("debug", "warning"):
                peer.event(note("notifications/message", level=level, data=level))
            peer.event(result_of(ident, done))
            peer.chunk(b"")
        elif params["name"] == "hang":
            self.hung.append(peer)
            await peer.closed()
            peer.gone.set()
        elif params["name"] == "fail":
            peer.json(error_of(ident, -32602, "bad argument", {"why": 1}), 400)
        else:
            peer.json(result_of(ident, {"content": [], "echo": params, "isError": params["arguments"].get("fail")}))


def _discovered() -> dict[str, Any]:
    return {
        "supportedVersions": ["2026-07-28"],
        "capabilities": {"tools": {"listChanged": True}, "logging": {}},
        "instructions": "be kind",
        "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "modern", "version": "1"}},
        "resultType": "complete",
    }


@dataclass
class LegacyServer:
    """2025-11-25 with sessions. ``listens``: it has a GET stream."""

    version: str = "2025-11-25"
    listens: bool = False
    sessions: list[str] = field(default_factory=list)
    streams: list[Peer] = field(default_factory=list)
    responses: list[dict[str, Any]] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    tools: list[dict[str, Any]] = field(default_factory=lambda: list(TOOLS))
    listening: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, request: Request, peer: Peer) -> None:
        session = request.headers.get("mcp-session-id", "")
        if request.method == "DELETE":
            self.deleted.append(session)
            peer.body(b"", 200)
        elif request.method == "GET":
            await self._listen(peer)
        else:
            await self._post(request, peer, session)

    async def _listen(self, peer: Peer) -> None:
        if not self.listens:
            peer.body(b"", 405)
            return
        peer.sse_head()
        peer.chunk(b": hello\n\n")
        self.streams.append(peer)
        self.listening.set()
        await peer.closed()

    async def _post(self, request: Request, peer: Peer, session: str) -> None:
        message = request.message
        ident, method = message.get("id"), message.get("method")
        if method is None:
            self.responses.append(message)
            peer.body(b"", 202)
        elif method == "initialize":
            self.sessions.append(f"s{len(self.sessions) + 1}")
            hello = {
                "protocolVersion": self.version,
                "capabilities": {"tools": {}, "logging": {}},
                "serverInfo": {"name": "legacy"},
            }
            peer.json(result_of(ident, hello), more=f"mcp-session-id: {self.sessions[-1]}\r\n")
        elif not session:
            peer.json(error_of("server-error", -32600, "Bad Request: Missing session ID"), 400)
        elif session not in self.sessions:
            peer.json(error_of("server-error", -32001, "Session not found"), 404)
        elif ident is None:
            if method == "notifications/cancelled":
                self.cancelled.append(message["params"]["requestId"])
            peer.body(b"", 202)
        elif method == "tools/list":
            peer.json(result_of(ident, {"tools": self.tools}))
        elif method == "tools/call":
            await self._call(message, peer)
        else:
            peer.json(result_of(ident, {}))

    async def _call(self, message: dict[str, Any], peer: Peer) -> None:
        ident, params = message["id"], message["params"]
        done = {"content": [{"type": "text", "text": "done"}]}
        if params["name"] == "hang":
            await peer.closed()
            peer.gone.set()
            return
        peer.sse_head()
        if params["name"] == "progress":
            token = params["_meta"]["progressToken"]
            peer.event(note("notifications/progress", progressToken=token, progress=1))
        if params["name"] == "log":
            peer.event(note("notifications/message", level="debug", data="d"))
            peer.event(note("notifications/message", level="error", data="e"))
        if params["name"] == "ask":
            peer.event({"jsonrpc": "2.0", "id": "q1", "method": "sampling/createMessage", "params": {}})
            peer.event({"jsonrpc": "2.0", "id": 7, "method": "ping"})
        peer.event(result_of(ident, done))
        peer.chunk(b"")


def serve(server: ModernServer | LegacyServer) -> RawServer:
    return RawServer(server)

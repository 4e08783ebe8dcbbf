"""A scripted server of HTTP+SSE (2024-11-05): one stream for each session, messages come to an address of their own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.servers.mcp_http import error_of, note, result_of
from tests.servers.raw_http import Peer, Request

FORM = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}
NAMES = ("echo", "ask", "hold", "progress", "log", "more", "later", "close", "write")


@dataclass
class SseServer:
    """``endpoint`` is what the stream names (empty: nothing), ``status`` what a GET is answered, ``posted`` what a POST
    to the URL of the stream is answered. ``refuses`` gives the status for messages by tool or method, and ``slow``
    answers POSTs only when the call is answered. ``heard`` are all messages with their sessions.
    """

    endpoint: str = "/messages?session={session}"
    status: int = 200
    posted: tuple[int, bytes] = (405, b"")
    refuses: Mapping[str, int] = field(default_factory=dict)
    slow: bool = False
    sessions: dict[str, Peer] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    heard: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    answers: dict[str, asyncio.Future[Any]] = field(default_factory=dict)
    answering: set[asyncio.Task[None]] = field(default_factory=set)

    async def __call__(self, request: Request, peer: Peer) -> None:
        path, _, query = request.target.partition("?")
        if request.method == "GET":
            await self._stream(peer)
        elif path != "/messages":
            peer.body(self.posted[1].replace(b"ID", b"%d" % request.message.get("id", 0)), self.posted[0])
        else:
            await self._posted(request.message, query.removeprefix("session="), peer)

    async def _stream(self, peer: Peer) -> None:
        if self.status != 200:
            peer.body(b"", self.status)
            return
        session = f"s{len(self.sessions) + 1}"
        self.sessions[session] = peer
        peer.sse_head()
        peer.chunk(b": hello\n\n")
        if self.endpoint:
            peer.chunk(b"event: endpoint\ndata: %b\n\n" % self.endpoint.format(session=session).encode())
        while await peer.reader.read(65536):
            pass
        self.gone.add(session)

    async def _posted(self, message: dict[str, Any], session: str, peer: Peer) -> None:
        stream = self.sessions.get(session)
        if stream is None or session in self.gone:
            peer.body(b"no such session", 404)
            return
        self.heard.append((session, message))
        name = message.get("params", {}).get("name")
        if (status := self.refuses.get(name, self.refuses.get(message.get("method", "")))) is not None:
            peer.body(b"no", status)
            return
        if "method" not in message:
            self.answers[message["id"]].set_result(message.get("result", message.get("error")))
        elif "id" in message:
            answering = asyncio.create_task(self._answer(message, session, stream))
            self.answering.add(answering)
            answering.add_done_callback(self.answering.discard)
            if self.slow:
                await answering
        peer.body(b"Accepted", 202, kind="text/plain")

    async def _answer(self, message: dict[str, Any], session: str, stream: Peer) -> None:
        ident, method = message["id"], message["method"]
        if method == "initialize":
            capabilities = {"tools": {"listChanged": True}, "logging": {}}
            hello = {"protocolVersion": "2024-11-05", "capabilities": capabilities, "serverInfo": {"name": "old"}}
            stream.event(result_of(ident, hello))
        elif method == "tools/list":
            listed = [{"name": name, "inputSchema": {"type": "object"}} for name in NAMES]
            stream.event(result_of(ident, {"tools": listed}))
        elif method == "tools/call":
            await self._call(message, session, stream)
        elif method in ("ping", "logging/setLevel"):
            stream.event(result_of(ident, {}))
        else:
            stream.event(error_of(ident, -32601))

    async def _call(self, message: dict[str, Any], session: str, stream: Peer) -> None:
        ident, params = message["id"], message["params"]
        arguments = params["arguments"]
        result: dict[str, Any] = {"content": [{"type": "text", "text": "done"}], "session": session, "params": params}
        match params["name"]:
            case "hold":
                return
            case "close":
                stream.chunk(b"")
                stream.close()
                return
            case "write":
                stream.chunk(arguments["bytes"].encode())
            case "progress":
                token = params["_meta"]["progressToken"]
                stream.event(note("notifications/progress", progressToken=token, progress=1))
            case "log":
                stream.event(note("notifications/message", level="error", data="e"))
            case "more":
                stream.event(note("notifications/tools/list_changed"))
            case "ask":
                asked = {"method": arguments.get("method", "elicitation/create"), "params": FORM}
                told = await self.ask(f"q{ident}", stream, **asked)
                result |= {"told": told, "content": [{"type": "text", "text": json.dumps(told)}]}
        stream.event(result_of(ident, result))
        if params["name"] == "later":
            await self.ask("late", stream, method="elicitation/create", params=FORM)

    async def ask(self, ident: str, stream: Peer, **asked: Any) -> Any:
        self.answers[ident] = asyncio.get_running_loop().create_future()
        stream.event({"jsonrpc": "2.0", "id": ident, **asked})
        return await self.answers[ident]

    def said(self, method: str) -> list[dict[str, Any]]:
        return [message for _, message in self.heard if message.get("method") == method]

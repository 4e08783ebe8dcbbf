"""Upstream servers with prompts, resources, templates and completions, which remember what they were asked."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.gateway.upstreams import Legacy, Modern
from tests.servers.mcp_http import error_of, result_of
from tests.servers.raw_http import Peer, Request

EVERYTHING: dict[str, Any] = {"tools": {}, "prompts": {}, "resources": {"subscribe": True}, "completions": {}}


class Shelf:
    """What a library holds, and what was asked of it: the method and the params without ``_meta``."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.prompts: list[dict[str, Any]] = [{"name": "review"}]
        self.resources: list[dict[str, Any]] = [{"uri": "file:///pub/a.txt", "name": "a"}]
        self.templates: list[dict[str, Any]] = [{"uriTemplate": "file:///{path}", "name": "any"}]
        self.capabilities = EVERYTHING
        self.hints: dict[str, Any] = {}
        self.says: dict[str, Any] = {}
        self.fails: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.named: list[str | None] = []
        self.open = asyncio.Event()
        self.open.set()

    def play(self, message: dict[str, Any], peer: Peer) -> bool:
        method = message["method"]
        lists = {
            "prompts/list": {"prompts": self.prompts},
            "resources/list": {"resources": self.resources},
            "resources/templates/list": {"resourceTemplates": self.templates},
        }
        if method in lists:
            peer.json(result_of(message["id"], {**lists[method], **self.hints}))
            return True
        if method in ("resources/read", "prompts/get", "completion/complete"):
            params = {key: value for key, value in message["params"].items() if key != "_meta"}
            self.asked.append((method, params))
            if method in self.fails:
                code, data = self.fails[method]
                peer.json(error_of(message["id"], code, "not here", data), 200)
            else:
                peer.json(result_of(message["id"], self.says.get(method, {"contents": [], "messages": []})))
            return True
        return False


class ModernLibrary(Shelf, Modern):
    """``named`` are the ``Mcp-Name`` headers of what was asked; nothing is answered before ``open`` is set."""

    async def __call__(self, request: Request, peer: Peer) -> None:
        await self.open.wait()
        message = request.message
        if message["method"] in ("resources/read", "prompts/get", "completion/complete"):
            self.named.append(request.headers.get("mcp-name"))
        if message["method"] == "server/discover":
            hello = {"supportedVersions": ["2026-07-28"], "capabilities": self.capabilities, "resultType": "complete"}
            peer.json(result_of(message["id"], hello))
        elif message["method"] == "tools/list":
            peer.json(result_of(message["id"], {"tools": self.tools, "resultType": "complete", **self.hints}))
        elif not self.play(message, peer):
            await super().__call__(request, peer)


class LegacyLibrary(Shelf, Legacy):
    async def _post(self, request: Request, peer: Peer, session: str) -> None:
        message = request.message
        if message.get("method") == "initialize":
            self.sessions.append(f"s{len(self.sessions) + 1}")
            hello = {"protocolVersion": self.version, "capabilities": self.capabilities, "serverInfo": {"name": "l"}}
            peer.json(result_of(message["id"], hello), more=f"mcp-session-id: {self.sessions[-1]}\r\n")
        elif "id" not in message or "method" not in message or not self.play(message, peer):
            await super()._post(request, peer, session)


def library(era: str) -> ModernLibrary | LegacyLibrary:
    return ModernLibrary() if era == "modern" else LegacyLibrary()

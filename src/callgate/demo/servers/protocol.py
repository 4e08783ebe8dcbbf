"""What the demo servers have in common: JSON-RPC messages in, answers out, in either protocol era.

Sources: MCP 2026-07-28 (modern) and 2025-11-25 (legacy), the parts about tools.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from callgate.types import JSON

MODERN, LEGACY = "2026-07-28", "2025-11-25"
HOP = "io.modelcontextprotocol/"
JSON_TYPES = {str: "string", int: "integer", float: "number"}

Say = Callable[[JSON], Awaitable[None]]
Tell = Callable[[int, int], Awaitable[None]]


class ToolFailure(Exception):
    """The tool says that it failed; the sentence goes to the caller."""


class DemoTool(msgspec.Struct, frozen=True):
    """``arguments`` maps names to types, all of them required. ``work`` gets them by name and, if ``tells``, a
    function ``tell(done, of)`` for progress as its first argument.
    """

    name: str
    description: str
    arguments: Mapping[str, type]
    work: Callable[..., Any]
    reads: bool = False
    tells: bool = False

    def definition(self) -> JSON:
        properties = {name: {"type": JSON_TYPES[kind]} for name, kind in self.arguments.items()}
        schema = {"type": "object", "properties": properties, "required": list(self.arguments)}
        hints = {"readOnlyHint": self.reads, "destructiveHint": not self.reads, "openWorldHint": False}
        return {"name": self.name, "description": self.description, "inputSchema": schema, "annotations": hints}

    def checked(self, given: Any) -> dict[str, Any]:
        """The arguments, if they are what was asked for; raises ``ToolFailure``."""
        if not isinstance(given, dict) or given.keys() != self.arguments.keys():
            raise ToolFailure(f"{self.name} takes {', '.join(self.arguments) or 'no arguments'}.")
        try:
            return {name: msgspec.convert(given[name], kind) for name, kind in self.arguments.items()}
        except msgspec.ValidationError as error:
            raise ToolFailure(f"{error}.") from None


class Offer:
    """One server: its name and tools. ``modern`` says which era it speaks."""

    def __init__(self, name: str, tools: Sequence[DemoTool], *, modern: bool) -> None:
        self.name = name
        self.modern = modern
        self._tools = {tool.name: tool for tool in tools}
        self._info = {"name": f"callgate-demo-{name}", "version": "1"}

    async def answer(self, message: JSON, say: Say) -> JSON | None:
        """The response to one message, ``None`` for a notification. ``say`` sends what comes before it."""
        if "id" not in message:
            return None
        params = message.get("params") or {}
        method = message.get("method")
        if method == "tools/call" and params.get("name") in self._tools:
            result = await self._call(params, say)
        elif (own := self._own(method)) is not None:
            result = own
        else:
            return {
                "jsonrpc": "2.0",
                "id": message["id"],
                "error": {"code": -32601, "message": "Unknown method or tool"},
            }
        if self.modern:
            result = {"resultType": "complete", **result}
        return {"jsonrpc": "2.0", "id": message["id"], "result": result}

    def _own(self, method: Any) -> JSON | None:
        tools: JSON = {"tools": {}}
        if method == "tools/list":
            listed: JSON = {"tools": [tool.definition() for tool in self._tools.values()]}
            return listed | ({"ttlMs": 60_000, "cacheScope": "public"} if self.modern else {})
        if method == "server/discover" and self.modern:
            info = {f"{HOP}serverInfo": self._info}
            return {
                "supportedVersions": [MODERN],
                "capabilities": tools,
                "ttlMs": 0,
                "cacheScope": "public",
                "_meta": info,
            }
        if method == "initialize" and not self.modern:
            return {"protocolVersion": LEGACY, "capabilities": tools, "serverInfo": self._info}
        return {} if method == "ping" and not self.modern else None

    async def _call(self, params: JSON, say: Say) -> JSON:
        tool = self._tools[params["name"]]
        token = (params.get("_meta") or {}).get("progressToken")

        async def tell(done: int, of: int) -> None:
            if token is not None:
                told = {"progressToken": token, "progress": done, "total": of}
                await say({"jsonrpc": "2.0", "method": "notifications/progress", "params": told})

        try:
            arguments = tool.checked(params.get("arguments") or {})
            found = tool.work(tell, **arguments) if tool.tells else tool.work(**arguments)
            found = await found if inspect.isawaitable(found) else found
        except ToolFailure as failure:
            return {"content": [{"type": "text", "text": str(failure)}], "isError": True}
        text = msgspec.json.encode(found).decode()
        return {"content": [{"type": "text", "text": text}], "structuredContent": found}

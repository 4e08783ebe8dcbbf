"""The agents' side: two small MCP clients over Streamable HTTP, one of each era, that know only the gateway."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from callgate.egress import HttpPool, Response, encode_headers
from callgate.errors import UpstreamError
from callgate.types import JSON

DEADLINE = 30.0
HOP = "io.modelcontextprotocol/"
INFO = {"name": "callgate-demo-agent", "version": "1"}

Heard = Callable[[int, int], None]


class Client:
    """What both eras share. ``url`` is the gateway's ``/mcp``, ``key`` the agent's own."""

    def __init__(self, pool: HttpPool, url: str, key: str) -> None:
        self._origin = pool.origin(url)
        self._ids = itertools.count(1)
        self._common = {
            "authorization": f"Bearer {key}",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
        }

    async def list(self) -> int:
        """How many tools the agent is shown."""
        count, cursor = 0, None
        while True:
            page = (await self.ask("tools/list", {"cursor": cursor} if cursor else {})).get("result", {})
            count += len(page.get("tools", ()))
            cursor = page.get("nextCursor")
            if cursor is None:
                return count

    async def call(self, tool: str, arguments: Mapping[str, Any], heard: Heard | None = None) -> JSON:
        """One ``tools/call``; the answer, whatever it says. ``heard`` gets progress: done, and of how much."""
        params: JSON = {"name": tool, "arguments": arguments}
        if heard is not None:
            params["_meta"] = {"progressToken": next(self._ids)}
        return await self.ask("tools/call", params, heard)

    async def ask(self, method: str, params: JSON, heard: Heard | None = None) -> JSON:
        raise NotImplementedError

    async def _post(self, message: JSON, headers: Mapping[str, str]) -> Response:
        body = msgspec.json.encode({"jsonrpc": "2.0", **message})
        head = encode_headers({**self._common, **headers, "content-length": str(len(body))})
        data = self._origin.start_line("POST") + head + b"\r\n" + body
        return await self._origin.request(data, asyncio.get_running_loop().time() + DEADLINE, events=True)


class ModernClient(Client):
    """2026-07-28: no session; every request says everything."""

    async def ask(self, method: str, params: JSON, heard: Heard | None = None) -> JSON:
        own = {f"{HOP}protocolVersion": "2026-07-28", f"{HOP}clientInfo": INFO, f"{HOP}clientCapabilities": {}}
        params = {**params, "_meta": {**params.get("_meta", {}), **own}}
        headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": method}
        if "name" in params:
            headers["mcp-name"] = params["name"]
        return await _answer(
            await self._post({"id": next(self._ids), "method": method, "params": params}, headers), heard
        )


class LegacyClient(Client):
    """2025-11-25: ``initialize`` opens a session, whose id goes with everything that follows."""

    _session: Mapping[str, str] | None = None

    async def ask(self, method: str, params: JSON, heard: Heard | None = None) -> JSON:
        if self._session is None:
            self._session = await self._initialize()
        message = {"id": next(self._ids), "method": method, "params": params}
        return await _answer(await self._post(message, self._session), heard)

    async def _initialize(self) -> dict[str, str]:
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": INFO}
        response = await self._post({"id": next(self._ids), "method": "initialize", "params": params}, {})
        version = (await _answer(response, None))["result"]["protocolVersion"]
        id = response.headers[b"mcp-session-id"].decode()
        session = {"mcp-protocol-version": version, "mcp-session-id": id}
        await self._post({"method": "notifications/initialized"}, session)
        return session


async def _answer(response: Response, heard: Heard | None) -> JSON:
    if response.events is None:
        return msgspec.json.decode(response.body, type=dict)
    while (event := await response.events.next()) is not None:
        if not event:
            continue  # it only says where the stream could be taken up again
        message: JSON = msgspec.json.decode(event, type=dict)
        if "method" not in message:
            response.events.finish()
            return message
        if message["method"] == "notifications/progress" and heard is not None:
            heard(message["params"]["progress"], message["params"]["total"])
    raise UpstreamError("ended its event stream without an answer")

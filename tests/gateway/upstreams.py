"""Upstream servers that say what the test wants, on real sockets, and remember what they were asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.servers.mcp_http import LegacyServer, ModernServer, error_of, note, result_of
from tests.servers.raw_http import Peer, RawServer, Request

Act = Callable[[Any, Peer], Awaitable[None]]


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"}, **more}


def tools(*names: str) -> list[dict[str, Any]]:
    return [tool(name) for name in names]


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": said}], "resultType": "complete", **more}


@dataclass
class Script:
    """What tools do: ``says`` gives results, ``fails`` JSON-RPC errors, ``acts`` does anything."""

    says: Mapping[str, Any] = field(default_factory=dict)
    fails: Mapping[str, tuple[int, Any]] = field(default_factory=dict)
    acts: Mapping[str, Act] = field(default_factory=dict)
    called: list[dict[str, Any]] = field(default_factory=list)

    async def play(self, message: dict[str, Any], peer: Peer) -> bool:
        self.called.append(message)
        name = message["params"]["name"]
        if name in self.says:
            peer.json(result_of(message["id"], self.says[name]))
        elif name in self.fails:
            code, data = self.fails[name]
            peer.json(error_of(message["id"], code, "that went wrong", data))
        elif name in self.acts:
            await self.acts[name](message, peer)
        else:
            return False
        return True

    @property
    def offered(self) -> list[dict[str, Any]]:
        return tools(*self.says, *self.fails, *self.acts)


class Modern(ModernServer):
    """Plays a script on top of the tools of ``ModernServer``."""

    def __init__(self, script: Script | None = None, extra: Iterable[dict[str, Any]] = (), **more: Any) -> None:
        super().__init__(**more)
        self.script = script or Script()
        self.tools = [*self.tools, *self.script.offered, *extra]

    async def call(self, request: Request, peer: Peer) -> None:
        if not await self.script.play(request.message, peer):
            await super().call(request, peer)


class Legacy(LegacyServer):
    """Plays a script on top of the tools of ``LegacyServer``."""

    def __init__(self, script: Script | None = None, **more: Any) -> None:
        super().__init__(**more)
        self.script = script or Script()
        self.tools = [*self.tools, *self.script.offered]

    async def _call(self, message: dict[str, Any], peer: Peer) -> None:
        if not await self.script.play(message, peer):
            await super()._call(message, peer)


class Hung:
    """Accepts connections and requests, and never answers."""

    async def __call__(self, request: Request, peer: Peer) -> None:
        await asyncio.Event().wait()


def streaming(*said: Mapping[str, Any], then: Any = None, gate: asyncio.Event | None = None) -> Act:
    """An event stream with these notifications (``TOKEN`` becomes the progress token), then the result."""

    async def act(message: Any, peer: Peer) -> None:
        peer.sse_head()
        token = message["params"].get("_meta", {}).get("progressToken")
        for each in said:
            params = {key: token if value == "TOKEN" else value for key, value in each["params"].items()}
            peer.event({**each, "params": params})
        if gate is not None:
            await gate.wait()
        peer.event(result_of(message["id"], then if then is not None else text("done")))
        peer.chunk(b"")

    return act


def progress(step: int, **more: Any) -> dict[str, Any]:
    return note("notifications/progress", progressToken="TOKEN", progress=step, **more)


def logged(level: str) -> dict[str, Any]:
    return note("notifications/message", level=level, data=level)


def waiting(gate: asyncio.Event, began: asyncio.Event | None = None, then: Any = None) -> Act:
    """A tool that answers when the gate opens."""

    async def act(message: Any, peer: Peer) -> None:
        if began is not None:
            began.set()
        await gate.wait()
        peer.json(result_of(message["id"], then if then is not None else text("at last")))

    return act


def serve(server: Any) -> RawServer:
    return RawServer(server)


def http(server: RawServer, era: str = "modern", **more: Any) -> dict[str, Any]:
    """The configuration of an upstream."""
    return {"url": server.url, "protocol": era, **more}

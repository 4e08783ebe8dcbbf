"""Upstream servers that tell of changes when the test says so, in both eras, and remember who wanted to hear."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from tests.servers.mcp_http import LegacyServer, ModernServer, error_of, note, result_of
from tests.servers.raw_http import Peer, RawServer, Request

SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
UPDATED = "notifications/resources/updated"
URIS = ("note:1", "note:2", "note:secret")


def resources(*uris: str) -> list[dict[str, Any]]:
    return [{"uri": uri, "name": uri} for uri in uris]


def stamped(method: str, ident: Any, **params: Any) -> dict[str, Any]:
    return note(method, **params, _meta={SUBSCRIPTION: ident})


@dataclass
class Listener:
    """One open ``subscriptions/listen`` at the server."""

    id: Any
    wanted: dict[str, Any]
    peer: Peer
    open: bool = True
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, method: str, **params: Any) -> None:
        self.peer.event(stamped(method, self.id, **params))

    def finish(self) -> None:
        self.peer.event(result_of(self.id, {"resultType": "complete", "_meta": {SUBSCRIPTION: self.id}}))
        self.peer.chunk(b"")
        self.done.set()


@dataclass
class Teller(ModernServer):
    """A modern server with resources and ``subscriptions/listen``. ``deaf_to`` are URIs that it does not agree to,
    ``mute`` keeps acknowledgements back until it is set.
    """

    listeners: list[Listener] = field(default_factory=list)
    heard: list[dict[str, Any]] = field(default_factory=list)
    deaf_to: tuple[str, ...] = ()
    mute: asyncio.Event | None = None
    uris: tuple[str, ...] = URIS
    listed: int = 0

    async def __call__(self, request: Request, peer: Peer) -> None:
        message = request.message
        ident, method = message.get("id"), message["method"]
        if method == "server/discover":
            offered = {"listChanged": True}
            capabilities = {"tools": offered, "prompts": offered, "resources": {**offered, "subscribe": True}}
            found = {"supportedVersions": ["2026-07-28"], "resultType": "complete",
                     "capabilities": capabilities,
                     "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "teller", "version": "1"}}}  # fmt: skip
            peer.json(result_of(ident, found))
        elif method == "resources/list":
            peer.json(result_of(ident, {"resources": resources(*self.uris), "resultType": "complete"}))
        elif method == "prompts/list":
            peer.json(result_of(ident, {"prompts": [], "resultType": "complete"}))
        elif method == "subscriptions/listen":
            await self.listen(message, peer)
        else:
            self.listed += method == "tools/list"
            await super().__call__(request, peer)

    async def listen(self, message: dict[str, Any], peer: Peer) -> None:
        self.heard.append(message)
        if self.mute is not None:
            await self.mute.wait()
        wanted = dict(message["params"]["notifications"])
        if "resourceSubscriptions" in wanted:
            wanted["resourceSubscriptions"] = [u for u in wanted["resourceSubscriptions"] if u not in self.deaf_to]
        listener = Listener(message["id"], wanted, peer)
        peer.sse_head()
        listener.tell(ACKNOWLEDGED, notifications=wanted)
        self.listeners.append(listener)
        ends = asyncio.create_task(peer.reader.read(1)), asyncio.create_task(listener.done.wait())
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            listener.open = False
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)

    @property
    def now(self) -> list[Listener]:
        return [each for each in self.listeners if each.open]

    @property
    def wanted(self) -> list[str]:
        """The URIs that somebody listens for now."""
        return sorted({uri for each in self.now for uri in each.wanted.get("resourceSubscriptions", ())})

    def tell(self, method: str, **params: Any) -> None:
        for each in self.now:
            each.tell(method, **params)


@dataclass
class OldTeller(LegacyServer):
    """A legacy server with resources; ``calls`` are the subscriptions it was asked for, by session, ``tools_of`` is
    what it lists to single sessions.
    """

    listens: bool = True
    stateless: bool = False
    uris: tuple[str, ...] = URIS
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    own: dict[str, Peer] = field(default_factory=dict)
    tools_of: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    async def __call__(self, request: Request, peer: Peer) -> None:
        session = request.headers.get("mcp-session-id", "")
        if request.method == "GET":
            self.own[session] = peer
        elif request.method == "POST" and await self._resource(request.message, peer, session):
            return
        await super().__call__(request, peer)

    async def _resource(self, message: dict[str, Any], peer: Peer, session: str) -> bool:
        ident, method = message.get("id"), message.get("method")
        if method == "initialize":
            if not self.stateless:
                self.sessions.append(f"s{len(self.sessions) + 1}")
            offered = {"tools": {"listChanged": True}, "resources": {"subscribe": True, "listChanged": True}}
            hello = {"protocolVersion": self.version, "capabilities": offered, "serverInfo": {"name": "old"}}
            more = "" if self.stateless else f"mcp-session-id: {self.sessions[-1]}\r\n"
            peer.json(result_of(ident, hello), more=more)
        elif method == "resources/list":
            peer.json(result_of(ident, {"resources": resources(*self.uris)}))
        elif method in ("resources/subscribe", "resources/unsubscribe"):
            uri = message["params"]["uri"]
            self.calls.append((method.partition("/")[2], session, uri))
            known = uri in self.uris
            peer.json(result_of(ident, {}) if known else error_of(ident, -32002, "no such resource"))
        elif method == "tools/list" and (self.stateless or session in self.tools_of):
            peer.json(result_of(ident, {"tools": self.tools_of.get(session, self.tools)}))
        elif self.stateless and ident is None:
            peer.body(b"", 202)
        else:
            return False
        return True

    def tell(self, session: str, method: str, **params: Any) -> None:
        self.own[session].event(note(method, **params))


def serve(server: ModernServer | OldTeller) -> RawServer:
    return RawServer(server)

"""Streams of legacy servers that end before they say what was asked for, and streams that nobody listens to yet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from callgate.config.model import Server
from callgate.errors import UpstreamError, UpstreamTimeout
from tests.servers.mcp_http import LegacyServer, ModernServer, error_of, note, result_of, serve
from tests.servers.raw_http import Peer, RawServer, Request
from tests.upstream.house import House

pytestmark = pytest.mark.anyio

DONE = {"content": [{"type": "text", "text": "at last"}]}


@dataclass
class Interrupted(LegacyServer):
    """Ends the stream of a call after these fields, and goes on (``pieces`` times) where it is asked to."""

    fields: bytes = b"id: a1\nretry: 60\ndata:\n\n"
    pieces: int = 1
    refuses: bool = False
    ident: Any = None

    async def _call(self, message: dict[str, Any], peer: Peer) -> None:
        self.ident = message["id"]
        peer.sse_head()
        peer.chunk(self.fields)
        peer.chunk(b"")

    async def __call__(self, request: Request, peer: Peer) -> None:
        if "last-event-id" not in request.headers:
            await super().__call__(request, peer)
        elif self.refuses:
            peer.body(b"", 404)
        else:
            self.pieces -= 1
            peer.sse_head()
            if self.pieces:
                peer.chunk(b"id: a2\nretry: 60\ndata:\n\n")
            else:
                peer.event(note("notifications/progress", progressToken=self.ident, progress=1))
                peer.event(result_of(self.ident, DONE))
            peer.chunk(b"")


def legacy(server: RawServer, **more: Any) -> Server:
    return Server(url=server.url, protocol="legacy", isolation="shared", **more)


def places(server: RawServer) -> list[str]:
    return [request.headers["last-event-id"] for request in server.requests if "last-event-id" in request.headers]


async def test_an_answer_is_looked_for_where_the_server_said_that_it_goes_on(tmp_path: Path) -> None:
    async with serve(Interrupted()) as server, House(tmp_path, s=legacy(server)) as house:
        assert await house.ask("s", "echo") == DONE
    assert places(server) == ["a1"]
    [again] = [request for request in server.requests if "last-event-id" in request.headers]
    assert (again.method, again.headers["mcp-session-id"]) == ("GET", "s1")


async def test_a_stream_that_ends_again_is_taken_up_again_at_the_newest_place(tmp_path: Path) -> None:
    async with serve(Interrupted(pieces=3)) as server, House(tmp_path, s=legacy(server)) as house:
        assert await house.ask("s", "echo") == DONE
    assert places(server) == ["a1", "a2", "a2"]


@pytest.mark.parametrize(
    "fields",
    [
        b"data:\n\n",
        b"id:\ndata:\n\n",
        b"id: a b\n\n",
        b"id: a\x00\n\n",
        b"id: \xe4\n\n",
        b"id: " + b"a" * 2000 + b"\n\n",
    ],
)
async def test_a_place_that_is_not_named_or_fits_no_header_is_not_asked_for(tmp_path: Path, fields: bytes) -> None:
    async with serve(Interrupted(fields=fields)) as server, House(tmp_path, s=legacy(server)) as house:
        with pytest.raises(UpstreamError, match="without an answer"):
            await house.ask("s", "echo")
    assert places(server) == []


async def test_a_server_that_does_not_go_on_has_not_answered(tmp_path: Path) -> None:
    async with serve(Interrupted(refuses=True)) as server, House(tmp_path, s=legacy(server)) as house:
        with pytest.raises(UpstreamError, match="without an answer"):
            await house.ask("s", "echo")
    assert places(server) == ["a1"]


async def test_the_call_has_no_more_time_than_it_had(tmp_path: Path) -> None:
    slow, endless = Interrupted(fields=b"id: a\nretry: 999999999\ndata:\n\n"), Interrupted(pieces=10**6)
    for behaviour in (slow, endless):
        async with serve(behaviour) as server, House(tmp_path, s=legacy(server, call_timeout=0.5)) as house:
            with pytest.raises(UpstreamTimeout):
                await house.ask("s", "echo")


@pytest.mark.parametrize("listens", [True, False])
async def test_the_server_s_own_stream_is_open_before_anything_is_asked(tmp_path: Path, listens: bool) -> None:
    async with serve(LegacyServer(listens=listens)) as server, House(tmp_path, s=legacy(server)) as house:
        await house.ask("s", "echo")
        order = [request.message.get("method", "") if request.body else request.method for request in server.requests]
    assert order[:4] == ["initialize", "notifications/initialized", "GET", "tools/list"]


@dataclass
class Hesitant(ModernServer):
    """Refuses the version that it offers, this many times."""

    refusals: int = 1

    async def __call__(self, request: Request, peer: Peer) -> None:
        if request.message["method"] == "server/discover" and self.refusals:
            self.refusals -= 1
            data = {"supported": ["2026-07-28"], "requested": "2026-07-28"}
            peer.json(error_of(request.message["id"], -32022, "Unsupported protocol version", data), 400)
        else:
            await super().__call__(request, peer)


async def test_a_version_that_is_refused_and_offered_in_one_breath_is_said_once_more(tmp_path: Path) -> None:
    async with serve(Hesitant()) as server, House(tmp_path, s=Server(url=server.url)) as house:
        assert (await house.call("s", "echo")).era == "modern"
    asked = [request.message["method"] for request in server.requests]
    assert asked[:2] == ["server/discover"] * 2 and asked.count("server/discover") == 2


async def test_and_not_twice(tmp_path: Path) -> None:
    async with serve(Hesitant(refusals=2)) as server, House(tmp_path, s=Server(url=server.url)) as house:
        assert house.status("s").state == "failed"
        assert [request.message["method"] for request in server.requests[:2]] == ["server/discover"] * 2

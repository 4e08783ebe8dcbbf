"""Servers of HTTP+SSE (2024-11-05): how they are found, what works over them, and what they may not do."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from callgate.config.model import Server
from callgate.errors import UpstreamError
from tests.processes import Running, free_port
from tests.servers.mcp_http import LegacyServer, ModernServer
from tests.servers.mcp_sse import SseServer
from tests.servers.raw_http import Peer, RawServer, Request
from tests.upstream.asking import FORMS, LEGACY, Client
from tests.upstream.house import House, until

pytestmark = pytest.mark.anyio

ACCEPTED = {"action": "accept", "content": {"by": "client"}}
REFUSED = json.dumps({"jsonrpc": "2.0", "id": "server-error", "error": {"code": -32600, "message": "no"}}).encode()


def sse(server: RawServer, **more: Any) -> Server:
    return Server(url=server.url, type="sse", **more)


def verdicts(folder: Path) -> list[str]:
    file = folder / "state" / "eras.json"
    return [verdict["era"] for verdict in json.loads(file.read_text()).values()] if file.exists() else []


async def broken(folder: Path, behaviour: Any, **more: Any) -> str:
    """Why a server could not be reached."""
    async with RawServer(behaviour) as server, House(folder, s=sse(server, **more)) as house:
        assert house.status("s").state == "failed"
        return house.status("s").reason


# How they are found.


async def test_a_configured_type_is_not_questioned(tmp_path: Path) -> None:
    behaviour = SseServer()
    async with RawServer(behaviour) as server, House(tmp_path, s=sse(server)) as house:
        assert (house.status("s").state, house.status("s").era) == ("ready", "legacy")
        assert house.status("s").version == "2024-11-05"
        assert house.status("s").pids == ()
        assert (await house.ask("s", "echo", {"a": 1}))["params"]["arguments"] == {"a": 1}
        assert not [each for each in server.requests if (each.method, each.target) == ("POST", "/mcp")]
    assert verdicts(tmp_path) == []
    methods = [message["method"] for session, message in behaviour.heard if session == "s1"]
    assert methods == ["initialize", "notifications/initialized", "tools/list"]


@pytest.mark.key("servers.type")
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (405, b""),
        (404, b"Not Found"),
        (404, b'{"detail":"Not Found"}'),
        (400, b"Bad Request"),
        (400, REFUSED),
        (404, REFUSED.replace(b'"server-error"', b"ID")),
    ],
)
@pytest.mark.parametrize("more", [{}, {"protocol": "legacy"}, {"type": "http"}])
async def test_where_initialize_cannot_be_posted_the_stream_is_tried(
    tmp_path: Path, status: int, body: bytes, more: dict[str, Any]
) -> None:
    async with RawServer(SseServer(posted=(status, body))) as server:
        for _ in range(2):
            async with House(tmp_path, s=Server(url=server.url, **more)) as house:
                assert house.status("s").state == "ready", house.status("s").reason
                await house.ask("s", "echo", **LEGACY, session="one")
        posted = [each.message["method"] for each in server.requests if (each.method, each.target) == ("POST", "/mcp")]
    # The era is remembered, and the kind for all links of one run.
    assert posted == (["initialize"] * 2 if "protocol" in more else ["server/discover", "initialize", "initialize"])
    assert verdicts(tmp_path) == ([] if "protocol" in more else ["legacy"])


@pytest.mark.rule("ERA-2")
@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
async def test_another_status_is_no_reason_to_try_the_stream(tmp_path: Path, status: int) -> None:
    async with RawServer(SseServer(posted=(status, b""))) as server:
        async with House(tmp_path, s=Server(url=server.url, protocol="legacy")) as house:
            assert f"HTTP {status}" in house.status("s").reason
        assert {each.method for each in server.requests} == {"POST"}


async def test_a_forced_modern_server_is_never_tried_as_an_old_one(tmp_path: Path) -> None:
    async with RawServer(SseServer()) as server:
        async with House(tmp_path, s=Server(url=server.url, protocol="modern")) as house:
            assert house.status("s").state == "failed"
        assert {each.method for each in server.requests} == {"POST"}


async def test_a_modern_server_without_sessions_is_not_asked_for_a_stream(tmp_path: Path) -> None:
    async with RawServer(ModernServer()) as server, House(tmp_path, s=Server(url=server.url)) as house:
        await house.ask("s", "echo", **LEGACY, session="one")
        assert {each.method for each in server.requests} == {"POST"}


async def test_a_server_that_is_neither_says_both(tmp_path: Path) -> None:
    neither = SseServer(posted=(404, b""), status=404)
    async with RawServer(neither) as server, House(tmp_path, s=Server(url=server.url)) as house:
        reason = house.status("s").reason
    assert reason == "answered `initialize` with HTTP 404, and as a server of HTTP+SSE has no event stream (HTTP 404)"


async def test_a_server_that_was_upgraded_is_found_out_again(tmp_path: Path) -> None:
    old = SseServer()
    now: list[Any] = [old]

    async def handle(request: Request, peer: Peer) -> None:
        await now[0](request, peer)

    async with RawServer(handle) as server, House(tmp_path, s=Server(url=server.url)) as house:
        assert house.status("s").version == "2024-11-05"
        now[0] = LegacyServer()
        old.sessions["s1"].close()
        await until(lambda: house.status("s").version == "2025-11-25", 15)


# What works over them.


async def test_many_calls_share_a_stream(tmp_path: Path) -> None:
    behaviour = SseServer()
    async with RawServer(behaviour) as server, House(tmp_path, s=sse(server, isolation="shared")) as house:
        results = await asyncio.gather(*(house.ask("s", "echo", {"n": n}) for n in range(100)))
        assert [result["params"]["arguments"]["n"] for result in results] == list(range(100))
        assert list(behaviour.sessions) == ["s1"]


async def test_sessions_of_clients_have_streams_of_their_own(tmp_path: Path) -> None:
    behaviour = SseServer()
    async with RawServer(behaviour) as server, House(tmp_path, s=sse(server)) as house:
        seen = [(await house.ask("s", "echo", session=name, era="legacy"))["session"] for name in "abab"]
        assert seen == ["s2", "s3", "s2", "s3"]
        house.upstreams.forget("a")
        await until(lambda: "s2" in behaviour.gone)
        assert "s3" not in behaviour.gone


@pytest.mark.key("servers.headers")
async def test_configured_headers_go_to_the_stream_and_to_the_messages(tmp_path: Path) -> None:
    async with RawServer(SseServer()) as server:
        async with House(tmp_path, s=sse(server, headers={"Authorization": "Bearer own"})) as house:
            await house.ask("s", "echo")
        assert {each.headers.get("authorization") for each in server.requests} == {"Bearer own"}
        assert {each.method for each in server.requests} == {"GET", "POST"}
        assert not [each for each in server.requests if "mcp-session-id" in each.headers]


@pytest.mark.rule("EXT-3")
async def test_a_question_reaches_the_client_of_the_call(tmp_path: Path) -> None:
    behaviour = SseServer()
    async with RawServer(behaviour) as server, House(tmp_path, s=sse(server)) as house:
        client = Client()
        assert (await house.ask("s", "ask", ask=client.ask, **FORMS))["told"] == ACCEPTED
        assert behaviour.said("initialize")[-1]["params"]["capabilities"] == {"elicitation": {"form": {}}}
        assert (await house.ask("s", "ask", {"method": "ping"}))["told"] == {}
        assert (await house.ask("s", "ask"))["told"]["code"] == -32601


async def test_a_question_while_the_post_of_the_call_is_still_open(tmp_path: Path) -> None:
    async with RawServer(SseServer(slow=True)) as server, House(tmp_path, s=sse(server)) as house:
        assert (await house.ask("s", "ask", ask=Client().ask, **FORMS))["told"] == ACCEPTED


async def test_a_question_outside_calls_goes_to_the_owner_of_the_link(tmp_path: Path) -> None:
    behaviour = SseServer()
    async with RawServer(behaviour) as server, House(tmp_path, s=sse(server)) as house:
        await house.ask("s", "later", **LEGACY, session="one")
        await until(lambda: house.outside)
        assert house.outside[0][:3] == ("s", "alice", "one")
        assert await behaviour.answers["late"] == {"action": "decline"}


async def test_progress_logs_and_news(tmp_path: Path) -> None:
    behaviour = SseServer()
    async with RawServer(behaviour) as server, House(tmp_path, s=sse(server)) as house:
        await house.ask("s", "progress", meta={"progressToken": "t"})
        await house.ask("s", "log", log_level="error")
        assert [note["method"] for note in house.notes] == ["notifications/progress", "notifications/message"]
        lists = len(house.listings)
        await house.ask("s", "more", session="one", era="legacy")
        await until(lambda: len(house.listings) > lists)
        assert [(news.method, news.session) for news in house.news] == [("notifications/tools/list_changed", "one")]


@pytest.mark.parametrize("slow", [False, True])
async def test_a_call_that_is_given_up_is_cancelled_at_the_server(tmp_path: Path, slow: bool) -> None:
    behaviour = SseServer(slow=slow)
    async with RawServer(behaviour) as server, House(tmp_path, s=sse(server)) as house:
        call = asyncio.create_task(house.call("s", "hold"))
        await until(lambda: behaviour.said("tools/call"))
        call.cancel()
        await until(lambda: behaviour.said("notifications/cancelled"))
        ident = behaviour.said("tools/call")[0]["id"]
        assert behaviour.said("notifications/cancelled")[0]["params"]["requestId"] == ident
        assert (await house.ask("s", "echo"))["session"] == "s2"


async def test_nothing_overtakes_the_handshake(tmp_path: Path) -> None:
    behaviour, open_ = SseServer(), asyncio.Event()
    came: list[str] = []

    async def handle(request: Request, peer: Peer) -> None:
        method = request.message["method"] if request.body else "GET"
        came.append(method)
        if method == "notifications/initialized":
            await open_.wait()
        await behaviour(request, peer)

    async with RawServer(handle) as server:
        house = House(tmp_path, s=sse(server))
        await house.upstreams.apply(house.servers, tmp_path)
        await until(lambda: came[-1:] == ["notifications/initialized"])
        call = asyncio.create_task(house.call("s", "echo"))
        assert not call.done()
        open_.set()
        await call
        await house.upstreams.aclose()
    assert came[:4] == ["GET", "initialize", "notifications/initialized", "tools/list"]


# How it ends.


async def test_a_stream_that_ends_in_the_middle_of_a_call(tmp_path: Path) -> None:
    behaviour = SseServer()
    async with RawServer(behaviour) as server, House(tmp_path, s=sse(server, isolation="shared")) as house:
        held = asyncio.create_task(house.call("s", "hold"))
        await until(lambda: behaviour.said("tools/call"))
        for call in (house.call("s", "close"), held):
            with pytest.raises(UpstreamError, match=r"Server `s` closed its event stream\."):
                await call
        await until(lambda: house.status("s").restarts == 1 and house.status("s").state == "ready")
        assert (await house.ask("s", "echo"))["session"] == "s2"


async def test_an_own_stream_that_ended_is_opened_again(tmp_path: Path) -> None:
    async with RawServer(SseServer()) as server, House(tmp_path, s=sse(server)) as house:
        with pytest.raises(UpstreamError, match="closed its event stream"):
            await house.call("s", "close", session="a", era="legacy")
        assert (await house.ask("s", "echo", session="a", era="legacy"))["session"] == "s3"
        assert house.status("s").restarts == 0


async def test_a_session_that_the_server_has_forgotten(tmp_path: Path) -> None:
    behaviour = SseServer()
    async with RawServer(behaviour) as server, House(tmp_path, s=sse(server, isolation="shared")) as house:
        behaviour.gone.add("s1")
        with pytest.raises(UpstreamError, match=r"refused a message \(HTTP 404\)"):
            await house.call("s", "echo")
        await until(lambda: house.status("s").restarts == 1 and house.status("s").state == "ready")


async def test_a_message_that_is_refused_is_the_end_of_one_call_only(tmp_path: Path) -> None:
    behaviour = SseServer(refuses={"progress": 413})
    async with RawServer(behaviour) as server, House(tmp_path, s=sse(server, isolation="shared")) as house:
        held = asyncio.create_task(house.call("s", "hold"))
        await until(lambda: behaviour.said("tools/call"))
        with pytest.raises(UpstreamError, match=r"Server `s` refused a message \(HTTP 413\)"):
            await house.call("s", "progress")
        assert (await house.ask("s", "echo"))["session"] == "s1"
        held.cancel()


@pytest.mark.parametrize("method", ["initialize", "notifications/initialized"])
async def test_a_handshake_that_is_refused(tmp_path: Path, method: str) -> None:
    assert await broken(tmp_path, SseServer(refuses={method: 500})) == "refused a message (HTTP 500)"


async def test_a_server_that_takes_no_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callgate.upstream.http_sse.WAITING", 2)
    behaviour = SseServer()
    stuck: list[Peer] = []

    async def handle(request: Request, peer: Peer) -> None:
        if b"tools/call" in request.body:
            stuck.append(peer)
            await peer.reader.read()
        else:
            await behaviour(request, peer)

    config = {"isolation": "shared", "call_timeout": 0.3}
    async with RawServer(handle) as server, House(tmp_path, s=sse(server, **config)) as house:
        said = await asyncio.gather(*(house.call("s", "echo") for _ in range(4)), return_exceptions=True)
        assert sorted(str(each) for each in said) == [
            *["Server `s` did not answer in time."] * 2,
            *["Server `s` did not take messages in time."] * 2,
        ]
        assert len(stuck) == 2


# What they may not do.


@pytest.mark.rule("RS-8")
@pytest.mark.parametrize(
    "named",
    ["http://127.0.0.1:{port}/messages", "//127.0.0.1:{port}/messages", "http://localhost:{own}/messages",
     "https://127.0.0.1:{own}/messages"],
)  # fmt: skip
async def test_messages_do_not_go_to_another_origin(tmp_path: Path, named: str) -> None:
    behaviour = SseServer()
    async with RawServer(SseServer()) as other, RawServer(behaviour) as server:
        behaviour.endpoint = named.format(port=other.port, own=server.port)
        async with House(tmp_path, s=sse(server, headers={"Authorization": "Bearer own"})) as house:
            assert house.status("s").reason == (
                "wants its messages at another origin; callgate does not send them there"
            )
        assert other.connections == 0
        assert {each.method for each in server.requests} == {"GET"}


@pytest.mark.parametrize(
    "named",
    [
        "http://user:password@127.0.0.1:{own}/messages",
        "/messages HTTP/1.1",
        "/messages\x00",
        "/mess\u00e4ges",
        "http://127.0.0.1:x/messages",
        "file:///etc/passwd",
        "/messages?" + "x" * 5000,
    ],
)
async def test_addresses_that_break_out_of_a_request_are_refused(tmp_path: Path, named: str) -> None:
    behaviour = SseServer()
    async with RawServer(behaviour) as server:
        behaviour.endpoint = named.replace("{own}", str(server.port))
        async with House(tmp_path, s=sse(server)) as house:
            assert house.status("s").reason == "named an address for messages that is not usable"
        assert {each.method for each in server.requests} == {"GET"}


async def test_a_line_break_in_an_address_is_its_end(tmp_path: Path) -> None:
    behaviour = SseServer(endpoint="/messages?session={session}\ndata: HTTP/1.1\rdata: X-Evil: 1")
    async with RawServer(behaviour) as server, House(tmp_path, s=sse(server)) as house:
        assert house.status("s").state == "ready"
        assert {each.target for each in server.requests} == {"/mcp", "/messages?session=s1"}
        assert not [each for each in server.requests if "x-evil" in each.headers]


async def test_a_second_address_moves_nothing(tmp_path: Path) -> None:
    async with RawServer(SseServer()) as other, RawServer(SseServer()) as server:
        async with House(tmp_path, s=sse(server, isolation="shared")) as house:
            text = f"event: endpoint\ndata: http://127.0.0.1:{other.port}/messages\n\n"
            await house.ask("s", "write", {"bytes": text})
            assert (await house.ask("s", "echo"))["session"] == "s1"
        assert other.connections == 0


async def test_absolute_and_relative_addresses_of_the_same_origin(tmp_path: Path) -> None:
    for named in ("http://127.0.0.1:{own}/messages?session=s1", "messages?session=s1", "../messages?session=s1"):
        behaviour = SseServer()
        async with RawServer(behaviour) as server:
            behaviour.endpoint = named.replace("{own}", str(server.port))
            async with House(tmp_path, s=sse(server)) as house:
                assert house.status("s").state == "ready"


async def test_a_stream_that_names_no_address(tmp_path: Path) -> None:
    why = await broken(tmp_path, SseServer(endpoint=""), connect_timeout=0.2)
    assert why == "did not say in time where messages go (connect_timeout is 0.2 s)"


async def test_a_stream_that_ends_before_it_names_one(tmp_path: Path) -> None:
    async def handle(request: Request, peer: Peer) -> None:
        peer.sse_head()
        peer.chunk(b"data: {}\n\n")
        peer.chunk(b"")

    assert await broken(tmp_path, handle) == "ended its event stream before it said where messages go"


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (401, "refused callgate's credentials (HTTP 401)"),
        (403, "refused access (HTTP 403)"),
        (302, "redirects (302); callgate does not follow redirects of servers"),
        (500, "has no event stream (HTTP 500)"),
    ],
)
async def test_a_stream_that_is_refused(tmp_path: Path, status: int, why: str) -> None:
    assert await broken(tmp_path, SseServer(status=status)) == why


@pytest.mark.key("servers.max_message")
async def test_an_event_that_is_too_large_ends_the_stream(tmp_path: Path) -> None:
    config = {"isolation": "shared", "max_message": 8192}
    async with RawServer(SseServer()) as server, House(tmp_path, s=sse(server, **config)) as house:
        with pytest.raises(UpstreamError, match="an event is larger than 8192 bytes"):
            await house.call("s", "write", {"bytes": "data: " + "x" * 10_000})


@pytest.mark.rule("MRTR-8")
async def test_answers_that_nobody_asked_for_and_noise_are_left_alone(tmp_path: Path) -> None:
    noise = 'data: {"jsonrpc":"2.0","id":999999,"result":{}}\n\ndata: {not json\n\ndata:\n\nevent: other\ndata: 1\n\n'
    async with RawServer(SseServer()) as server, House(tmp_path, s=sse(server, isolation="shared")) as house:
        await house.ask("s", "write", {"bytes": noise})
        assert (await house.ask("s", "echo"))["session"] == "s1"
    assert "[callgate: not JSON-RPC] {not json" in (tmp_path / "state" / "logs" / "s.log").read_text()


# The real thing.

SDK = """
import sys
from mcp.server.mcpserver import MCPServer
server = MCPServer("sdk")
@server.tool()
def add(a: int, b: int) -> int:
    return a + b
server.run("sse", port=int(sys.argv[1]))
"""


@pytest.mark.parametrize("type_", ["sse", None])
async def test_a_server_of_the_official_sdk(tmp_path: Path, type_: Any) -> None:
    port = free_port()
    with Running("server", [sys.executable, "-c", SDK, str(port)], tmp_path):
        config = Server(url=f"http://127.0.0.1:{port}/sse", type=type_)
        async with House(tmp_path, s=config) as house:
            await until(lambda: house.status("s").state == "ready", 30)
            assert (await house.ask("s", "add", {"a": 1, "b": 2}))["structuredContent"] == {"result": 3}

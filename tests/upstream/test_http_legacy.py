from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from callgate.config.model import Server
from callgate.errors import UpstreamTimeout
from tests.servers.mcp_http import LegacyServer, note, result_of, serve
from tests.servers.raw_http import Peer, RawServer, Request
from tests.upstream.house import House, until

pytestmark = pytest.mark.anyio


def legacy(server: RawServer) -> Server:
    return Server(url=server.url, protocol="legacy", isolation="shared")


def methods(server: RawServer) -> list[str]:
    return [request.message.get("method", "") if request.body else request.method for request in server.requests]


async def test_a_session_is_opened_used_and_ended(tmp_path: Path) -> None:
    behaviour = LegacyServer()
    async with serve(behaviour) as server:
        async with House(tmp_path, s=legacy(server)) as house:
            assert (await house.call("s", "echo")).era == "legacy"
            assert house.listings[0].version == "2025-11-25"
            await until(lambda: "GET" in methods(server))
        assert sorted(methods(server)) == sorted(
            ["initialize", "notifications/initialized", "tools/list", "GET", "tools/call", "DELETE"]
        )
    hello, call = server.requests[0], next(r for r in server.requests if b"tools/call" in r.body)
    assert hello.message["params"]["capabilities"] == {}
    assert "mcp-session-id" not in hello.headers
    assert call.headers["mcp-session-id"] == "s1"
    assert call.headers["mcp-protocol-version"] == "2025-11-25"
    assert "mcp-method" not in call.headers
    assert behaviour.deleted == ["s1"]


async def test_one_call_is_one_request_on_a_connection_that_stays(tmp_path: Path) -> None:
    async with serve(LegacyServer()) as server, House(tmp_path, s=legacy(server)) as house:
        await until(lambda: "GET" in methods(server))
        before, connections = len(server.requests), server.connections
        for _ in range(20):
            await house.ask("s", "echo")
        assert len(server.requests) == before + 20
        assert server.connections <= connections + 1


async def test_a_forgotten_session_is_opened_again_once(tmp_path: Path) -> None:
    behaviour = LegacyServer()
    async with serve(behaviour) as server, House(tmp_path, s=legacy(server)) as house:
        behaviour.sessions[:] = ["another"]
        results = await asyncio.gather(*(house.ask("s", "echo") for _ in range(5)))
        assert len(results) == 5
        assert behaviour.sessions == ["another", "s2"]


async def test_progress_and_log_messages_of_a_call(tmp_path: Path) -> None:
    async with serve(LegacyServer()) as server, House(tmp_path, s=legacy(server)) as house:
        await house.ask("s", "progress", meta={"progressToken": 5})
        await house.ask("s", "log", era="legacy")
        await house.ask("s", "log", log_level="error")
        await house.ask("s", "log")
    assert [(n["method"], n["params"].get("progressToken") or n["params"]["level"]) for n in house.notes] == [
        ("notifications/progress", 5),
        ("notifications/message", "debug"),
        ("notifications/message", "error"),
        ("notifications/message", "error"),
    ]


async def test_the_level_of_a_shared_session_only_gets_more_verbose(tmp_path: Path) -> None:
    async with serve(LegacyServer()) as server, House(tmp_path, s=legacy(server)) as house:
        for level in ("error", "debug", "info", None):
            await house.ask("s", "echo", log_level=level)
    levels = [r.message["params"]["level"] for r in server.requests if b"logging/setLevel" in r.body]
    assert levels == ["error", "debug"]


async def test_requests_of_the_server_are_answered(tmp_path: Path) -> None:
    behaviour = LegacyServer()
    async with serve(behaviour) as server, House(tmp_path, s=legacy(server)) as house:
        await house.ask("s", "ask")
        await until(lambda: len(behaviour.responses) == 2)
    said = {message["id"]: message for message in behaviour.responses}
    assert said["q1"]["error"]["code"] == -32601
    assert said[7]["result"] == {}


@pytest.mark.rule("HTTP-14")
async def test_giving_up_tells_a_legacy_server(tmp_path: Path) -> None:
    behaviour = LegacyServer()
    async with serve(behaviour) as server:
        config = Server(url=server.url, protocol="legacy", call_timeout=0.1)
        async with House(tmp_path, s=config) as house:
            with pytest.raises(UpstreamTimeout):
                await house.call("s", "hang")
            await until(lambda: len(behaviour.cancelled) == 1)
            call = asyncio.create_task(house.call("s", "hang"))
            await until(lambda: sum(b"tools/call" in r.body for r in server.requests) == 2)
            call.cancel()
            await until(lambda: len(behaviour.cancelled) == 2)
    calls = [r.message["id"] for r in server.requests if b"tools/call" in r.body]
    assert behaviour.cancelled == calls


async def test_the_servers_own_stream_announces_new_tools(tmp_path: Path) -> None:
    behaviour = LegacyServer(listens=True)
    async with serve(behaviour) as server, House(tmp_path, s=legacy(server)) as house:
        await behaviour.listening.wait()
        behaviour.tools = [{"name": "new"}]
        behaviour.streams[0].event({"jsonrpc": "2.0", "id": "p", "method": "ping"})
        behaviour.streams[0].event(note("notifications/tools/list_changed"))
        await until(lambda: house.listings[-1].tools[0]["name"] == "new")
        await until(lambda: behaviour.responses)


async def test_the_servers_own_stream_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callgate.upstream.http_legacy.BACKOFF", (0.01, 0.01))
    behaviour = LegacyServer(listens=True)
    async with serve(behaviour) as server, House(tmp_path, s=legacy(server)):
        await until(lambda: len(behaviour.streams) == 1)
        behaviour.streams[0].close()
        await until(lambda: len(behaviour.streams) == 2)


async def test_a_version_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    async with serve(LegacyServer(version="2031-01-01")) as server, House(tmp_path, s=legacy(server)) as house:
        assert "2031-01-01" in house.status("s").reason


async def test_a_session_id_that_would_break_out_is_refused(tmp_path: Path) -> None:
    async def handle(request: Request, peer: Peer) -> None:
        hello: Any = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {}}
        peer.json(result_of(request.message["id"], hello), more="mcp-session-id: a b\r\n")

    async with RawServer(handle) as server, House(tmp_path, s=legacy(server)) as house:
        assert "session id" in house.status("s").reason


async def test_a_server_without_tools_is_ready_and_empty(tmp_path: Path) -> None:
    async def handle(request: Request, peer: Peer) -> None:
        if request.method == "POST" and "id" in request.message:
            hello: Any = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {}}
            peer.json(result_of(request.message["id"], hello))
        else:
            peer.body(b"", 202 if request.method == "POST" else 405)

    async with RawServer(handle) as server:
        async with House(tmp_path, s=legacy(server)) as house:
            assert house.status("s").state == "ready"
            assert house.listings[0].tools == ()
        assert "tools/list" not in methods(server)

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from callgate.config.model import Server
from callgate.errors import Overloaded, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from tests.servers.mcp_http import ModernServer, note, result_of, serve
from tests.servers.raw_http import Peer, RawServer, Request
from tests.upstream.house import House, until

pytestmark = pytest.mark.anyio
TOKEN = {"progressToken": "client's"}


async def test_one_call_is_one_request_with_its_routing_headers(tmp_path: Path) -> None:
    async with serve(ModernServer()) as server, House(tmp_path, s=Server(url=server.url)) as house:
        assert house.listings[0].era == "modern"
        assert house.listings[0].instructions == "be kind"
        assert house.listings[0].server_info == {"name": "modern", "version": "1"}
        before = len(server.requests)
        result = await house.ask("s", "echo", {"text": "hé"})
        assert result["echo"]["arguments"] == {"text": "hé"}
        assert len(server.requests) == before + 1
    headers = server.requests[-1].headers
    assert headers["mcp-protocol-version"] == "2026-07-28"
    assert headers["mcp-method"] == "tools/call"
    assert headers["mcp-name"] == "echo"
    assert headers["accept"] == "application/json, text/event-stream"
    assert "mcp-session-id" not in headers


async def test_many_calls_share_few_connections(tmp_path: Path) -> None:
    async with serve(ModernServer()) as server, House(tmp_path, s=Server(url=server.url, max_concurrency=4)) as house:
        await asyncio.gather(*(house.ask("s", "echo", {"n": n}) for n in range(100)))
        assert server.connections <= 5  # and one that listens
        ids = [request.message["id"] for request in server.requests]
        assert len(set(ids)) == len(ids)


@pytest.mark.rule("MRTR-8")
async def test_ids_are_not_used_again_after_a_new_configuration(tmp_path: Path) -> None:
    async with serve(ModernServer()) as server, House(tmp_path, s=Server(url=server.url)) as house:
        await house.ask("s", "echo")
        await house.upstreams.apply({"s": Server(url=server.url, call_timeout=7)}, tmp_path)
        await house.upstreams.settled("s", 5)
        await house.ask("s", "echo")
        ids = [request.message["id"] for request in server.requests]
        assert len(set(ids)) == len(ids)


@pytest.mark.rule("HDR-2", "HDR-6", "HDR-9", "HDR-10", "HDR-12")
async def test_headers_mirror_what_is_really_sent(tmp_path: Path) -> None:
    async with serve(ModernServer()) as server, House(tmp_path, s=Server(url=server.url)) as house:
        mirrored = (("Region", ("where", "region")), ("Absent", ("absent",)))
        await house.ask("s", "größe", {"where": {"region": "eu"}}, header_arguments=mirrored, transport="stdio")
        headers = server.requests[-1].headers
        assert headers["mcp-name"] == "=?base64?Z3LDtsOfZQ==?="
        assert headers["mcp-param-region"] == "eu"
        assert "mcp-param-absent" not in headers


@pytest.mark.key("servers.headers")
@pytest.mark.rule("RS-8")
async def test_only_configured_credentials_reach_the_server(tmp_path: Path) -> None:
    (tmp_path / "token.txt").write_text("from a file\n")
    config = {"authorization": "secret:docs", "x-file": "file:token.txt"}
    async with serve(ModernServer()) as server:
        async with House(tmp_path, s=Server(url=server.url, headers=config)) as house:
            await house.ask("s", "echo", meta={"authorization": "Bearer of the client"})
        headers = server.requests[-1].headers
        assert headers["authorization"] == "secret of docs"
        assert headers["x-file"] == "from a file"
        assert not any("Bearer of the client" in value for value in headers.values())


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"x-a": "env:NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE is not set"),
        ({"x-a": "file:absent"}, "absent cannot be read"),
        ({"Mcp-Name": "other"}, "which callgate sets itself"),
        ({"content-length": "0"}, "which callgate sets itself"),
        ({"x-a": "b\r\nx-injected: 1"}, "cannot be sent"),
    ],
)
async def test_headers_that_cannot_be_sent(tmp_path: Path, headers: dict[str, str], reason: str) -> None:
    async with serve(ModernServer()) as server:
        async with House(tmp_path, s=Server(url=server.url, headers=headers)) as house:
            assert reason in house.status("s").reason
        assert server.requests == []


async def test_progress_carries_the_clients_own_token(tmp_path: Path) -> None:
    async with serve(ModernServer()) as server, House(tmp_path, s=Server(url=server.url)) as house:
        assert (await house.ask("s", "progress", meta=TOKEN))["content"][0]["text"] == "done"
        sent = server.requests[-1].message["params"]["_meta"]["progressToken"]
        assert sent == server.requests[-1].message["id"]
    params = {"progressToken": "client's", "progress": 1, "total": 2}
    assert house.notes == [{"jsonrpc": "2.0", "method": "notifications/progress", "params": params}]


async def test_no_token_no_progress(tmp_path: Path) -> None:
    async with serve(ModernServer()) as server, House(tmp_path, s=Server(url=server.url)) as house:
        await house.ask("s", "progress")
        assert "progressToken" not in server.requests[-1].message["params"]["_meta"]
        assert house.notes == []


@pytest.mark.parametrize(
    ("front", "levels"),
    [
        ({}, []),
        ({"log_level": "warning"}, ["warning"]),
        ({"log_level": "debug"}, ["debug", "warning"]),
        ({"era": "legacy"}, ["debug", "warning"]),
    ],
)
async def test_log_messages_go_to_those_who_asked(tmp_path: Path, front: dict[str, Any], levels: list[str]) -> None:
    async with serve(ModernServer()) as server, House(tmp_path, s=Server(url=server.url)) as house:
        await house.ask("s", "log", **front)
        assert [note["params"]["level"] for note in house.notes] == levels


async def test_an_error_of_the_server_is_an_answer(tmp_path: Path) -> None:
    async with serve(ModernServer()) as server, House(tmp_path, s=Server(url=server.url)) as house:
        answer = await house.call("s", "fail")
        assert answer.error is not None
        assert (answer.error.code, answer.error.message, answer.error.data) == (-32602, "bad argument", {"why": 1})
        assert (await house.call("s", "echo", {"fail": True})).is_error


@pytest.mark.rule("HTTP-14")
async def test_cancelling_a_call_closes_its_stream(tmp_path: Path) -> None:
    behaviour = ModernServer()
    async with serve(behaviour) as server, House(tmp_path, s=Server(url=server.url)) as house:
        call = asyncio.create_task(house.call("s", "hang"))
        await until(lambda: behaviour.hung)
        call.cancel()
        async with asyncio.timeout(2):
            await behaviour.hung[0].gone.wait()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert house.status("s").in_flight == 0


async def test_a_call_ends_at_its_deadline(tmp_path: Path) -> None:
    behaviour = ModernServer()
    async with serve(behaviour) as server, House(tmp_path, s=Server(url=server.url, call_timeout=0.05)) as house:
        with pytest.raises(UpstreamTimeout, match="Server `s` did not answer in time"):
            await house.call("s", "hang")
        async with asyncio.timeout(2):
            await behaviour.hung[0].gone.wait()
        assert (await house.call("s", "echo")).error is None


@pytest.mark.key("servers.max_concurrency", "servers.max_queue")
async def test_a_hung_server_fills_only_its_own_bulkhead(tmp_path: Path) -> None:
    behaviour = ModernServer()
    async with serve(behaviour) as hung, serve(ModernServer()) as well:
        slow = Server(url=hung.url, max_concurrency=2, max_queue=1, call_timeout=0.3)
        async with House(tmp_path, hung=slow, well=Server(url=well.url)) as house:
            calls = [asyncio.create_task(house.call("hung", "hang")) for _ in range(3)]
            await until(lambda: len(behaviour.hung) == 2)
            with pytest.raises(Overloaded, match="Server `hung` is busy"):
                await house.call("hung", "hang")
            assert (await house.call("well", "echo")).error is None
            assert house.status("hung").in_flight == 2
            for call in calls:
                with pytest.raises((UpstreamTimeout, UpstreamUnavailable)):  # the last may get a place too late to dial
                    await call
            assert house.status("hung").in_flight == 0


@pytest.mark.parametrize("isolation", ["auto", "principal"])
async def test_a_list_that_changed_may_be_announced_on_the_stream_of_a_call(tmp_path: Path, isolation: Any) -> None:
    """FastMCP says it there and nowhere else."""
    behaviour, method = ModernServer(), "notifications/tools/list_changed"

    async def handle(request: Request, peer: Peer) -> None:
        if request.message["method"] != "tools/call":
            await behaviour(request, peer)
            return
        behaviour.tools = [{"name": "later", "inputSchema": {"type": "object"}}]
        peer.sse_head()
        peer.event(note(method))
        peer.event(result_of(request.message["id"], {"content": [], "resultType": "complete"}))
        peer.chunk(b"")

    async with (
        RawServer(handle) as server,
        House(tmp_path, s=Server(url=server.url, protocol="modern", isolation=isolation)) as house,
    ):
        await house.ask("s", "echo")
        await until(lambda: [tool["name"] for tool in house.listings[-1].tools] == ["later"])
        assert house.notes == []  # it is about no call
        assert [news.principal for news in house.news] == (["alice"] if isolation == "principal" else [])


def reply(*messages: bytes, status: int = 200, kind: str = "application/json", more: str = "") -> Any:
    """A modern server whose calls are answered with exactly these bytes."""
    behaviour = ModernServer()

    async def handle(request: Request, peer: Peer) -> None:
        if request.message["method"] != "tools/call":
            await behaviour(request, peer)
            return
        ident = b"%d" % request.message["id"]
        for message in messages:
            peer.body(message.replace(b"ID", ident), status, kind, more)

    return RawServer(handle)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"jsonrpc":"2.0","id":123456,"result":{}}', "a request that was not asked"),
        (b'{"jsonrpc":"2.0","id":"ID","result":{}}', "a request that was not asked"),
        (b'{"jsonrpc":"2.0","id":ID,"method":"ping"}', "a request that was not asked"),
        (b'{"jsonrpc":"2.0","id":ID,"result":7}', "a result that cannot be used"),
        (b'[{"jsonrpc":"2.0","id":ID,"result":{}}]', "not a JSON-RPC message"),
        (b"", "not a JSON-RPC message"),
        (b"<html>Welcome</html>", "not a JSON-RPC message"),
    ],
)
async def test_answers_that_are_none(tmp_path: Path, body: bytes, reason: str) -> None:
    async with reply(body) as server, House(tmp_path, s=Server(url=server.url)) as house:
        with pytest.raises(UpstreamError, match=reason):
            await house.call("s", "echo")


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 502, 503])
async def test_a_status_without_json_rpc_is_a_failure(tmp_path: Path, status: int) -> None:
    async with reply(b"oops", status=status) as server, House(tmp_path, s=Server(url=server.url)) as house:
        with pytest.raises(UpstreamError, match=f"HTTP {status}"):
            await house.call("s", "echo")


async def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    async with serve(ModernServer()) as elsewhere:
        where = f"location: {elsewhere.url}\r\n"
        async with reply(b"", status=307, more=where) as server, House(tmp_path, s=Server(url=server.url)) as house:
            with pytest.raises(UpstreamError, match="redirects"):
                await house.call("s", "echo")
        assert elsewhere.requests == []


@pytest.mark.key("servers.max_message")
async def test_a_result_larger_than_max_message_is_refused(tmp_path: Path) -> None:
    large = b'{"jsonrpc":"2.0","id":ID,"result":{"x":"' + b"x" * 5000 + b'"}}'
    async with reply(large) as server, House(tmp_path, s=Server(url=server.url, max_message=4000)) as house:
        with pytest.raises(UpstreamError, match="body larger than 4000"):
            await house.call("s", "echo")


async def test_a_stream_that_ends_without_an_answer(tmp_path: Path) -> None:
    stream = b'data: {"jsonrpc":"2.0","method":"notifications/message","params":{}}\n\n'
    async with reply(stream, kind="text/event-stream") as server, House(tmp_path, s=Server(url=server.url)) as house:
        with pytest.raises(UpstreamError, match="ended its event stream without an answer"):
            await house.call("s", "echo")


async def test_an_event_larger_than_max_message_is_refused(tmp_path: Path) -> None:
    stream = b"data: " + b"x" * 5000 + b"\n\n"
    server = reply(stream, kind="text/event-stream")
    async with server, House(tmp_path, s=Server(url=server.url, max_message=4000)) as house:
        with pytest.raises(UpstreamError, match="larger than 4000"):
            await house.call("s", "echo")


async def test_lists_are_read_to_the_end_and_cached_hints_combined(tmp_path: Path) -> None:
    pages = {None: ("a", "p2", 60_000), "p2": ("b", "", 50_000), "": ("c", None, 70_000)}
    behaviour = ModernServer()

    async def handle(request: Request, peer: Peer) -> None:
        if request.message["method"] != "tools/list":
            await behaviour(request, peer)
            return
        name, following, ttl = pages[request.message["params"].get("cursor")]
        page: dict[str, Any] = {"tools": [{"name": name}], "ttlMs": ttl, "cacheScope": "public"}
        if following is not None:
            page["nextCursor"] = following
        peer.json(result_of(request.message["id"], page))

    async with RawServer(handle) as server, House(tmp_path, s=Server(url=server.url)) as house:
        listing = house.listings[0]
        assert [tool["name"] for tool in listing.tools] == ["a", "b", "c"]
        assert (listing.ttl_ms, listing.scope) == (50_000, "public")


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ({"tools": [], "nextCursor": "again"}, "same page cursor twice"),
        ({"tools": [], "nextCursor": 7}, "cursor that is not a string"),
        ({"tools": "none"}, "not one"),
        ({"tools": [{"title": "nameless"}]}, "not one"),
        ({}, "not one"),
        ({"tools": [{"name": "t"}] * 50_001}, "more than 50000"),
    ],
)
async def test_lists_that_are_none(tmp_path: Path, page: dict[str, Any], reason: str) -> None:
    behaviour = ModernServer()

    async def handle(request: Request, peer: Peer) -> None:
        if request.message["method"] == "tools/list":
            peer.json(result_of(request.message["id"], page))
        else:
            await behaviour(request, peer)

    async with RawServer(handle) as server, House(tmp_path, s=Server(url=server.url)) as house:
        assert house.status("s").state == "failed"
        assert reason in house.status("s").reason
        assert house.listings == []


async def test_a_list_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callgate.upstream.listing.MAX_PAGES", 20)
    behaviour = ModernServer()

    async def handle(request: Request, peer: Peer) -> None:
        if request.message["method"] == "tools/list":
            cursor = str(len(server.requests))
            peer.json(result_of(request.message["id"], {"tools": [], "nextCursor": cursor}))
        else:
            await behaviour(request, peer)

    async with RawServer(handle) as server, House(tmp_path, s=Server(url=server.url)) as house:
        assert "more than 20 pages" in house.status("s").reason


async def test_the_list_is_read_again_when_its_time_has_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callgate.upstream.server.TTL", (0.02, 1.0))
    behaviour = ModernServer(ttl_ms=1)
    async with serve(behaviour) as server, House(tmp_path, s=Server(url=server.url)) as house:
        behaviour.tools = [{"name": "new"}]
        await until(lambda: house.listings[-1].tools[0]["name"] == "new")


@pytest.mark.rule("HDR-8")
async def test_a_header_mismatch_reads_the_list_again(tmp_path: Path) -> None:
    body = b'{"jsonrpc":"2.0","id":ID,"error":{"code":-32020,"message":"Mcp-Param-Region missing"}}'
    async with reply(body, status=400) as server, House(tmp_path, s=Server(url=server.url)) as house:
        assert (await house.call("s", "echo")).error is not None
        await until(lambda: len(house.listings) == 2)


async def test_a_server_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    async with serve(ModernServer()) as server, House(tmp_path, s=Server(url=server.url)) as house:
        port = server.port
        await server.stop()
        for _ in range(2):  # the first one may still meet a connection that is just being closed
            with pytest.raises(UpstreamError):
                await house.call("s", "echo")
        await until(lambda: house.status("s").state == "failed")
        assert "refused" in house.status("s").reason
        await server.start(port)
        await until(lambda: house.status("s").state == "ready")
        assert (await house.call("s", "echo")).error is None


async def test_calls_to_a_dead_server_fail_fast_and_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callgate.upstream.server.BACKOFF", (60.0, 60.0))
    async with serve(ModernServer()) as server:
        url, port = server.url, server.port
    async with House(tmp_path, s=Server(url=url)) as house:
        assert house.status("s").state == "failed"
        with pytest.raises(UpstreamUnavailable, match=r"Server `s` is not available: .*connection refused"):
            await house.call("s", "echo")  # this one made an attempt
        attempts = house.status("s").restarts
        with pytest.raises(UpstreamUnavailable, match="Server `s` is not available"):
            await house.call("s", "echo")  # and this one, within a second, did not
        assert house.status("s").restarts == attempts
        monkeypatch.setattr("callgate.upstream.server.KNOCK", 0.0)
        await server.start(port)
        assert (await house.call("s", "echo")).error is None
        await server.stop()


async def test_a_server_that_is_not_configured(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        with pytest.raises(UpstreamUnavailable, match="`ghost` is not configured"):
            await house.call("ghost", "echo")


@pytest.mark.rule("TASK-9")
@pytest.mark.parametrize(
    ("method", "params", "name"),
    [
        ("prompts/get", {"name": "p"}, "p"),
        ("resources/read", {"uri": "a:b"}, "a:b"),
        ("tasks/get", {"taskId": "t1"}, "t1"),
        ("completion/complete", {"ref": {}}, None),
        ("notes/archive", {"name": "x"}, None),
    ],
)
async def test_the_routing_headers_of_other_methods(
    tmp_path: Path, method: str, params: dict[str, Any], name: str | None
) -> None:
    async with serve(ModernServer()) as server, House(tmp_path, s=Server(url=server.url)) as house:
        await house.call("s", "x", method=method, params=params)
        request = next(request for request in server.requests if request.message["method"] == method)
    assert request.headers["mcp-method"] == method
    assert request.headers.get("mcp-name") == name

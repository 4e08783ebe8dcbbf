"""Every bound of ``limits``: below it one is served, above it refused, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.messages import dump, head, modern, post, routing, rpc, usual
from tests.gateway.stand import LegacyClient, Stand, calling, keys, refused, until
from tests.gateway.upstreams import Modern, Script, http, serve, waiting

pytestmark = pytest.mark.anyio

LIST = modern("tools/list")


def listing(stand: Stand, *more: tuple[str, str]) -> bytes:
    return stand.request(LIST, *more)


@pytest.mark.key("limits.max_body")
@pytest.mark.parametrize(("most", "status"), [(1000, 413), (3000, 200)])
async def test_max_body(tmp_path: Path, most: int, status: int) -> None:
    body = dump(LIST) + b" " * (2000 - len(dump(LIST)))
    chunked = b"7d0\r\n" + body + b"\r\n0\r\n\r\n"
    async with Stand(tmp_path, limits={"max_body": most}) as stand:
        begin = head("POST /mcp HTTP/1.1", [*usual(stand.port), *routing(LIST), ("Transfer-Encoding", "chunked")])
        for request in (post(stand.port, body, routing(LIST)), begin + chunked):
            assert (await stand.ask(request)).status == status


@pytest.mark.key("limits.max_body")
async def test_max_body_bounds_a_line_on_stdio_and_a_body_that_is_no_endpoints(tmp_path: Path) -> None:
    async with Stand(tmp_path, limits={"max_body": 1000}) as stand:
        reply = await stand.ask(post(stand.port, b"x" * 900, path="/nowhere"))
        assert reply.status == 404
        body = b"1\r\nx\r\n" * 20_000
        begin = head("POST /mcp HTTP/1.1", [*usual(stand.port), ("Transfer-Encoding", "chunked")])
        refused(await stand.ask(begin + body), 413)


@pytest.mark.key("limits.max_header_bytes")
@pytest.mark.parametrize(("most", "status"), [(1000, 431), (9000, 200)])
async def test_max_header_bytes(tmp_path: Path, most: int, status: int) -> None:
    async with Stand(tmp_path, limits={"max_header_bytes": most}) as stand:
        assert (await stand.ask(listing(stand, ("X-Long", "x" * 2000)))).status == status
        assert (await stand.ask(stand.request(LIST, path="/mcp?" + "y" * 2000))).status == status
        assert (await stand.ask(stand.page("/healthz", ("X-Long", "x" * 2000)))).status == status
        async with await stand.connect() as wire:  # one header that never ends
            wire.send(b"POST /mcp HTTP/1.1\r\nX-Long: ")
            for _ in range(20):
                wire.send(b"x" * 200)
                await asyncio.sleep(0.001)
            if status == 431:
                refused(await wire.reply(), 431)
            else:
                wire.send(b"\r\n" + listing(stand).partition(b"\r\n")[2])
                assert (await wire.reply()).status == 200


@pytest.mark.key("limits.max_headers")
@pytest.mark.parametrize(("most", "status"), [(10, 431), (40, 200)])
async def test_max_headers(tmp_path: Path, most: int, status: int) -> None:
    async with Stand(tmp_path, limits={"max_headers": most}) as stand:
        assert (await stand.ask(listing(stand, *[(f"X-{n}", "y") for n in range(20)]))).status == status


@pytest.mark.key("limits.max_depth")
@pytest.mark.parametrize(("most", "status"), [(10, 400), (30, 200)])
async def test_max_depth(tmp_path: Path, most: int, status: int) -> None:
    deep = json.loads("[" * 15 + "]" * 15)
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}, limits={"max_depth": most}) as stand:
        reply = await stand.call("u__echo", {"deep": deep})
        assert (reply.status, reply.error) == (status, None if status == 200 else -32700)


SOON = {"header_timeout": 0.15, "body_timeout": 0.15, "idle_timeout": 0.15}
LATE = {"header_timeout": 60.0, "body_timeout": 60.0, "idle_timeout": 60.0}


async def seen(stand: Stand, begin: bytes) -> tuple[int, bool]:
    """What becomes of a connection on which nothing follows: its last status, and whether it was closed."""
    async with await stand.connect() as wire:
        wire.send(begin)
        status = 0
        try:
            async with asyncio.timeout(1.0):
                while True:
                    status = (await wire.head())[0] or status
                    await wire.reader.readuntil(b"}")
        except (asyncio.IncompleteReadError, ConnectionError):
            return status, True
        except TimeoutError:
            return status, False


@pytest.mark.key("limits.header_timeout")
async def test_header_timeout(tmp_path: Path) -> None:
    async with Stand(tmp_path, limits={**LATE, "header_timeout": 0.15}) as stand:
        assert await seen(stand, b"POST /mcp HTTP/1.1\r\nHost: ") == (408, True)


@pytest.mark.key("limits.body_timeout")
async def test_body_timeout(tmp_path: Path) -> None:
    async with Stand(tmp_path, limits={**LATE, "body_timeout": 0.15}) as stand:
        assert await seen(stand, listing(stand)[:-5]) == (408, True)


@pytest.mark.key("limits.idle_timeout")
async def test_idle_timeout(tmp_path: Path) -> None:
    async with Stand(tmp_path, limits={**LATE, "idle_timeout": 0.15}) as stand:
        assert await seen(stand, b"") == (0, True)
        assert await seen(stand, stand.page("/healthz")) == (200, True)


@pytest.mark.key("limits.header_timeout", "limits.body_timeout", "limits.idle_timeout")
@pytest.mark.slow
async def test_with_long_limits_connections_stay(tmp_path: Path) -> None:
    async with Stand(tmp_path, limits=LATE) as stand:
        for begin in (b"POST /mcp HTTP/1.1\r\nHost: ", listing(stand)[:-5], b"", stand.page("/healthz")):
            assert not (await seen(stand, begin))[1]


@pytest.mark.key("limits.header_timeout", "limits.body_timeout", "limits.idle_timeout")
async def test_a_call_may_take_longer_than_a_client_may(tmp_path: Path) -> None:
    began, gate = asyncio.Event(), asyncio.Event()
    async with (
        serve(Modern(Script(acts={"slow": waiting(gate, began)}))) as server,
        Stand(tmp_path, {"u": http(server)}, limits=SOON) as stand,
        await stand.connect() as wire,
    ):
        wire.send(stand.request(calling("u__slow")))
        await began.wait()
        await asyncio.sleep(0.4)  # several sweeps
        gate.set()
        assert (await wire.reply()).status == 200


@pytest.mark.key("limits.max_connections")
async def test_max_connections(tmp_path: Path) -> None:
    async with Stand(tmp_path, limits={"max_connections": 3}) as stand:
        wires = [await stand.connect() for _ in range(3)]
        for wire in wires:
            wire.send(listing(stand))
            assert (await wire.reply()).status == 200
        async with await stand.connect() as fourth:
            refused(await fourth.reply(), 503)
        wires[0].send(listing(stand))
        assert (await wires[0].reply()).status == 200
        await wires.pop().close()
        await until(lambda: len(stand.gateway._front.state.connections) == 2)
        assert (await stand.ask(listing(stand))).status == 200
        for wire in wires:
            await wire.close()


@pytest.mark.key("limits.max_streams")
async def test_max_streams(tmp_path: Path) -> None:
    async with Stand(tmp_path, limits={"max_streams": 2}, identity={"keys": keys("ann", "bob")}) as stand:
        one, two = await stand.legacy(who="ann"), await stand.legacy(who="ann")
        open_ = [await one.listen(), await two.listen(), await (await stand.legacy(who="bob")).listen()]
        for session in (one, two):
            page = stand.page("/mcp", *session.headers(("Accept", "text/event-stream")))
            refused(await stand.ask(page), 429)
        await open_.pop(0).close()
        await until(lambda: stand.house.sessions.streams_of(one_key(stand, "ann")) == 1)
        open_.append(await two.listen())
        for wire in open_:
            await wire.close()


def one_key(stand: Stand, who: str) -> str:
    found = stand.house.recogniser.known(f"Bearer the-key-of-{who}".encode())
    assert found is not None
    return found.key


@pytest.mark.key("limits.max_sessions")
async def test_max_sessions(tmp_path: Path) -> None:
    async with Stand(tmp_path, limits={"max_sessions": 2}, identity={"keys": keys("ann", "bob")}) as stand:
        one, two, other = [await stand.legacy(who=who) for who in ("ann", "ann", "bob")]
        assert (await one.ask("ping")).status == 200
        three = await stand.legacy(who="ann")  # the least recently used one ends
        statuses = [(await session.ask("ping")).status for session in (one, two, three, other)]
        assert statuses == [200, 404, 200, 200]


@pytest.mark.key("limits.session_ttl")
async def test_session_ttl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callgate.gateway.house.SWEEP_EVERY", 0.02)
    async with Stand(tmp_path, limits={"session_ttl": 0.3}) as stand:
        idle, listening = await stand.legacy(), await stand.legacy()
        stream = await listening.listen()
        await until(lambda: len(stand.house.sessions) == 1)
        refused(await idle.ask("ping"), 404)
        assert (await listening.ask("ping")).status == 200
        await stream.close()
        await until(lambda: len(stand.house.sessions) == 0)


@pytest.mark.key("limits.session_ttl")
async def test_session_ttl_counts_across_a_restart(tmp_path: Path) -> None:
    async with Stand(tmp_path) as before:
        session = await before.legacy()
    await asyncio.sleep(1.1)  # tickets count in seconds
    for ttl, status in ((0.5, 404), (3600.0, 200)):
        async with Stand(tmp_path, limits={"session_ttl": ttl}) as after:
            assert (await LegacyClient(after, session.id, None, None, "/mcp").ask("ping")).status == status


@pytest.mark.key("limits.max_calls")
async def test_max_calls(tmp_path: Path) -> None:
    gate = asyncio.Event()
    script = Script(acts={"slow": waiting(gate)})
    async with serve(Modern(script)) as server:
        identity = {"keys": keys("ann", "bob")}
        async with Stand(tmp_path, {"u": http(server)}, limits={"max_calls": 2}, identity=identity) as stand:
            running: list[asyncio.Task[Any]] = [asyncio.create_task(stand.call("u__slow", who="ann")) for _ in range(2)]
            await until(lambda: len(script.called) == 2)
            reply = refused(await stand.call("u__echo", who="ann"), 200, -31429)
            assert (await stand.modern("tools/list", who="ann")).status == 200
            assert (await stand.call("u__echo", who="bob")).status == 200
            session = await stand.legacy(who="ann", version="2025-03-26")
            batch = await session.post([rpc("tools/call", {"name": "u__echo"}, n) for n in range(3)])
            assert [each["error"]["code"] for each in batch.json] == [-31429] * 3
            gate.set()
            assert [(await task).status for task in running] == [200, 200]
            assert (await stand.call("u__echo", who="ann")).status == 200
            records = await stand.records(8)
            assert sorted(each["outcome"] for each in records) == ["ok"] * 4 + ["refused"] * 4
            assert reply.json["error"]["data"]["callId"] in [each["id"] for each in records]

"""Connections: pipelines, old HTTP, bodies in pieces, browsers, and clients that do not read."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.messages import dump, head, modern, post, routing, usual
from tests.gateway.stand import Stand, Wire, calling, keys, refused, until
from tests.gateway.upstreams import Modern, Script, http, progress, serve, streaming, text, waiting

pytestmark = pytest.mark.anyio


def listing(stand: Stand, id: object = 1) -> bytes:
    return stand.request(modern("tools/list", id=id))


# Pipelines


async def test_a_pipeline_of_all_kinds_is_answered_in_order(tmp_path: Path) -> None:
    began, gate = asyncio.Event(), asyncio.Event()
    script = Script({"fast": text("fast")}, acts={"slow": waiting(gate, began)})
    async with (
        serve(Modern(script)) as server,
        Stand(tmp_path, {"u": http(server)}) as stand,
        await stand.connect() as wire,
    ):
        wire.send(
            stand.page("/healthz") + stand.request(calling("u__slow", id=1)) + stand.page("/readyz")
            + listing(stand, 2) + stand.request(calling("u__fast", id=3)) + stand.page("/nowhere")
            + stand.page("/mcp", method="DELETE") + listing(stand, 4)
        )  # fmt: skip
        assert (await wire.reply()).json["status"] == "ok"
        await began.wait()
        gate.set()
        assert (await wire.reply()).json["id"] == 1
        assert "ready" in (await wire.reply()).json
        assert [(await wire.reply()).json["id"] for _ in range(2)] == [2, 3]
        assert [(await wire.reply()).status for _ in range(2)] == [404, 405]
        assert (await wire.reply()).json["id"] == 4


async def test_a_long_pipeline_behind_a_slow_call_is_answered_in_order(tmp_path: Path) -> None:
    """Longer than what may wait, than one read of the socket, and than the stack is deep."""
    began, gate, count = asyncio.Event(), asyncio.Event(), 2000
    async with (
        serve(Modern(Script(acts={"slow": waiting(gate, began)}))) as server,
        Stand(tmp_path, {"u": http(server)}) as stand,
        await stand.connect() as wire,
    ):
        wire.send(stand.request(calling("u__slow", id="slow")))
        wire.send(b"".join(listing(stand, n) for n in range(count)))
        await began.wait()
        gate.set()
        assert [(await wire.reply()).json["id"] for _ in range(count + 1)] == ["slow", *range(count)]


async def test_a_large_body_in_a_pipeline_is_not_taken_for_headers(tmp_path: Path) -> None:
    """The end of a body and the beginning of the next request arrive together, piece by piece."""
    async with (
        serve(Modern()) as server,
        Stand(tmp_path, {"u": http(server)}, limits={"max_header_bytes": 1024}) as stand,
        await stand.connect() as wire,
    ):
        big = stand.request(calling("u__echo", {"text": "x" * 50_000}, id=1))
        after = listing(stand, 2)
        for cut in (1, 10, 60):
            wire.send(big + after[:cut])
            assert (await wire.reply()).json["id"] == 1
            wire.send(after[cut:])
            assert (await wire.reply()).json["id"] == 2


async def test_a_body_that_waits_behind_a_slow_call_is_not_late(tmp_path: Path) -> None:
    """The gateway does not read it meanwhile, so its time does not run."""
    began, gate = asyncio.Event(), asyncio.Event()
    limits = {"body_timeout": 0.2, "idle_timeout": 0.2}
    async with (
        serve(Modern(Script(acts={"slow": waiting(gate, began)}))) as server,
        Stand(tmp_path, {"u": http(server)}, limits=limits) as stand,
        await stand.connect() as wire,
    ):
        wire.send(stand.request(calling("u__slow", id=1)))
        for n in (2, 3):
            wire.send(stand.request(calling("u__echo", {"text": "x" * 1_000_000}, id=n)))
        await began.wait()
        await asyncio.sleep(0.5)  # several sweeps: the deadline would have passed
        gate.set()
        assert [(await wire.reply()).json["id"] for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("streamed", [False, True])
async def test_what_is_refused_waits_for_what_came_before(tmp_path: Path, streamed: bool) -> None:
    began, gate = asyncio.Event(), asyncio.Event()

    async def slow(message: Any, peer: Any) -> None:
        act = streaming(progress(1), gate=gate) if streamed else waiting(gate)
        began.set()
        await act(message, peer)

    bad = [b"garbage\r\n\r\n", b"POST /mcp HTTP/1.1\r\nhost: evil.example\r\n\r\n"]
    async with serve(Modern(Script(acts={"slow": slow}))) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        bad.append(listing(stand).replace(b"\r\n\r\n", b"\r\norigin: http://evil.example\r\n\r\n", 1))
        too_much = [("Content-Length", str(10**9))]
        bad.append(post(stand.port, b"x" * 100, [*routing(modern("x")), *too_much], without=["Content-Length"]))
        bad[-1] += b"x" * (4 * 1024 * 1024 + 1)
        for garbage, status in zip(bad, (400, 421, 403, 413), strict=True):
            began.clear()
            gate.clear()
            async with await stand.connect() as wire:
                wire.send(stand.request(calling("u__slow", id=1, progressToken=1)) + listing(stand, 2) + garbage)
                await began.wait()
                gate.set()
                first = await wire.reply()
                assert first.json["id"] == 1
                assert first.json["result"]["content"][0]["text"] in ("done", "at last")
                assert (await wire.reply()).json["id"] == 2
                refused(await wire.reply(), status)
                assert await wire.ended() == b""
        assert {each["outcome"] for each in await stand.records(4)} == {"ok"}


async def test_a_refused_body_does_not_answer_for_the_call_before_it(tmp_path: Path) -> None:
    limits = {"body_timeout": 0.2, "idle_timeout": 0.2}
    async with (
        serve(Modern()) as server,
        Stand(tmp_path, {"u": http(server)}, limits=limits) as stand,
        await stand.connect() as wire,
    ):
        half = post(stand.port, b"{", [("Content-Length", "100")], without=["Content-Length"])
        wire.send(stand.request(calling("u__echo", id=1)) + half)
        assert (await wire.reply()).json["id"] == 1
        refused(await wire.reply(), 408)
        assert await wire.ended() == b""


async def test_a_connection_that_was_answered_early_rests_when_the_body_is_there(tmp_path: Path) -> None:
    """Not an endpoint: answered before the body has arrived. Afterwards the connection is idle, and ends for it."""
    async with Stand(tmp_path, limits={"idle_timeout": 0.2}) as stand, await stand.connect() as wire:
        wire.send(head("POST /nowhere HTTP/1.1", [*usual(stand.port), ("Content-Length", "10")]))
        assert (await wire.reply()).status == 404
        wire.send(b"x" * 10 + listing(stand))
        assert (await wire.reply()).status == 200
        wire.send(head("POST /nowhere HTTP/1.1", [*usual(stand.port), ("Content-Length", "10")]))
        assert (await wire.reply()).status == 404
        wire.send(b"x" * 10)
        assert await wire.ended() == b""


# HTTP of all ages


@pytest.mark.parametrize("more", [b"", b"Connection: keep-alive\r\n"])
async def test_http_1_0_is_answered_and_closed(tmp_path: Path, more: bytes) -> None:
    async with Stand(tmp_path) as stand, await stand.connect() as wire:
        wire.send(listing(stand).replace(b"HTTP/1.1\r\n", b"HTTP/1.0\r\n" + more, 1))
        reply = await wire.reply()
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert await wire.ended() == b""


async def test_a_client_that_wants_to_close_is_closed(tmp_path: Path) -> None:
    async with Stand(tmp_path) as stand:
        for request in (listing(stand), stand.page("/healthz"), stand.request(modern("nothing"))):
            async with await stand.connect() as wire:
                wire.send(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) + listing(stand))
                assert (await wire.reply()).headers["connection"] == "close"
                assert await wire.ended() == b""


async def test_an_offer_to_upgrade_is_refused_whole(tmp_path: Path) -> None:
    """Its body is not taken for a message, nor for the next request."""
    offer = b"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
    async with Stand(tmp_path) as stand:
        for request in (listing(stand), stand.page("/healthz"), b"CONNECT a:1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"):
            async with await stand.connect() as wire:
                wire.send(listing(stand, 0) + request.replace(b"\r\n", offer, 1) + listing(stand, 2))
                assert (await wire.reply()).json["id"] == 0
                refused(await wire.reply(), 400)
                assert await wire.ended() == b""


async def test_who_waits_to_be_asked_for_the_body_is_asked(tmp_path: Path) -> None:
    async with Stand(tmp_path) as stand, await stand.connect() as wire:
        for _ in range(2):
            begin, _, body = listing(stand).partition(b"\r\n\r\n")
            wire.send(begin + b"\r\nExpect: 100-continue\r\n\r\n")
            assert (await wire.head())[0] == 100
            wire.send(body)
            assert (await wire.reply()).status == 200


async def test_who_waits_in_a_pipeline_is_asked_when_it_is_their_turn(tmp_path: Path) -> None:
    began, gate = asyncio.Event(), asyncio.Event()
    async with (
        serve(Modern(Script(acts={"slow": waiting(gate, began)}))) as server,
        Stand(tmp_path, {"u": http(server)}) as stand,
        await stand.connect() as wire,
    ):
        begin, _, body = listing(stand, 2).partition(b"\r\n\r\n")
        wire.send(stand.request(calling("u__slow", id=1)) + begin + b"\r\nExpect: 100-continue\r\n\r\n")
        await began.wait()
        gate.set()
        assert (await wire.reply()).json["id"] == 1
        assert (await wire.head())[0] == 100
        wire.send(body)
        assert (await wire.reply()).json["id"] == 2


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_a_body_may_come_in_chunks_and_pieces(tmp_path: Path, size: int) -> None:
    message = modern("tools/list", id="chunked")
    body = dump(message)
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(body[n : n + size]), body[n : n + size]) for n in range(0, len(body), size)
    )
    begin = head("POST /mcp HTTP/1.1", [*usual(0), *routing(message), ("Transfer-Encoding", "chunked")])
    async with Stand(tmp_path) as stand, await stand.connect() as wire:
        request = begin.replace(b"127.0.0.1:0", b"127.0.0.1:%d" % stand.port) + chunks + b"0\r\n\r\n"
        wire.send(request)
        assert (await wire.reply()).json["id"] == "chunked"
        for n in range(0, len(request), 100):
            wire.send(request[n : n + 100])
            await asyncio.sleep(0)
        assert (await wire.reply()).json["id"] == "chunked"


async def test_trailers_bring_no_credential_and_no_session(tmp_path: Path) -> None:
    async with Stand(tmp_path, identity={"keys": keys("ann")}) as stand:
        session = await stand.legacy(who="ann")
        for method in ("DELETE", "GET"):
            begin = stand.page("/mcp", ("Transfer-Encoding", "chunked"), ("Accept", "text/event-stream"), method=method)
            trailer = "".join(f"{name}: {value}\r\n" for name, value in session.headers())
            refused(await stand.ask(begin + b"0\r\n" + trailer.encode() + b"\r\n"), 401)
        assert (await session.ask("ping")).status == 200


# Browsers


@pytest.mark.rule("HTTP-3")
@pytest.mark.key("allowed_origins")
async def test_pages_of_an_allowed_origin_may_call_and_read_the_answer(tmp_path: Path) -> None:
    origin = "https://app.example.org"
    async with (
        serve(Modern()) as server,
        Stand(tmp_path, {"u": http(server)}, allowed_origins=[origin], identity={"keys": keys("ann")}) as stand,
    ):
        asked = [("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "mcp-method, x-y")]
        for page, status in (
            (origin, 204),
            ("https://evil.example.org", 403),
            (f"http://127.0.0.1:{stand.port}", 204),
        ):
            reply = await stand.ask(stand.page("/mcp", ("Origin", page), *asked, method="OPTIONS"))
            assert reply.status == status
            assert reply.headers.get("access-control-allow-origin") == (page if status == 204 else None)
        permitted = await stand.ask(stand.page("/mcp", ("Origin", origin), *asked, method="OPTIONS"))
        assert permitted.headers["access-control-allow-headers"] == "mcp-method, x-y"
        assert "POST" in permitted.headers["access-control-allow-methods"]
        for who, status in (("ann", 200), (None, 401)):
            request = stand.request(calling("u__echo"), ("Origin", origin), who=who)
            reply = await stand.ask(request)
            assert reply.status == status
            assert reply.headers["access-control-allow-origin"] == origin
            assert "mcp-session-id" in reply.headers["access-control-expose-headers"]
        streamed = stand.request(calling("u__progress", progressToken=1), ("Origin", origin), who="ann")
        assert (await stand.ask(streamed)).headers["access-control-allow-origin"] == origin
        refused(await stand.ask(stand.request(calling("u__echo"), ("Origin", "https://evil.org"), who="ann")), 403)
        assert "access-control-allow-origin" not in (await stand.call("u__echo", who="ann")).headers


@pytest.mark.key("allowed_hosts")
async def test_only_the_listeners_own_names_and_allowed_ones_are_answered(tmp_path: Path) -> None:
    async with Stand(tmp_path, allowed_hosts=["gate.example.org", "other.example.org:99"]) as stand:
        own = f"127.0.0.1:{stand.port}".encode()
        for host, status in ((b"gate.example.org", 200), (b"gate.example.org:1234", 200), (b"GATE.example.org", 200),
                             (b"other.example.org:99", 200), (b"other.example.org", 421), (b"localhost", 200),
                             (b"evil.example.org", 421), (b"gate.example.org.evil.org", 421)):  # fmt: skip
            for request in (listing(stand), stand.page("/healthz")):
                reply = await stand.ask(request.replace(own, host, 1))
                assert reply.status == status, host


# Clients that do not read

BIG = text("x" * 1_000_000)


async def narrow(stand: Stand) -> Wire:
    """A connection on which next to nothing is on its way that neither side holds."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    connections = stand.gateway._front.state.connections
    before = set(connections)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", stand.port))
    wire = Wire(*await asyncio.open_connection(sock=sock, limit=4096))
    await until(lambda: connections - before)
    for each in connections - before:
        each.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
    return wire


def kept(stand: Stand) -> int:
    """Bytes that wait to be written to clients."""
    return sum(each.transport.get_write_buffer_size() for each in stand.gateway._front.state.connections)


async def test_a_client_that_does_not_read_is_not_answered_further(tmp_path: Path) -> None:
    script = Script({"big": BIG})
    async with serve(Modern(script)) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        wire = await narrow(stand)
        async with await stand.connect() as neighbour:
            for n in range(200):
                wire.send(stand.request(calling("u__big", id=n)))
                if n % 20 == 0:
                    neighbour.send(stand.request(calling("u__echo")))
                    assert (await neighbour.reply()).status == 200
            await until(lambda: len([each for each in script.called if each["params"]["name"] == "big"]) >= 1)
            neighbour.send(stand.request(calling("u__echo")))
            assert (await neighbour.reply()).status == 200
            made = [each for each in script.called if each["params"]["name"] == "big"]
            assert len(made) <= 12, "answers to a client that reads none pile up"
            assert kept(stand) < 12 * 1_100_000
        wire.reader._limit = 2**21  # type: ignore[attr-defined]  # now it reads
        assert [(await wire.reply()).json["id"] for _ in range(30)] == list(range(30))
        await wire.close()


async def test_a_flood_of_progress_to_a_client_that_does_not_read_is_dropped_not_kept(tmp_path: Path) -> None:
    gate, flooded = asyncio.Event(), asyncio.Event()

    async def flood(message: Any, peer: Any) -> None:
        peer.sse_head()
        token = message["params"]["_meta"]["progressToken"]
        for n in range(20_000):
            params = {"progressToken": token, "progress": n, "message": "x" * 1000}
            peer.event({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
            if n % 50 == 0:
                await peer.writer.drain()
        flooded.set()
        await gate.wait()
        peer.event({"jsonrpc": "2.0", "id": message["id"], "result": text("after the flood")})
        peer.chunk(b"")

    async with serve(Modern(Script(acts={"flood": flood}))) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        wire = await narrow(stand)
        wire.send(stand.request(calling("u__flood", progressToken=1)))
        async with asyncio.timeout(30):
            await flooded.wait()
        assert kept(stand) < 3_000_000
        assert (await stand.call("u__echo")).status == 200
        gate.set()
        wire.reader._limit = 2**21  # type: ignore[attr-defined]
        await wire.head()
        said = [(await wire.event())]
        while "id" not in said[-1]:
            said.append(await wire.event())
        assert said[-1]["result"]["content"][0]["text"] == "after the flood"
        assert len(said) < 20_000
        await wire.close()


@pytest.mark.key("limits.body_timeout")
async def test_who_never_reads_an_answer_is_cut_off_and_who_reads_slowly_is_not(tmp_path: Path) -> None:
    async with serve(Modern(Script({"big": BIG}))) as server:
        limits = {"body_timeout": 0.4, "idle_timeout": 0.4}
        async with Stand(tmp_path, {"u": http(server)}, limits=limits) as stand:
            never, slow = await narrow(stand), await narrow(stand)
            for wire in (never, slow):
                for n in range(8):
                    wire.send(stand.request(calling("u__big", id=n)))
            connections = stand.gateway._front.state.connections
            await until(lambda: len(connections) == 2)
            got = b""
            async with asyncio.timeout(10):
                while len(connections) == 2:
                    got += await slow.reader.read(40_000)
                    await asyncio.sleep(0.01)
            while got.count(b'"id":7,') == 0:
                async with asyncio.timeout(10):
                    chunk = await slow.reader.read(2**16)
                assert chunk, "the slow reader was cut off"
                got = got[-100:] + chunk
            for wire in (never, slow):
                wire.writer.transport.abort()


async def test_a_client_that_does_not_read_its_stream_loses_changes_and_nobody_else_does(tmp_path: Path) -> None:
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        session, other = await stand.legacy(), await stand.legacy()
        quiet, reads = await session.listen(), await other.listen()
        [waiting_] = session_streams = stand.house.sessions.find(session.id.encode(), anonymous(stand), "").streams
        for burst in range(20):
            for each in range(300):
                stand.house.sessions.push(json.dumps({"n": 300 * burst + each, "pad": "x" * 1000}).encode(), "")
            assert waiting_.qsize() <= 256
            await reads.event()
        assert len(session_streams) == 1
        assert kept(stand) < 1_000_000
        await quiet.close()
        await reads.close()


def anonymous(stand: Stand) -> Any:
    return stand.house.recogniser.anonymous

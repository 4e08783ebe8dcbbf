from __future__ import annotations

import asyncio
import math
import socket
import time

import pytest

from callgate.egress import Deadlines, HttpPool, Origin, Response, parse_url
from callgate.egress.connection import Bounds, Connection
from callgate.egress.dial import Route, dial
from callgate.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable
from tests.servers.raw_http import Peer, RawServer, Request

pytestmark = pytest.mark.anyio


async def ask(origin: Origin, *, timeout: float = 5.0, events: bool = False, replay: bool = False) -> Response:
    data = origin.start_line("POST") + b"content-length: 2\r\n\r\nhi"
    return await origin.request(data, asyncio.get_running_loop().time() + timeout, events=events, replay=replay)


async def test_a_connection_is_used_again() -> None:
    async def ok(request: Request, peer: Peer) -> None:
        peer.body(b"fine")

    async with RawServer(ok) as server:
        pool = HttpPool()
        origin = pool.origin(server.url)
        for _ in range(20):
            assert (await ask(origin)).body == b"fine"
        assert server.connections == 1
        assert server.requests[0].target == "/mcp"
        assert server.requests[0].headers["host"] == f"127.0.0.1:{server.port}"
        await pool.aclose()


@pytest.mark.parametrize(
    ("answer", "reused"),
    [
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nfi\r\n2\r\nne\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nfine", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 4\r\n\r\nfine", False),
    ],
)
async def test_ways_to_frame_a_body(answer: bytes, reused: bool) -> None:
    async def say(request: Request, peer: Peer) -> None:
        peer.raw(answer)

    async with RawServer(say) as server:
        pool = HttpPool()
        for _ in range(2):
            assert (await ask(pool.origin(server.url))).body == b"fine"
        assert server.connections == (1 if reused else 2)
        await pool.aclose()


async def test_a_body_may_end_with_the_connection() -> None:
    async def say(request: Request, peer: Peer) -> None:
        peer.raw(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        await peer.writer.drain()
        peer.close()

    async with RawServer(say) as server:
        pool = HttpPool()
        assert (await ask(pool.origin(server.url))).body == b"all of it"
        await pool.aclose()


@pytest.mark.parametrize("most", [1, 3])
async def test_the_number_of_connections_is_bounded_and_waiters_are_served_in_order(most: int) -> None:
    order: list[int] = []

    async def slow(request: Request, peer: Peer) -> None:
        await asyncio.sleep(0.005)
        peer.body(b"ok")

    async with RawServer(slow) as server:
        pool = HttpPool(max_connections=most)
        origin = pool.origin(server.url)

        async def one(number: int) -> None:
            await ask(origin)
            order.append(number)

        await asyncio.gather(*(one(number) for number in range(9)))
        assert server.connections == most
        # Within one round of answers the order is chance.
        assert [sorted(order[at : at + most]) for at in range(0, 9, most)] == [
            list(range(at, at + most)) for at in range(0, 9, most)
        ]
        await pool.aclose()


async def test_a_waiter_that_gives_up_leaves_no_trace() -> None:
    release = asyncio.Event()

    async def hold(request: Request, peer: Peer) -> None:
        await release.wait()
        peer.body(b"ok")

    async with RawServer(hold) as server:
        pool = HttpPool(max_connections=1)
        origin = pool.origin(server.url)
        first = asyncio.create_task(ask(origin))
        await asyncio.sleep(0.01)
        with pytest.raises(UpstreamTimeout, match="no free connection"):
            await ask(origin, timeout=0.03)
        cancelled = asyncio.create_task(ask(origin))
        await asyncio.sleep(0.01)
        cancelled.cancel()
        last = asyncio.create_task(ask(origin))
        await asyncio.sleep(0.01)
        release.set()
        assert (await first).body == (await last).body == b"ok"
        assert server.connections == 1
        await pool.aclose()


async def test_a_stale_connection_is_replaced_when_the_request_was_never_read() -> None:
    async def answer(request: Request, peer: Peer) -> None:
        peer.body(b"ok")

    async with RawServer(answer) as server:
        pool = HttpPool()
        origin = pool.origin(server.url)
        await ask(origin)
        # The server ends without reading; its kernel resets the connection when the next request arrives.
        port = server.port
        await server.stop()
        await server.start(port)
        assert (await ask(origin)).body == b"ok"
        assert len(server.requests) == 2
        await pool.aclose()


async def test_a_request_that_may_have_been_processed_is_not_sent_again() -> None:
    async def first_only(request: Request, peer: Peer) -> None:
        if len(server.requests) == 2:
            peer.close()  # read the request, then said nothing: it may have acted
        else:
            peer.body(b"ok")

    async with RawServer(first_only) as server:
        pool = HttpPool()
        origin = pool.origin(server.url)
        await ask(origin)
        with pytest.raises(UpstreamError, match="closed the connection before its answer"):
            await ask(origin)
        assert len(server.requests) == 2
        assert (await ask(origin)).body == b"ok"
        await pool.aclose()


async def test_a_harmless_request_is_sent_again_once() -> None:
    async def never_twice(request: Request, peer: Peer) -> None:
        if len(server.requests) == 1:
            peer.body(b"ok")
        else:
            peer.close()

    async with RawServer(never_twice) as server:
        pool = HttpPool()
        origin = pool.origin(server.url)
        await ask(origin)
        with pytest.raises(UpstreamError):
            await ask(origin, replay=True)
        assert len(server.requests) == 3
        await pool.aclose()


async def test_an_answer_that_began_is_never_asked_for_again() -> None:
    async def half(request: Request, peer: Peer) -> None:
        if len(server.requests) == 1:
            peer.body(b"ok")
        else:
            peer.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
            await peer.writer.drain()
            peer.reset()

    async with RawServer(half) as server:
        pool = HttpPool()
        origin = pool.origin(server.url)
        await ask(origin)
        with pytest.raises(UpstreamError, match="before its answer was complete"):
            await ask(origin, replay=True)
        assert len(server.requests) == 2
        await pool.aclose()


@pytest.mark.rule("HTTP-14")
async def test_giving_up_closes_the_connection() -> None:
    hung = asyncio.Event()
    closed = asyncio.Event()

    async def hang(request: Request, peer: Peer) -> None:
        hung.set()
        await peer.closed()
        closed.set()

    async with RawServer(hang) as server:
        pool = HttpPool()
        caller = asyncio.create_task(ask(pool.origin(server.url)))
        await hung.wait()
        caller.cancel()
        async with asyncio.timeout(2):
            await closed.wait()
        with pytest.raises(asyncio.CancelledError):
            await caller
        await pool.aclose()


async def test_a_deadline_ends_the_wait_and_the_connection() -> None:
    closed = asyncio.Event()

    async def hang(request: Request, peer: Peer) -> None:
        await peer.closed()
        closed.set()

    async with RawServer(hang) as server:
        pool = HttpPool()
        with pytest.raises(UpstreamTimeout):
            await ask(pool.origin(server.url), timeout=0.05)
        async with asyncio.timeout(2):
            await closed.wait()
        await pool.aclose()


ATTACKS = {
    "endless headers": (b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * 50_000, "headers larger"),
    "one endless header": (b"HTTP/1.1 200 OK\r\nx-a: " + b"b" * 400_000, "headers larger"),
    "endless interim responses": (b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000, "headers larger"),
    "endless trailer": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n" + b"x: y\r\n" * 200_000,
        "headers larger",
    ),
    "announced too large": (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", "announced a body larger"),
    "really too large": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        + b"1000\r\n"
        + b"x" * 4096
        + b"\r\n1000\r\n"
        + b"x" * 4096,
        "a body larger than 5000",
    ),
    "two lengths": (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", "malformed"),
    "length and chunks": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "malformed",
    ),
    "not HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n", "malformed"),
    "two answers": (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n" * 2, "more than one response"),
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_a_response_out_of_bounds_is_refused(name: str) -> None:
    attack, reason = ATTACKS[name]
    closed = asyncio.Event()

    async def say(request: Request, peer: Peer) -> None:
        peer.raw(attack)
        await peer.closed()
        closed.set()

    async with RawServer(say) as server:
        pool = HttpPool(max_body=5000)
        with pytest.raises(UpstreamError, match=reason):
            await ask(pool.origin(server.url))
        await pool.aclose()


async def test_bytes_that_nobody_asked_for_end_the_connection() -> None:
    said = asyncio.Event()

    async def say(request: Request, peer: Peer) -> None:
        peer.body(b"ok")
        await peer.writer.drain()
        if len(server.requests) == 1:
            await asyncio.sleep(0.01)
            peer.body(b"smuggled")
            await peer.closed()
            said.set()

    async with RawServer(say) as server:
        pool = HttpPool()
        origin = pool.origin(server.url)
        assert (await ask(origin)).body == b"ok"
        async with asyncio.timeout(2):
            await said.wait()
        assert (await ask(origin)).body == b"ok"
        assert server.connections == 2
        await pool.aclose()


async def test_an_event_stream_ends_and_its_connection_goes_on() -> None:
    async def say(request: Request, peer: Peer) -> None:
        peer.sse_head()
        peer.event({"n": 1})
        await asyncio.sleep(0.01)
        peer.event({"n": 2})
        await asyncio.sleep(0.01)
        peer.chunk(b"")

    async with RawServer(say) as server:
        pool = HttpPool()
        origin = pool.origin(server.url)
        for _ in range(2):
            response = await ask(origin, events=True)
            assert response.events is not None
            assert await response.events.next() == b'{"n": 1}'
            assert await response.events.next() == b'{"n": 2}'
            response.events.finish()
            await asyncio.sleep(0.03)
        assert server.connections == 1
        await pool.aclose()


async def test_leaving_an_event_stream_closes_its_connection() -> None:
    closed = asyncio.Event()

    async def say(request: Request, peer: Peer) -> None:
        peer.sse_head()
        peer.event({"n": 1})
        await peer.closed()
        closed.set()

    async with RawServer(say) as server:
        pool = HttpPool()
        response = await ask(pool.origin(server.url), events=True)
        assert response.events is not None
        response.events.close()
        async with asyncio.timeout(2):
            await closed.wait()
        await pool.aclose()


async def test_a_stream_that_falls_silent_meets_its_deadline() -> None:
    async def say(request: Request, peer: Peer) -> None:
        peer.sse_head()
        peer.event({"n": 1})
        await peer.closed()

    async with RawServer(say) as server:
        pool = HttpPool()
        response = await ask(pool.origin(server.url), events=True, timeout=0.1)
        assert response.events is not None
        await response.events.next()
        with pytest.raises(UpstreamTimeout):
            await response.events.next()
        await pool.aclose()


async def test_idle_connections_are_closed_before_the_server_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callgate.egress.origin.SWEEP", 0.01)
    closed = asyncio.Event()

    async def say(request: Request, peer: Peer) -> None:
        peer.body(b"ok", more="keep-alive: timeout=1\r\n")
        await peer.closed()
        closed.set()

    async with RawServer(say) as server:
        pool = HttpPool()
        await ask(pool.origin(server.url))
        async with asyncio.timeout(2):
            await closed.wait()
        await pool.aclose()


async def test_nobody_listens() -> None:
    async with RawServer(lambda request, peer: asyncio.sleep(0)) as server:
        url = server.url
    pool = HttpPool()
    with pytest.raises(UpstreamUnavailable, match="connection refused"):
        await ask(pool.origin(url))
    await pool.aclose()


async def test_a_name_that_does_not_resolve() -> None:
    pool = HttpPool()
    with pytest.raises(UpstreamUnavailable, match="cannot be resolved"):
        await ask(pool.origin("http://no-such-host.invalid/mcp"))
    await pool.aclose()


async def test_closing_the_pool_ends_what_runs() -> None:
    hung = asyncio.Event()

    async def hang(request: Request, peer: Peer) -> None:
        hung.set()
        await peer.closed()

    async with RawServer(hang) as server:
        pool = HttpPool(max_connections=1)
        origin = pool.origin(server.url)
        running, waiting = asyncio.create_task(ask(origin)), asyncio.create_task(ask(origin))
        await hung.wait()
        await pool.aclose()
        for task in (running, waiting):
            with pytest.raises(UpstreamError, match="shut down"):
                await task


async def test_a_stream_without_a_deadline_is_not_timed() -> None:
    async def say(request: Request, peer: Peer) -> None:
        peer.sse_head()
        await asyncio.sleep(0.05)
        peer.event({"n": 1})
        await peer.closed()

    async with RawServer(say) as server:
        pool = HttpPool()
        origin = pool.origin(server.url)
        began = time.monotonic()
        response = await origin.request(origin.start_line("GET") + b"\r\n", math.inf, events=True)
        assert response.events is not None
        assert await response.events.next() == b'{"n": 1}'
        assert time.monotonic() > began
        response.events.close()
        await pool.aclose()


async def test_a_connection_notices_a_peer_that_is_gone_without_a_word() -> None:
    class Watched(Connection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            found.append(transport)
            super().connection_made(transport)

    class Nobody:
        def release(self, connection: Connection) -> None: ...

        def lost(self, connection: Connection) -> None: ...

    async def never(request: Request, peer: Peer) -> None:
        raise AssertionError

    found: list[asyncio.BaseTransport] = []
    async with RawServer(never) as server:
        route = Route(parse_url(server.url))
        connection = await dial(
            route, lambda: Watched(Nobody(), Bounds(), Deadlines()), asyncio.get_running_loop().time() + 5
        )
        link = found[0].get_extra_info("socket")
        assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
        connection.abort()

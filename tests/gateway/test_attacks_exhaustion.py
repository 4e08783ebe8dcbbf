"""Attempts to take what belongs to others: memory, places, streams."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from pathlib import Path

import pytest

from callgate.gateway import front
from tests.fuzz.messages import dump, head, modern, post, routing, rpc, usual
from tests.gateway.stand import Stand, bearer, calling, keys, refused, until
from tests.gateway.upstreams import Modern, http, serve

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


def large(stand: Stand, size: int) -> bytes:
    """The head of a request with a large body, whoever sends it."""
    message = modern("ping")
    return head("POST /mcp HTTP/1.1", [*usual(stand.port), *routing(message), ("Content-Length", str(size))])


async def test_unfinished_bodies_of_strangers_do_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "HELD", 4 * MIB)
    identity = {"keys": keys("ann")}
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}, identity=identity) as stand:
        desk = stand.gateway._front.desk

        def holds(size: int) -> bool:
            return desk.held == size

        async with contextlib.AsyncExitStack() as stack:
            wires = [await stack.enter_async_context(await stand.connect()) for _ in range(8)]
            for count, wire in enumerate(wires, 1):
                wire.send(large(stand, MIB) + b" " * (MIB - 1))  # one byte is missing
                if count <= 4:
                    await until(partial(holds, count * (MIB - 1)))
                else:
                    refused(await wire.reply(), 503)
                    await until(partial(holds, 4 * (MIB - 1)))
            # Small requests are served meanwhile, and large ones again when there is room.
            assert (await stand.call("u__echo", who="ann")).status == 200
        await until(lambda: desk.held == 0)
        text = "x" * (2 * MIB)
        assert (await stand.call("u__echo", {"text": text}, who="ann")).status == 200
        assert desk.held == 0


async def test_bodies_that_are_refused_or_answered_are_let_go(tmp_path: Path) -> None:
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}, limits={"max_body": MIB}) as stand:
        desk = stand.gateway._front.desk
        for size in (MIB - 1000, MIB + 1000):
            message = calling("u__echo", {"text": "x" * size})
            chunked = post(stand.port, dump(message), routing(message))
            assert (await stand.ask(chunked)).status in (200, 413)
            await until(lambda: desk.held == 0)
        wire = await stand.connect()
        wire.send(large(stand, MIB) + b" " * 200_000)
        await until(lambda: desk.held)
        await wire.close()
        await until(lambda: desk.held == 0)


async def test_a_stolen_session_id_takes_no_place_among_its_owners_sessions(tmp_path: Path) -> None:
    identity = {"keys": keys("ann", "bob")}
    limits = {"max_sessions": 1}
    async with Stand(tmp_path, identity=identity, limits=limits) as stand:
        stolen = (await stand.legacy(who="ann")).id
    async with Stand(tmp_path, identity=identity, limits=limits) as stand:
        own = await stand.legacy(who="ann")
        ping = dump(rpc("ping", {}))
        for thief in ("bob", "ann"):
            path = "/mcp" if thief == "bob" else "/mcp/"
            reply = await stand.ask(post(stand.port, ping, [("Mcp-Session-Id", stolen), *bearer(thief)], path=path))
            assert reply.status == (404 if thief == "bob" else 200)
            assert (await own.ask("ping")).status == (200 if thief == "bob" else 404)


async def test_a_stream_of_somebody_who_is_not_known_any_more_ends(tmp_path: Path) -> None:
    async with Stand(tmp_path, identity={"keys": keys("ann", "bob")}) as stand:
        session = await stand.legacy(who="ann")
        wire = await session.listen()
        await stand.reload(identity={"keys": keys("bob")})
        async with asyncio.timeout(5):
            while await wire.chunk():
                pass
        await wire.close()
        page = stand.page("/mcp", *session.headers(("Accept", "text/event-stream")))
        refused(await stand.ask(page), 401)

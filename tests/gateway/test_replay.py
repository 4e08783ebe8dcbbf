"""Streams that broke go on: event ids, what is kept, and who may come back for it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from callgate.gateway.replay import Shelf, Stream, Tape, Tapes
from tests.fuzz.messages import dump, post, rpc
from tests.gateway.dialogue import EVERYTHING, answer, begin, come_back, form, said, stream
from tests.gateway.stand import LegacyClient, Stand, Wire, calling, keys, until
from tests.gateway.test_reentry import asks, playing, rounds
from tests.gateway.upstreams import Modern, Script, http, progress, serve, streaming, text, waiting

pytestmark = pytest.mark.anyio

RESUMABLE = ["2025-03-26", "2025-06-18", "2025-11-25"]


def working(gate: asyncio.Event, *steps: int) -> Modern:
    """A tool that reports progress and answers when the gate opens."""
    return Modern(Script(acts={"work": streaming(*(progress(step) for step in steps), gate=gate)}))


async def start(client: LegacyClient, id: object = 1) -> Wire:
    params = {"name": "u__work", "arguments": {}, "_meta": {"progressToken": "t"}}
    return await stream(client, rpc("tools/call", params, id))


def open_streams(stand: Stand) -> int:
    return stand.house.streams_of(stand.house.recogniser.anonymous)  # type: ignore[arg-type]


async def lose(client: LegacyClient, wire: Wire) -> None:
    """Break the connection, and wait until the gateway knows."""
    stand = client.stand
    session = stand.house.sessions._by_id[client.id]
    wire.writer.transport.abort()
    await until(lambda: all(tape.reader is None for tape in session.tapes._by_name.values()))


@pytest.mark.parametrize("version", RESUMABLE)
async def test_a_call_goes_on_where_its_stream_was_lost(tmp_path: Path, version: str) -> None:
    gate = asyncio.Event()
    async with serve(working(gate, 1, 2)) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        client = await stand.legacy(version=version)
        call = await start(client)
        first, _ = await call.told()
        second, _ = await call.told()
        assert first and second and first != second
        await lose(client, call)
        again = await come_back(client, first)
        assert (await again.event())["params"]["progress"] == 2  # what came after the first one
        gate.set()
        last = await again.event()
        assert (last["id"], said(last)) == (1, "done")
        assert await again.chunk() == b""  # the stream of a request ends with its answer
        await again.close()
        [record] = await stand.records(1)
        assert record["outcome"] == "ok"


async def test_what_was_said_while_nobody_read_is_not_lost(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with serve(working(gate, 1)) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        client = await stand.legacy()
        call = await start(client)
        id, _ = await call.told()
        await lose(client, call)
        gate.set()
        await stand.records(1)
        for _ in range(2):  # and once more, if that connection breaks as well
            again = await come_back(client, id)
            assert said(await again.event()) == "done"
            assert await again.chunk() == b""
            await again.close()


async def test_the_first_event_tells_new_clients_how_to_come_back(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with serve(working(gate, 1)) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        client = await stand.legacy()
        call = await start(client)
        prime = (await call.chunk()).decode()
        fields = dict(line.split(": ", 1) for line in prime.splitlines() if line)
        assert (fields["data"], fields["retry"]) == ("", "1000")
        await lose(client, call)
        again = await come_back(client, fields["id"])
        assert (await again.event())["params"]["progress"] == 1
        gate.set()
        assert said(await again.event()) == "done"
        await again.close()


async def test_a_call_that_takes_long_can_be_come_back_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callgate.gateway.turn.WARM", 0.01)
    gate, limits = asyncio.Event(), {"header_timeout": 0.2}
    async with (
        serve(Modern(Script(acts={"work": waiting(gate)}))) as server,
        Stand(tmp_path, {"u": http(server)}, limits=limits) as stand,
    ):
        client = await stand.legacy()
        call = await start(client)  # an event stream, although nothing was said yet
        prime = (await call.chunk()).decode()
        assert await call.chunk() == b":\n\n"
        await lose(client, call)
        gate.set()
        again = await come_back(client, prime.split("id: ")[1].split("\n")[0])
        assert said(await again.event()) == "at last"
        await again.close()
        plain = [("Accept", "application/json"), *client.headers()]
        body = dump(rpc("tools/call", {"name": "u__work"}, 2))
        gate.clear()
        reply = asyncio.create_task(stand.ask(post(stand.port, body, plain, without=["Accept"])))
        await until(lambda: stand.house.sessions._by_id[client.id].running)
        gate.set()
        assert said((await reply).json) == "at last"


async def test_older_clients_get_no_event_without_data(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with serve(working(gate, 1)) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        for version in ("2024-11-05", "2025-03-26", "2025-06-18"):
            call = await start(await stand.legacy(version=version))
            chunk = await call.chunk()
            assert b'"progress":1' in chunk
            assert chunk.startswith(b"id: ") == (version != "2024-11-05")
            await call.close()
        gate.set()


@pytest.mark.rule("HTTP-16")
async def test_modern_streams_have_no_ids(tmp_path: Path) -> None:
    gate = asyncio.Event()
    gate.set()
    async with serve(working(gate, 1, 2)) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        client = await stand.legacy()
        message = calling("u__work", progressToken="t")
        more = ("Mcp-Session-Id", client.id), ("Last-Event-ID", "x-1-1")
        reply = await stand.ask(stand.request(message, *more))
        assert reply.headers["content-type"] == "text/event-stream"
        assert (reply.body.count(b"data: "), b"id: " in reply.body, b"retry" in reply.body) == (3, False, False)


async def test_a_question_waits_for_a_client_that_lost_its_stream(tmp_path: Path) -> None:
    act = rounds(asks({"one": form("1")}), asks({"two": form("2")}))
    async with serve(playing(greet=act)) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        client = await stand.legacy(**EVERYTHING)
        call = await begin(client, "u__greet")
        id, _ = await call.told()
        question = await (again := await come_back(client, id.rpartition("-")[0] + "-0")).event()
        await lose(client, again)
        await call.close()
        await answer(client, question)
        session = stand.house.sessions._by_id[client.id]
        await until(lambda: len(session.questions) == 1)
        again = await come_back(client, id)
        question = await again.event()
        assert question["params"]["message"] == "2"
        await answer(client, question)
        assert "inputResponses" in said(await again.event())
        await again.close()


async def test_who_comes_back_takes_the_stream_over(tmp_path: Path) -> None:
    """Nothing is said on two connections, and the one that was taken from is free for other requests."""
    gate = asyncio.Event()
    async with serve(working(gate, 1)) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        client = await stand.legacy()
        call = await start(client)
        id, _ = await call.told()
        again = await come_back(client, id)
        assert await call.chunk() == b""
        call.send(client.request(rpc("ping", id=2)))
        assert (await call.reply()).json["id"] == 2
        third = await come_back(client, id)
        assert await again.chunk() == b":\n\n"
        assert await again.chunk() == b""
        gate.set()
        assert said(await third.event()) == "done"
        await stand.records(1)
        for wire in (call, again, third):
            await wire.close()


async def test_the_stream_of_a_session_goes_on_too(tmp_path: Path) -> None:
    async with Stand(tmp_path) as stand:
        client = await stand.legacy()
        session = stand.house.sessions._by_id[client.id]
        listening = await client.listen()
        session.push(b'{"n":1}')
        id, data = await listening.told()
        assert data == b'{"n":1}'
        await lose(client, listening)
        await until(lambda: not session.streams)
        assert session.push(b'{"n":2}')
        again = await come_back(client, id)
        session.push(b'{"n":3}')
        assert [await again.event(), await again.event()] == [{"n": 2}, {"n": 3}]
        await lose(client, again)
        await until(lambda: not session.streams)
        fresh = await client.listen()  # it did not come back: what is said from now on is for the new stream
        session.push(b'{"n":4}')
        assert await fresh.event() == {"n": 4}
        await fresh.close()


async def test_nothing_waits_for_a_client_that_never_listened(tmp_path: Path) -> None:
    async with Stand(tmp_path) as stand:
        client = await stand.legacy()
        assert stand.house.sessions._by_id[client.id].push(b"{}") is False


async def test_event_ids_of_others_tell_nothing(tmp_path: Path) -> None:
    gate = asyncio.Event()
    identity = {"keys": keys("ann", "bob")}
    async with (
        serve(working(gate, 1)) as server,
        Stand(tmp_path, {"u": http(server)}, identity=identity) as stand,
    ):
        ann, other, bob = [await stand.legacy(who=who) for who in ("ann", "ann", "bob")]
        call = await start(ann)
        id, _ = await call.told()
        await lose(ann, call)
        gate.set()
        await stand.records(1)
        for thief in (bob, other):
            wire = await come_back(thief, id)
            stand.house.sessions._by_id[thief.id].push(b'{"mine":1}')
            assert await wire.event() == {"mine": 1}  # a new stream of its own, with nothing on it
            await wire.close()
        stolen = LegacyClient(stand, ann.id, None, "bob", "/mcp")
        page = stand.page("/mcp", *stolen.headers(("Accept", "text/event-stream"), ("Last-Event-ID", id)))
        assert (await stand.ask(page)).status == 404


@pytest.mark.parametrize("id", ["", "x", "-", "1-1", "a-b-c", "zzzzzzzz-1-1", "\u00e9-1"])
async def test_an_id_that_is_not_known_opens_a_new_stream(tmp_path: Path, id: str) -> None:
    async with Stand(tmp_path) as stand:
        client = await stand.legacy()
        wire = await come_back(client, id)
        stand.house.sessions._by_id[client.id].push(b'{"n":1}')
        assert await wire.event() == {"n": 1}
        await wire.close()


async def test_streams_that_are_resumed_count_like_all(tmp_path: Path) -> None:
    gate = asyncio.Event()
    limits = {"max_streams": 1}
    async with serve(working(gate, 1)) as server, Stand(tmp_path, {"u": http(server)}, limits=limits) as stand:
        client = await stand.legacy()
        call = await start(client)
        id, _ = await call.told()
        again = await come_back(client, id)
        page = stand.page("/mcp", *client.headers(("Accept", "text/event-stream")))
        assert (await stand.ask(page)).status == 429
        third = await come_back(client, id)  # instead of the other one, which the client has lost
        for wire in (again, third):
            await wire.close()
        await until(lambda: open_streams(stand) == 0)
        gate.set()
        await call.close()


async def test_an_answer_that_is_plain_stays_plain(tmp_path: Path) -> None:
    async with serve(Modern(Script({"say": text("x")}))) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        client = await stand.legacy()
        reply = await client.call("u__say")
        assert reply.headers["content-type"] == "application/json"
        assert stand.house.sessions._by_id[client.id].tapes._by_name == {}


# The shelf


def tape(shelf: Shelf, name: str = "t-1") -> Tape:
    return Tape(shelf, name, own=False)


def test_the_oldest_events_of_a_principal_go_first() -> None:
    shelf = Shelf(events=3, bytes=1000)
    one, two = tape(shelf), tape(shelf, "t-2")
    for number in range(2):
        one.say(b"%d" % number)
        two.say(b"%d" % number)
    assert (one.after(0), two.after(0)) == ([("t-1-2", b"1")], [("t-2-1", b"0"), ("t-2-2", b"1")])
    assert shelf.events == 3


def test_an_event_that_is_too_large_is_said_and_not_kept() -> None:
    shelf = Shelf(events=10, bytes=10)
    one = tape(shelf)
    heard = Stream(one)
    one.say(b"small")
    one.say(b"x" * 11)
    assert heard.qsize() == 2
    assert (one.after(0), shelf.bytes, shelf.events) == ([], 0, 0)


def test_what_is_thrown_away_takes_no_room() -> None:
    shelf = Shelf(events=4, bytes=1000)
    for _ in range(10):
        tapes = Tapes(shelf)
        for _ in range(3):
            tapes.begin().say(b"1234")
        tapes.clear()
    assert (shelf.events, shelf.bytes) == (0, 0)
    assert len(shelf._order) <= 2 * 4 + 1
    kept = tape(shelf)
    for number in range(9):
        kept.say(b"%d" % number)
    assert [message for _, message in kept.after(0)] == [b"5", b"6", b"7", b"8"]


def test_a_tape_that_ended_says_nothing_more() -> None:
    one = tape(Shelf())
    heard: Any = Stream(one)
    one.end(b"last")
    one.say(b"more")
    one.end(b"again")
    assert [heard.get_nowait(), heard.get_nowait(), heard.qsize()] == [("t-1-1", b"last"), None, 0]


def test_tapes_of_which_nothing_is_left_are_forgotten() -> None:
    tapes = Tapes(Shelf(events=2))
    for _ in range(100):
        tapes.begin().end(b"x")
    assert len(tapes._by_name) <= 20

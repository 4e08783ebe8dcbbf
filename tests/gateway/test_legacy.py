"""The legacy era at the front door: a handshake, a session, and what belongs to it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.messages import dump, initialize, modern, post, rpc
from tests.gateway.dialogue import EVERYTHING, answer, begin, form
from tests.gateway.stand import LegacyClient, Stand, allow, bearer, keys, refused, until
from tests.gateway.test_reentry import asks, playing, rounds
from tests.gateway.upstreams import Modern, Script, http, serve, text, waiting

pytestmark = pytest.mark.anyio

CHANGED = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
async def test_a_version_is_spoken_as_asked(tmp_path: Path, version: str) -> None:
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        session = await stand.legacy(version=version)
        assert session.opened["protocolVersion"] == version
        assert session.opened["serverInfo"]["name"] == "callgate"
        assert session.opened["capabilities"]["tools"] == {"listChanged": True}
        assert session.opened["instructions"] == "[u] be kind"
        assert (await session.tell("notifications/initialized")).status == 202
        listed = await session.post(rpc("tools/list"), ("MCP-Protocol-Version", version))
        assert "u__echo" in [tool["name"] for tool in listed.json["result"]["tools"]]
        assert not {"ttlMs", "cacheScope", "resultType"} & set(listed.json["result"])
        assert (await session.call("u__echo")).json["result"]["content"] == []
        assert (await session.ask("ping")).json == {"jsonrpc": "2.0", "id": 1, "result": {}}


@pytest.mark.parametrize("version", ["2030-01-01", "2026-07-28", "1", ""])
async def test_an_unknown_version_is_answered_with_the_newest_of_the_era(tmp_path: Path, version: str) -> None:
    async with Stand(tmp_path) as stand:
        assert (await stand.legacy(version=version)).opened["protocolVersion"] == "2025-11-25"


@pytest.mark.parametrize("params", [{}, {"protocolVersion": 5}, {"protocolVersion": "2025-11-25", "capabilities": []}])
async def test_a_handshake_that_says_too_little_is_refused(tmp_path: Path, params: dict[str, Any]) -> None:
    async with Stand(tmp_path) as stand:
        reply = refused(await stand.ask(post(stand.port, dump(rpc("initialize", params)))), 400, -32602)
        assert "mcp-session-id" not in reply.headers
        silent = {"jsonrpc": "2.0", "method": "initialize", "params": initialize()["params"]}
        assert (await stand.ask(post(stand.port, dump(silent)))).status == 400


async def test_without_a_session_nothing_is_answered(tmp_path: Path) -> None:
    async with Stand(tmp_path) as stand:
        reply = refused(await stand.ask(post(stand.port, dump(rpc("tools/list")))), 400)
        assert "initialize" in reply.json["error"]["message"]


@pytest.mark.rule("RS-13")
async def test_somebody_elses_session_is_as_unknown_as_one_that_never_was(tmp_path: Path) -> None:
    identity = {"keys": keys("ann", "bob"), "anonymous": True}
    doors = {"v": {"tools": ["x/*"]}}
    async with Stand(tmp_path, {"x": {"command": "true"}}, identity=identity, virtual_servers=doors) as stand:
        session = await stand.legacy(who="ann")
        unknown = refused(await LegacyClient(stand, "x" * 60, None, "bob", "/mcp").ask("ping"), 404)
        for who, path in (("bob", "/mcp"), (None, "/mcp"), ("ann", "/mcp/v")):
            thief = LegacyClient(stand, session.id, None, who, path)
            assert refused(await thief.ask("ping"), 404).json["error"] == unknown.json["error"]
            assert refused(await thief.end(), 404).json["error"]["message"] == unknown.json["error"]["message"]
            page = stand.page(path, *thief.headers(("Accept", "text/event-stream")))
            assert (await stand.ask(page)).status == 404
        assert (await session.ask("ping")).status == 200


async def test_a_session_ends_by_delete(tmp_path: Path) -> None:
    async with Stand(tmp_path) as stand:
        session = await stand.legacy()
        assert (await session.end()).status == 204
        refused(await session.ask("ping"), 404)
        refused(await session.end(), 404)


async def test_a_session_speaks_only_versions_of_its_era(tmp_path: Path) -> None:
    async with Stand(tmp_path) as stand:
        session = await stand.legacy()
        for header in ("2030-01-01", "latest"):
            refused(await session.post(rpc("ping"), ("MCP-Protocol-Version", header)), 400)


@pytest.mark.parametrize("method", ["nothing/here", "server/discover", "prompts/list", "resources/read"])
async def test_an_unknown_method_is_an_answer_of_the_session(tmp_path: Path, method: str) -> None:
    """With 200: clients of this era take an HTTP error for one of the transport."""
    async with Stand(tmp_path) as stand:
        reply = await (await stand.legacy()).ask(method)
        assert (reply.status, reply.error) == (200, -32601)


async def test_what_is_wrong_with_a_request_is_an_answer_too(tmp_path: Path) -> None:
    policy = {"rules": [allow("u/echo")]}
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}, policy=policy) as stand:
        session = await stand.legacy()
        cases: list[tuple[str, dict[str, Any], int]] = [
            ("tools/call", {"name": 5}, -32602), ("tools/list", {"cursor": "x"}, -32602),
            ("tools/call", {"name": "u__nothing"}, -32602), ("tools/call", {"name": "u__fail"}, -31403),
        ]  # fmt: skip
        for method, params, code in cases:
            reply = await session.ask(method, params)
            assert (reply.status, reply.error, reply.json["id"]) == (200, code, 1)


async def test_an_answer_or_notification_of_the_client_is_taken(tmp_path: Path) -> None:
    async with Stand(tmp_path) as stand:
        session = await stand.legacy()
        for message in ({"jsonrpc": "2.0", "id": 9, "result": {}}, {"jsonrpc": "2.0", "id": 9, "error": {}},
                        {"jsonrpc": "2.0", "method": "notifications/whatever"}):  # fmt: skip
            reply = await session.post(message)
            assert (reply.status, reply.body) == (202, b"")


async def test_an_id_names_one_running_request(tmp_path: Path) -> None:
    began, gate = asyncio.Event(), asyncio.Event()
    async with (
        serve(Modern(Script(acts={"work": waiting(gate, began)}))) as server,
        Stand(tmp_path, {"u": http(server)}) as stand,
    ):
        session, other = await stand.legacy(), await stand.legacy()
        running = asyncio.create_task(session.call("u__work", id=1))
        await began.wait()
        refused(await session.ask("ping", id=1), 400)
        assert (await session.ask("ping", id="1")).status == 200
        assert (await other.ask("ping", id=1)).status == 200
        gate.set()
        assert (await running).status == 200
        assert (await session.ask("ping", id=1)).status == 200


# Batches


async def test_a_batch_is_answered_in_the_version_that_has_them(tmp_path: Path) -> None:
    script = Script({"good": text("good")}, fails={"bad": (-32000, None)})
    async with serve(Modern(script)) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        session = await stand.legacy(version="2025-03-26")
        batch = [
            rpc("ping", id="a"), rpc("tools/call", {"name": "u__good"}, 2),
            {"jsonrpc": "2.0", "method": "notifications/x"},
            rpc("tools/call", {"name": "u__bad"}, 3), rpc("nothing", id=4), initialize(), "garbage", {"jsonrpc": "2.0"},
            {"jsonrpc": "2.0", "id": 8, "result": {}}, rpc("ping", id="a"),
        ]  # fmt: skip
        reply = await session.post(batch)
        assert reply.status == 200
        said = [(each["id"], each.get("error", {}).get("code")) for each in reply.json]
        assert said == [("a", None), (2, None), (3, -32000), (4, -32601), (1, -32600), (None, -32600), (None, -32600),
                        ("a", None)]  # fmt: skip
        assert reply.json[1]["result"]["content"][0]["text"] == "good"
        assert {each["outcome"] for each in await stand.records(2)} == {"ok", "failed"}
        nothing = await session.post([{"jsonrpc": "2.0", "method": "notifications/initialized"}])
        assert (nothing.status, nothing.body) == (202, b"")
        refused(await session.post([]), 400)
        refused(await session.post([rpc("ping", id=n) for n in range(101)]), 400)


@pytest.mark.rule("HTTP-4")
@pytest.mark.parametrize("version", ["2024-11-05", "2025-06-18", "2025-11-25"])
async def test_a_batch_is_refused_in_the_others(tmp_path: Path, version: str) -> None:
    async with Stand(tmp_path) as stand:
        refused(await (await stand.legacy(version=version)).post([rpc("ping")]), 400)


async def test_one_call_of_a_batch_can_be_cancelled(tmp_path: Path) -> None:
    began, gate = asyncio.Event(), asyncio.Event()
    async with (
        serve(Modern(Script({"good": text("good")}, acts={"work": waiting(gate, began)}))) as server,
        Stand(tmp_path, {"u": http(server)}) as stand,
    ):
        session = await stand.legacy(version="2025-03-26")
        batch = [rpc("tools/call", {"name": "u__work"}, 1), rpc("tools/call", {"name": "u__good"}, 2)]
        running = asyncio.create_task(session.post(batch))
        await began.wait()
        await session.tell("notifications/cancelled", requestId=1)
        cut, good = (await running).json
        assert (cut["error"]["code"], good["result"]["content"][0]["text"]) == (-31499, "good")
        assert sorted(each["outcome"] for each in await stand.records(2)) == ["cancelled", "ok"]


# The stream of a session


async def test_a_change_is_told_on_one_stream_of_every_session(tmp_path: Path) -> None:
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        one, two = await stand.legacy(), await stand.legacy()
        older, newer, other = await one.listen(), await one.listen(), await two.listen()
        await stand.reload(servers={"u": http(server), "v": http(server)})
        assert await newer.event() == CHANGED
        assert await other.event() == CHANGED
        await newer.close()
        await until(lambda: stand.house.streams_of(stand.house.recogniser.anonymous) == 2)  # type: ignore[arg-type]
        await stand.reload(servers={"u": http(server)})
        assert await older.event() == CHANGED  # the first event on this one: none came twice
        for wire in (older, other):
            await wire.close()


async def test_delete_ends_the_streams_of_the_session_and_what_it_runs(tmp_path: Path) -> None:
    began, gate = asyncio.Event(), asyncio.Event()
    async with (
        serve(Modern(Script(acts={"work": waiting(gate, began)}))) as server,
        Stand(tmp_path, {"u": http(server)}) as stand,
    ):
        session = await stand.legacy()
        stream = await session.listen()
        running = asyncio.create_task(session.call("u__work", id=7))
        await began.wait()
        assert (await session.end()).status == 204
        assert await stream.chunk() == b""
        assert ((await running).error, (await running).json["id"]) == (-31499, 7)
        await stream.close()
        [record] = await stand.records(1)
        assert record["outcome"] == "cancelled"


async def test_a_stream_is_for_clients_that_read_streams(tmp_path: Path) -> None:
    async with Stand(tmp_path) as stand:
        session = await stand.legacy()
        refused(await stand.ask(stand.page("/mcp", *session.headers(("Accept", "application/json")))), 406)
        refused(await stand.ask(stand.page("/mcp", *session.headers())), 406)


async def test_a_stream_that_is_left_is_forgotten(tmp_path: Path) -> None:
    async with Stand(tmp_path, limits={"max_streams": 1}) as stand:
        session = await stand.legacy()
        for _ in range(3):
            await (await session.listen()).close()
            await until(lambda: not stand.house.streams_of(stand.house.recogniser.anonymous))  # type: ignore[arg-type]


async def test_an_idle_stream_stays_warm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callgate.gateway.app.WARM", 0.01)
    async with Stand(tmp_path) as stand:
        stream = await (await stand.legacy()).listen()
        assert await stream.chunk() == b":\n\n"
        await stream.close()


async def test_a_gateway_that_stops_ends_the_streams_at_once(tmp_path: Path) -> None:
    async with Stand(tmp_path) as stand:
        stream = await (await stand.legacy()).listen()
    assert await stream.chunk() == b""
    await stream.close()


# Restarts


async def test_a_session_outlives_a_restart(tmp_path: Path) -> None:
    identity = {"keys": keys("ann", "bob")}
    async with serve(Modern()) as server:
        async with Stand(tmp_path, {"u": http(server)}, identity=identity) as before:
            session = await before.legacy(who="ann", version="2025-06-18")
            ended, gone = await before.legacy(who="ann"), await before.legacy(who="ann")
            assert (await gone.end()).status == 204
        async with Stand(tmp_path, {"u": http(server)}, identity=identity) as after:
            again = LegacyClient(after, session.id, None, "ann", "/mcp")
            assert (await again.call("u__echo")).json["result"]["content"] == []
            refused(await LegacyClient(after, session.id, None, "bob", "/mcp").ask("ping"), 404)
            old = LegacyClient(after, ended.id, None, "ann", "/mcp")
            assert (await old.end()).status == 204
            refused(await old.ask("ping"), 404)  # it does not come back a second time
            refused(await LegacyClient(after, gone.id, None, "ann", "/mcp").ask("ping"), 404)  # nor does this one
            assert (await after.records(1))[-1]["version"] == "2025-06-18"


async def test_who_could_be_asked_before_a_restart_can_be_asked_after_it(tmp_path: Path) -> None:
    act = rounds(asks({"who": form()}))
    async with serve(playing(greet=act)) as server:
        able = {**EVERYTHING, "experimental": {"large": "x" * 1000}}
        async with Stand(tmp_path, {"u": http(server)}) as before:
            session = await before.legacy(**able)
        async with Stand(tmp_path, {"u": http(server)}) as after:
            again = LegacyClient(after, session.id, None, None, "/mcp")
            call = await begin(again, "u__greet")
            await answer(again, await call.event())
            assert (await call.event())["result"]["content"]
            await call.close()


async def test_both_eras_share_an_endpoint(tmp_path: Path) -> None:
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        session = await stand.legacy()
        assert (await stand.call("u__echo")).status == 200
        assert (await session.call("u__echo")).status == 200
        mixed = stand.request(modern("tools/list"), ("Mcp-Session-Id", session.id), *bearer(None))
        assert (await stand.ask(mixed)).json["result"]["cacheScope"] == "private"
        versions = [each["version"] for each in await stand.records(2)]
        assert versions == ["2026-07-28", "2025-11-25"]

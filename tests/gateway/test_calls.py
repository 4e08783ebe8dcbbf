"""A call on its way through: what goes to the server, what comes back, and what is said meanwhile."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.messages import PREFIX, modern
from tests.gateway.stand import LegacyClient, Stand, Wire, allow, calling, events, refused, until
from tests.gateway.upstreams import (
    Legacy,
    Modern,
    Script,
    http,
    logged,
    progress,
    serve,
    streaming,
    text,
    waiting,
)
from tests.servers.mcp_http import note

pytestmark = pytest.mark.anyio

LEVEL = PREFIX + "logLevel"


def upstream(era: str, script: Script | None = None) -> Any:
    return Modern(script) if era == "modern" else Legacy(script)


# What comes back

STRANGE: dict[str, Any] = {
    "nothing": text("x", structuredContent=None),
    "list": text("x", structuredContent=[1, None, {"a": []}]),
    "scalar": text("x", structuredContent=0),
    "fields": {"content": [{"type": "x-hologram", "depth": 3, "data": {"ä": "ü"}}], "x-vendor": {"kept": [1.5, 1e300]}},
    "deep": text("x", structuredContent=json.loads('{"a":' * 50 + "1" + "}" * 50)),
}


@pytest.mark.rule("SCH-7")
@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_result_passes_through_as_the_server_said_it(tmp_path: Path, era: str) -> None:
    async with serve(upstream(era, Script(STRANGE))) as server, Stand(tmp_path, {"u": http(server, era)}) as stand:
        session = await stand.legacy()
        for name, said in STRANGE.items():
            expected = {"resultType": "complete", **said}
            assert await stand.result(f"u__{name}") == expected
            told = (await session.call(f"u__{name}")).json["result"]
            value = said.get("structuredContent", {})
            # Up to 2025-11-25 it is an object: what is none stands inside of one.
            assert told == (said if isinstance(value, dict) else {**said, "structuredContent": {"result": value}})


async def test_a_legacy_servers_result_is_told_to_be_complete(tmp_path: Path) -> None:
    said: dict[str, Any] = {"plain": {"content": []}, "empty": {}, "spaced": {"content": [], "isError": True}}
    async with serve(Legacy(Script(said))) as server, Stand(tmp_path, {"u": http(server, "legacy")}) as stand:
        for name, result in said.items():
            assert await stand.result(f"u__{name}") == {"resultType": "complete", **result}


@pytest.mark.rule("HTTP-6")
async def test_a_plain_answer_is_one_json_object(tmp_path: Path) -> None:
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        reply = await stand.call("u__echo")
        assert reply.headers["content-type"] == "application/json"
        assert int(reply.headers["content-length"]) == len(reply.body)


NEEDS: dict[str, Any] = {"requiredCapabilities": {"sampling": {}}}
FAILURES: dict[str, tuple[int, Any]] = {f"f{abs(code)}": (code, NEEDS) for code in (
    -32002, -32042, -32020, -32021, -32022, -32023, -32050, -32099, -32000, -32602, -32603, -31999, 7,
)}  # fmt: skip


RESERVED = range(-32099, -32019)


@pytest.mark.rule("ERR-1", "ERR-2", "ERR-4")
@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_servers_error_says_nothing_that_is_not_about_the_clients_own_request(tmp_path: Path, era: str) -> None:
    script = Script(fails=FAILURES)
    async with serve(upstream(era, script)) as server, Stand(tmp_path, {"u": http(server, era)}) as stand:
        session = await stand.legacy()
        for name, (code, _) in FAILURES.items():
            modern_code = (await stand.call(f"u__{name}")).error
            legacy_reply = await session.call(f"u__{name}")
            assert legacy_reply.status == 200
            assert modern_code not in (-32002, -32042, *RESERVED) or modern_code == code == -32021
            assert legacy_reply.error not in RESERVED
            if code == -32002:
                assert modern_code == -32602
            if code in (-32000, -32602, -32603, -31999, 7):
                assert modern_code == legacy_reply.error == code


@pytest.mark.rule("ERR-5", "HTTP-11")
async def test_a_missing_capability_is_told_only_to_who_could_declare_it(tmp_path: Path) -> None:
    async with serve(Modern(Script(fails=FAILURES))) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        reply = refused(await stand.call("u__f32021"), 400, -32021)
        assert reply.json["error"]["data"] == {"requiredCapabilities": {"sampling": {}}}
        declared = calling("u__f32021", **{PREFIX + "clientCapabilities": {"sampling": {}}})
        reply = refused(await stand.ask(stand.request(declared)), 200, -32603)
        assert "requiredCapabilities" not in json.dumps(reply.json)


@pytest.mark.rule("ERR-6")
async def test_a_denied_call_is_told_so_and_reaches_nobody(tmp_path: Path) -> None:
    policy = {"rules": [allow("u/echo")]}
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}, policy=policy) as stand:
        before = len(server.requests)
        reply = refused(await stand.call("u__hang", {"token": "t"}), 200, -31403)
        [record] = await stand.records(1)
        assert len(server.requests) == before
    assert reply.json["error"]["data"] == {"kind": "denied", "callId": record["id"]}
    assert (record["outcome"], record["server"], record["tool"]) == ("denied", "u", "hang")


@pytest.mark.rule("RS-13")
async def test_every_call_is_judged_also_behind_a_servers_own_door(tmp_path: Path) -> None:
    doors = {"v": {"tools": ["u/*"]}}
    policy = {"rules": [allow("u/echo")]}
    async with (
        serve(Modern()) as server,
        Stand(tmp_path, {"u": http(server)}, policy=policy, virtual_servers=doors) as stand,
    ):
        for path, name in (("/mcp", "u__fail"), ("/mcp/v", "u__fail"), ("/servers/u/mcp", "fail")):
            refused(await stand.call(name, path=path), 200, -31403)
            session = await stand.legacy(path=path)
            assert (await session.call(name)).error == -31403


# What goes to the server


@pytest.mark.rule("DEL-12", "DEL-13", "DEL-14")
@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_the_clients_metadata_goes_on_and_that_of_its_hop_does_not(tmp_path: Path, era: str) -> None:
    script = Script({"look": text("x")})
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    meta: dict[str, Any] = {"vendor/key": {"a": [1]}, "traceparent": trace, "tracestate": "a=b", PREFIX + "unknown": 1,
            "baggage": "user.id=root,callgate.txn=forged",
            PREFIX + "clientInfo": {"name": "front", "version": "9"}, "progressToken": "mine"}  # fmt: skip
    async with serve(upstream(era, script)) as server, Stand(tmp_path, {"u": http(server, era)}) as stand:
        assert (await stand.ask(stand.request(calling("u__look", **meta)))).status == 200
        [record] = await stand.records(1)
    sent = script.called[0]["params"]["_meta"]
    assert sent["vendor/key"] == {"a": [1]}
    assert sent["tracestate"] == "a=b"
    assert PREFIX + "unknown" not in sent
    assert sent.get("progressToken") != "mine"
    assert "baggage" not in sent and "forged" not in str(record)
    assert record["subject"] == "anonymous"
    assert sent.get(PREFIX + "clientInfo", {}).get("name") in (None, "callgate")
    assert sent["traceparent"].split("-")[1] == trace.split("-")[1] == record["trace_id"]
    assert sent["traceparent"].split("-")[2] != trace.split("-")[2]


async def test_arguments_go_on_as_they_were_judged(tmp_path: Path) -> None:
    arguments = {"ä": "\u2028", "big": 2**60, "float": 1.5, "null": None, "": [[], {}], "text": 'with "quotes"\n'}
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        assert (await stand.result("u__echo", arguments))["echo"]["arguments"] == arguments
        message = modern("tools/call", {"name": "u__echo"})
        reply = await stand.ask(stand.request(message))
        assert reply.json["result"]["echo"]["arguments"] == {}


@pytest.mark.parametrize("params", [{"name": 5}, {}, {"name": "u__echo", "arguments": []}, {"name": None}])
async def test_a_call_without_a_name_or_with_odd_arguments_is_refused(tmp_path: Path, params: dict[str, Any]) -> None:
    async with Stand(tmp_path) as stand:
        refused(await stand.ask(stand.request(modern("tools/call", params))), 400, -32602)


# What is said meanwhile


@pytest.mark.rule("HTTP-7", "HTTP-15", "HTTP-16", "HTTP-18")
@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize("token", ["mine", 0, "0"])
async def test_progress_comes_with_the_clients_own_token_and_the_result_last(
    tmp_path: Path, era: str, token: object
) -> None:
    foreign = note("notifications/progress", progressToken="somebody else's", progress=9)
    asks = {"jsonrpc": "2.0", "id": 5, "method": "ping", "params": {}}  # never passed on (HTTP-15)
    act = streaming(foreign, progress(1, total=2, message="ä"), asks, progress(2), then=text("done"))
    async with (
        serve(upstream(era, Script(acts={"work": act}))) as server,
        Stand(tmp_path, {"u": http(server, era)}) as stand,
    ):
        reply = await stand.ask(stand.request(calling("u__work", id="seven", progressToken=token)))
    assert (reply.status, reply.headers["x-accel-buffering"]) == (200, "no")
    *notes, last = events(reply)
    params = [each["params"] for each in notes]
    assert params == [{"progressToken": token, "progress": 1, "total": 2, "message": "ä"},
                      {"progressToken": token, "progress": 2}]  # fmt: skip
    assert type(params[0]["progressToken"]) is type(token)
    assert (last["id"], last["result"]["content"][0]["text"]) == ("seven", "done")
    assert b"\nid:" not in reply.body
    assert not reply.body.startswith(b"id:")


async def test_who_wants_no_progress_gets_none(tmp_path: Path) -> None:
    act = streaming(progress(1), logged("error"))
    async with serve(Modern(Script(acts={"work": act}))) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        assert (await stand.call("u__work")).headers["content-type"] == "application/json"


async def test_who_reads_no_event_streams_gets_the_answer_alone(tmp_path: Path) -> None:
    act = streaming(progress(1))
    async with serve(Modern(Script(acts={"work": act}))) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        request = stand.request(calling("u__work", progressToken=1))
        plain = request.replace(b"application/json, text/event-stream", b"application/json")
        assert plain != request
        for ask in (plain, request.replace(b"HTTP/1.1", b"HTTP/1.0")):  # HTTP/1.0 has no chunks
            async with await stand.connect() as wire:
                wire.send(ask)
                reply = await wire.reply()
                assert reply.headers["content-type"] == "application/json"
                assert reply.json["result"]["content"][0]["text"] == "done"


@pytest.mark.rule("HTTP-15")
@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize(
    ("level", "heard"), [(None, []), ("debug", ["debug", "warning"]), ("warning", ["warning"]), ("alert", [])]
)
async def test_a_modern_client_hears_the_log_only_when_it_asks(
    tmp_path: Path, era: str, level: str | None, heard: list[str]
) -> None:
    act = streaming(logged("debug"), logged("warning"))
    async with (
        serve(upstream(era, Script(acts={"work": act}))) as server,
        Stand(tmp_path, {"u": http(server, era)}) as stand,
    ):
        meta: dict[str, Any] = {} if level is None else {LEVEL: level}
        reply = await stand.ask(stand.request(calling("u__work", **meta)))
    if not heard:
        assert reply.headers["content-type"] == "application/json"
        assert reply.json["result"]["content"][0]["text"] == "done"
    else:
        assert [each["params"]["level"] for each in events(reply)[:-1]] == heard


async def test_an_unknown_log_level_is_refused(tmp_path: Path) -> None:
    async with Stand(tmp_path) as stand:
        refused(await stand.ask(stand.request(calling("x", {}, **{LEVEL: "loud"}))), 400, -32602)


async def test_a_session_hears_the_log_from_the_level_that_it_set(tmp_path: Path) -> None:
    act = streaming(logged("debug"), logged("warning"))
    async with serve(Modern(Script(acts={"work": act}))) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        session = await stand.legacy()
        assert (await session.ask("logging/setLevel", {"level": "warning"})).json["result"] == {}
        reply = await session.call("u__work")
        assert [each["params"]["level"] for each in events(reply)[:-1]] == ["warning"]
        wrong = await session.ask("logging/setLevel", {"level": "loud"})
        assert (wrong.status, wrong.error) == (200, -32602)


async def test_the_stream_stays_warm_while_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callgate.gateway.turn.WARM", 0.0)
    gate = asyncio.Event()
    act = streaming(progress(1), gate=gate)
    limits = {"idle_timeout": 0.2}  # the sweep looks often enough for the shortest limit
    async with (
        serve(Modern(Script(acts={"work": act}))) as server,
        Stand(tmp_path, {"u": http(server)}, limits=limits) as stand,
        await stand.connect() as wire,
    ):
        wire.send(stand.request(calling("u__work", progressToken=1)))
        await wire.head()
        assert (await wire.event())["params"]["progress"] == 1
        assert await wire.chunk() == b":\n\n"
        gate.set()
        assert (await wire.event())["result"]["content"][0]["text"] == "done"


# Giving up


async def hang_up(stand: Stand, wire: Wire, server_waits: asyncio.Event) -> None:
    await server_waits.wait()
    await wire.close()
    await until(lambda: not stand.house.places)


@pytest.mark.rule("HTTP-14")
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_modern_client_that_goes_cancels_its_call(tmp_path: Path, streamed: bool) -> None:
    began, gone = asyncio.Event(), asyncio.Event()

    async def work(message: Any, peer: Any) -> None:
        if streamed:
            peer.sse_head()
            peer.event(
                json.loads(
                    json.dumps(
                        {
                            **progress(1),
                            "params": {"progressToken": message["params"]["_meta"]["progressToken"], "progress": 1},
                        }
                    )
                )
            )
        began.set()
        await peer.closed()
        gone.set()

    async with serve(Modern(Script(acts={"work": work}))) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        wire = await stand.connect()
        wire.send(stand.request(calling("u__work", progressToken="p")))
        if streamed:
            await wire.head()
            await wire.event()
        await hang_up(stand, wire, began)
        async with asyncio.timeout(5):
            await gone.wait()
        [record] = await stand.records(1)
        assert record["outcome"] == "cancelled"


@pytest.mark.rule("HTTP-14")
async def test_a_modern_client_that_goes_has_the_legacy_server_told(tmp_path: Path) -> None:
    began, gate = asyncio.Event(), asyncio.Event()
    legacy = Legacy(Script(acts={"work": waiting(gate, began)}))
    async with serve(legacy) as server, Stand(tmp_path, {"u": http(server, "legacy")}) as stand:
        wire = await stand.connect()
        wire.send(stand.request(calling("u__work")))
        await hang_up(stand, wire, began)
        await until(lambda: legacy.cancelled == [legacy.script.called[0]["id"]])
        [record] = await stand.records(1)
        assert record["outcome"] == "cancelled"


@pytest.mark.rule("HTTP-14")
async def test_going_cancels_what_waits_behind_it_too(tmp_path: Path) -> None:
    """Three calls on one connection; the first runs, the others wait for it. None of those is made."""
    began, gate = asyncio.Event(), asyncio.Event()
    script = Script(acts={"work": waiting(gate, began)})
    async with serve(Modern(script)) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        wire = await stand.connect()
        wire.send(b"".join(stand.request(calling("u__work", id=n)) for n in range(3)))
        await hang_up(stand, wire, began)
        gate.set()
        [record] = await stand.records(1)
        assert record["outcome"] == "cancelled"
        assert len(script.called) == 1


async def test_a_legacy_client_that_goes_cancels_nothing(tmp_path: Path) -> None:
    began, gate = asyncio.Event(), asyncio.Event()
    async with (
        serve(Modern(Script(acts={"work": waiting(gate, began)}))) as server,
        Stand(tmp_path, {"u": http(server)}) as stand,
    ):
        session = await stand.legacy()
        wire = await stand.connect()
        wire.send(session.request({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "u__work"}}))
        await began.wait()
        await wire.close()
        await until(lambda: not stand.gateway._front.state.connections)
        assert stand.house.places
        gate.set()
        [record] = await stand.records(1)
        assert record["outcome"] == "ok"


async def cancelled_by_notice(stand: Stand, session: LegacyClient, began: asyncio.Event) -> Any:
    async with await stand.connect() as wire:
        params = {"name": "u__work", "_meta": {"progressToken": 5}}
        wire.send(session.request({"jsonrpc": "2.0", "id": "x", "method": "tools/call", "params": params}))
        await began.wait()
        for other in ("y", 5, None, {"a": 1}):
            assert (await session.tell("notifications/cancelled", requestId=other)).status == 202
        assert (await session.tell("notifications/cancelled", requestId="x")).status == 202
        return await wire.reply()


async def test_a_legacy_client_cancels_by_saying_so(tmp_path: Path) -> None:
    began, gate = asyncio.Event(), asyncio.Event()
    legacy = Legacy(Script(acts={"work": waiting(gate, began)}))
    async with serve(legacy) as server, Stand(tmp_path, {"u": http(server, "legacy")}) as stand:
        session = await stand.legacy()
        reply = await cancelled_by_notice(stand, session, began)
        assert (reply.json["id"], reply.error) == ("x", -31499)
        await until(lambda: len(legacy.cancelled) == 1)
        [record] = await stand.records(1)
        assert record["outcome"] == "cancelled"
        assert (await session.ask("ping", id="x")).status == 200  # the id is free again


async def test_a_cancelled_call_ends_its_stream_properly(tmp_path: Path) -> None:
    began, gate = asyncio.Event(), asyncio.Event()

    async def work(message: Any, peer: Any) -> None:
        await streaming(progress(1), gate=gate)(message, peer)

    async def noticed(message: Any, peer: Any) -> None:
        began.set()
        await work(message, peer)

    async with serve(Modern(Script(acts={"work": noticed}))) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        session = await stand.legacy()
        async with await stand.connect() as wire:
            params = {"name": "u__work", "_meta": {"progressToken": 5}}
            wire.send(session.request({"jsonrpc": "2.0", "id": "x", "method": "tools/call", "params": params}))
            await wire.head()
            assert (await wire.event())["params"] == {"progressToken": 5, "progress": 1}
            await session.tell("notifications/cancelled", requestId="x")
            assert (await wire.event())["error"]["code"] == -31499
            assert await wire.chunk() == b""
            wire.send(session.request({"jsonrpc": "2.0", "id": 2, "method": "ping"}))
            assert (await wire.reply()).json["result"] == {}

"""Clients of 2024-11-05 over HTTP+SSE: one stream for everything that is said, and a URL to post to."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.messages import dump, initialize, post, rpc
from tests.fuzz.raw import Reply
from tests.gateway.dialogue import ANN, EVERYTHING, form, said
from tests.gateway.stand import Stand, Wire, allow, bearer, keys, refused, until
from tests.gateway.test_asking import Asking, told
from tests.gateway.test_reentry import asks, playing, rounds
from tests.gateway.upstreams import Modern, Script, http, serve, waiting

pytestmark = pytest.mark.anyio


class Caller:
    """A client on a line: ``say`` posts, ``next`` reads the stream."""

    def __init__(self, stand: Stand, base: str = "", who: str | None = None) -> None:
        self.stand = stand
        self.base = base
        self.who = who
        self.where = ""
        self.wire: Wire

    async def dial(self, *more: tuple[str, str]) -> Caller:
        self.wire = await self.stand.connect()
        headers = ("Accept", "text/event-stream"), *more
        self.wire.send(self.stand.page(self.base + "/sse", *headers, who=self.who))
        status, found = await self.wire.head()
        assert (status, found["content-type"].partition(";")[0]) == (200, "text/event-stream")
        first = (await self.wire.chunk()).decode()
        assert first.startswith(f"event: endpoint\ndata: {self.base}/messages?session=")
        self.where = first.split("data: ")[1].strip()
        return self

    async def post(self, message: Any, *more: tuple[str, str], who: str | None = None) -> Reply:
        headers = [*bearer(who or self.who), *more]
        return await self.stand.ask(post(self.stand.port, dump(message), headers, path=self.where))

    async def say(self, message: Any) -> None:
        reply = await self.post(message)
        assert reply.status == 202, reply

    async def next(self) -> Any:
        return await self.wire.event()

    async def ask(self, message: Any) -> Any:
        await self.say(message)
        return await self.next()

    async def hello(self, version: str = "2024-11-05", **capabilities: Any) -> Any:
        message = initialize(version)
        message["params"]["capabilities"] = capabilities
        return (await self.ask(message))["result"]


def streams(stand: Stand) -> int:
    return stand.house.streams_of(stand.house.recogniser.anonymous)  # type: ignore[arg-type]


@pytest.mark.parametrize("base", ["", "/mcp/v", "/mcp/sse", "/servers/u"])
async def test_a_whole_conversation(tmp_path: Path, base: str) -> None:
    doors = {"v": {"tools": ["u/*"]}, "sse": {"tools": ["u/*"]}}
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}, virtual_servers=doors) as stand:
        caller = await Caller(stand, base).dial()
        assert (await caller.hello())["protocolVersion"] == "2024-11-05"
        await caller.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        name = "echo" if base == "/servers/u" else "u__echo"
        assert name in [each["name"] for each in (await caller.ask(rpc("tools/list", id=2)))["result"]["tools"]]
        called = await caller.ask(rpc("tools/call", {"name": name, "arguments": {"a": 1}}, 3))
        assert (called["id"], called["result"]["echo"]["arguments"]) == (3, {"a": 1})
        assert (await caller.ask(rpc("nothing", id=4)))["error"]["code"] == -32601
        assert (await caller.ask(initialize()))["error"]["code"] == -32600
        await caller.wire.close()
        first = (await stand.records())[0]
        assert (first["tool"], first["outcome"], first["version"]) == ("echo", "ok", "2024-11-05")
        await until(lambda: not len(stand.house.sessions))


async def test_questions_and_changes_come_on_the_stream(tmp_path: Path) -> None:
    act = rounds(asks({"one": form("re-entered")}))
    async with serve(Asking()) as legacy, serve(playing(greet=act)) as modern:
        servers = {"l": http(legacy, "legacy"), "m": http(modern)}
        async with Stand(tmp_path, servers) as stand:
            caller = await Caller(stand).dial()
            await caller.hello("2025-06-18", **EVERYTHING)
            params = {"name": "l__question", "arguments": {"questions": [form("pushed")]}}
            question = await caller.ask(rpc("tools/call", params, 1))
            assert question["params"]["message"] == "pushed"
            assert (await caller.ask(rpc("ping", id=2)))["id"] == 2
            assert told(await caller.ask({"jsonrpc": "2.0", "id": question["id"], "result": ANN})) == [{"result": ANN}]
            question = await caller.ask(rpc("tools/call", {"name": "m__greet"}, 3))
            last = await caller.ask({"jsonrpc": "2.0", "id": question["id"], "result": ANN})
            assert json.loads(said(last))["inputResponses"] == {"one": ANN}
            await stand.reload(servers={"l": servers["l"]})
            assert (await caller.next())["method"].endswith("/list_changed")
            await caller.wire.close()


async def test_a_call_is_cancelled_by_its_id_and_by_hanging_up(tmp_path: Path) -> None:
    began, gate = asyncio.Event(), asyncio.Event()
    async with (
        serve(Modern(Script(acts={"work": waiting(gate, began)}))) as server,
        Stand(tmp_path, {"u": http(server)}) as stand,
    ):
        caller = await Caller(stand).dial()
        await caller.hello()
        await caller.say(rpc("tools/call", {"name": "u__work"}, 7))
        await began.wait()
        cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
        assert (await caller.ask(cancelled))["error"]["code"] == -31499
        began.clear()
        await caller.say(rpc("tools/call", {"name": "u__work"}, 8))
        await began.wait()
        await caller.wire.close()
        assert [each["outcome"] for each in await stand.records(2)] == ["cancelled", "cancelled"]
        await until(lambda: streams(stand) == 0)


async def test_identity_and_policy_hold_here_too(tmp_path: Path) -> None:
    identity = {"keys": keys("ann", "bob")}
    policy = {"rules": [allow("u/echo", to={"subjects": ["ann"]})]}
    async with (
        serve(Modern()) as server,
        Stand(tmp_path, {"u": http(server)}, identity=identity, policy=policy) as stand,
    ):
        stranger = stand.page("/sse", ("Accept", "text/event-stream"))
        assert (await stand.ask(stranger)).status == 401
        ann = await Caller(stand, who="ann").dial()
        await ann.hello()
        listed = (await ann.ask(rpc("tools/list", id=2)))["result"]["tools"]
        assert [each["name"] for each in listed] == ["u__echo"]
        assert (await ann.ask(rpc("tools/call", {"name": "u__fail"}, 3)))["error"]["code"] == -31403
        assert (await ann.post(rpc("ping"), who="bob")).status == 404  # a stolen URL is worth nothing
        nobody = Caller(stand)
        nobody.where = ann.where
        assert (await nobody.post(rpc("ping"))).status == 401
        elsewhere = Caller(stand, who="ann")
        elsewhere.where = ann.where.replace("/messages", "/servers/u/messages")
        assert (await elsewhere.post(rpc("ping"))).status == 404
        await ann.wire.close()
        outcomes = [each["outcome"] for each in await stand.records(3)]
        assert sorted(outcomes) == ["denied", "refused", "refused"]


async def test_what_is_wrong_with_a_post_is_answered_there(tmp_path: Path) -> None:
    async with Stand(tmp_path, limits={"max_body": 1000, "max_depth": 5}) as stand:
        caller = await Caller(stand).dial()
        refused(await caller.post(rpc("ping")), 400)  # not before initialize
        refused(await caller.post({"jsonrpc": "2.0", "id": 1, "result": {}}), 400)
        await caller.hello()
        refused(await caller.post("garbage"), 400)
        refused(await caller.post({"jsonrpc": "2.0"}), 400)
        refused(await caller.post([[[[[[1]]]]]]), 400)
        assert (await caller.post(rpc("ping", {"x": "y" * 2000}))).status == 413
        assert (await caller.post(rpc("ping"), ("Origin", "https://evil.example"))).status == 403
        text = post(stand.port, b"{}", [("Content-Type", "text/plain")], path=caller.where, without=["Content-Type"])
        assert (await stand.ask(text)).status == 415
        for path in ("/messages", "/messages?session=x", "/mcp/none/messages?session=x", "/servers/x/messages"):
            assert (await stand.ask(post(stand.port, dump(rpc("ping")), path=path))).status == 404
        for path in ("/mcp/none/sse", "/servers/none/sse"):
            assert (await stand.ask(stand.page(path, ("Accept", "text/event-stream")))).status == 404
        assert (await stand.ask(stand.page("/sse"))).status == 406
        assert (await stand.ask(stand.page("/sse", ("Origin", "https://evil.example")))).status == 403
        assert (await caller.ask(rpc("ping", id=9)))["id"] == 9  # none of it did harm
        await caller.wire.close()


async def test_open_lines_are_bounded(tmp_path: Path) -> None:
    async with Stand(tmp_path, limits={"max_streams": 2}) as stand:
        silent, talking = await Caller(stand).dial(), await Caller(stand).dial()
        await talking.hello()
        page = stand.page("/sse", ("Accept", "text/event-stream"))
        assert (await stand.ask(page)).status == 429
        await silent.wire.close()
        await until(lambda: streams(stand) == 1)
        await (await Caller(stand).dial()).wire.close()
        await talking.wire.close()
        await until(lambda: streams(stand) == 0)


async def test_a_client_that_does_not_read_is_not_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callgate.gateway.line.BEHIND", 10_000)
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        caller = await Caller(stand).dial()
        await caller.hello()
        [line] = stand.house.lines._by_id.values()
        line.stream.held += 20_000  # as if it had not read as much
        assert (await caller.post(rpc("ping"))).status == 429
        line.session.push(b'{"lost":1}')  # type: ignore[union-attr]
        line.stream.held -= 20_000
        assert (await caller.ask(rpc("ping", id=5)))["id"] == 5
        await caller.wire.close()


async def test_lines_end_when_the_gateway_stops(tmp_path: Path) -> None:
    async with Stand(tmp_path) as stand:
        silent, talking = await Caller(stand).dial(), await Caller(stand).dial()
        await talking.hello()
    for caller in (silent, talking):
        assert await caller.wire.chunk() == b""
        await caller.wire.close()


async def test_batches_of_the_version_that_has_them(tmp_path: Path) -> None:
    async with Stand(tmp_path) as stand:
        caller = await Caller(stand).dial()
        await caller.hello("2025-03-26")
        answers = await caller.ask([rpc("ping", id=1), rpc("ping", id=2)])
        assert [each["id"] for each in answers] == [1, 2]
        await caller.wire.close()

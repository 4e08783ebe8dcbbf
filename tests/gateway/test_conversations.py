"""What is said in the middle of a call, in both directions: pings, batches, progress, log messages, cancellation."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.messages import rpc
from tests.gateway.askers import LegacyAsker, ModernAsker, asks
from tests.gateway.dialogue import EVERYTHING, answer, begin, sample, stream
from tests.gateway.stand import LegacyClient, Stand, calling, events, until
from tests.gateway.upstreams import (
    Legacy,
    Modern,
    Script,
    http,
    logged,
    serve,
    streaming,
    text,
    tool,
)
from tests.servers.mcp_http import note, result_of
from tests.servers.mcp_sse import SseServer
from tests.servers.raw_http import Peer, RawServer
from tests.upstream.house import SCRIPT

pytestmark = pytest.mark.anyio

SPOKEN = {"role": "assistant", "content": {"type": "text", "text": "hi"}, "model": "m"}
PING = {"jsonrpc": "2.0", "id": "p", "method": "ping"}


def process(*habits: str, **more: Any) -> dict[str, Any]:
    return {"command": sys.executable, "args": ["-S", SCRIPT, *habits], **more}


async def seen(client: LegacyClient) -> list[dict[str, Any]]:
    """What the process behind this session was told."""
    found: list[dict[str, Any]] = (await client.call("u__seen", id="seen")).json["result"]["seen"]
    return found


# Pings


async def test_a_process_that_pings_is_answered(tmp_path: Path) -> None:
    async with Stand(tmp_path, {"u": process()}) as stand:
        client = await stand.legacy()
        await client.call("u__ask")
        assert {"jsonrpc": "2.0", "id": 5, "result": {}} in await seen(client)


async def test_a_server_that_pings_is_answered_on_whichever_stream_it_asks(tmp_path: Path) -> None:
    legacy = Legacy(listens=True)
    async with serve(legacy) as server, Stand(tmp_path, {"u": http(server, "legacy")}) as stand:
        client = await stand.legacy()
        await client.call("u__ask")
        await until(lambda: {"jsonrpc": "2.0", "id": 7, "result": {}} in legacy.responses)
        for number, peer in enumerate(legacy.streams):
            peer.event({**PING, "id": number})
            await until(lambda number=number: {"jsonrpc": "2.0", "id": number, "result": {}} in legacy.responses)  # type: ignore[misc]
        assert legacy.streams


async def test_a_server_of_two_endpoints_that_pings_is_answered(tmp_path: Path) -> None:
    behaviour = SseServer()
    async with RawServer(behaviour) as server, Stand(tmp_path, {"u": {"url": server.url, "type": "sse"}}) as stand:
        client = await stand.legacy()
        await client.call("u__echo", {})
        heard: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        behaviour.answers["p"] = heard
        list(behaviour.sessions.values())[-1].event(PING)
        async with asyncio.timeout(5):
            assert await heard == {}


# Batches


async def test_a_batch_may_hold_calls_that_ask(tmp_path: Path) -> None:
    asker = ModernAsker(ask=lambda params: text("got") if "inputResponses" in params else asks({"k": sample()}))
    async with serve(asker) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        client = await stand.legacy(version="2025-03-26", **EVERYTHING)
        batch = [rpc("tools/call", {"name": "u__ask", "arguments": {}}, id) for id in (1, 2)]
        async with await stream(client, [*batch, rpc("ping", id=3)]) as wire:
            one, two = await wire.event(), await wire.event()
            assert {one["method"], two["method"]} == {"sampling/createMessage"}
            await answer(client, two, {**SPOKEN, "model": "two"})
            await answer(client, one, {**SPOKEN, "model": "one"})
            said = await wire.event()
            assert [(each["id"], "result" in each) for each in said] == [(1, True), (2, True), (3, True)]
            assert await wire.chunk() == b""
    heard = {each["inputResponses"]["k"]["model"] for each in asker.got if "inputResponses" in each}
    assert heard == {"one", "two"}


async def test_a_server_may_say_several_things_at_once(tmp_path: Path) -> None:
    """2025-03-26: implementations must be able to receive batches."""

    async def talk(server: LegacyAsker, message: dict[str, Any], peer: Peer) -> Any:
        answered = server._open["q"] = asyncio.get_running_loop().create_future()
        step = note("notifications/progress", progressToken=message["params"]["_meta"]["progressToken"], progress=1)
        peer.event([step, {"jsonrpc": "2.0", "id": "q", **sample()}])
        heard = (await answered)["result"]["model"]
        peer.event([note("notifications/message", level="error", data="e"), result_of(message["id"], text(heard))])
        return text("nobody reads this")

    asker = LegacyAsker(talk=talk)
    asker.version = "2025-03-26"
    async with serve(asker) as server, Stand(tmp_path, {"u": http(server, "legacy")}) as stand:
        client = await stand.legacy(**EVERYTHING)
        message = rpc("tools/call", {"name": "u__talk", "arguments": {}, "_meta": {"progressToken": "t"}})
        async with await stream(client, message) as wire:
            assert (await wire.event())["params"] == {"progressToken": "t", "progress": 1}
            await answer(client, await wire.event(), SPOKEN)
            assert (await wire.event())["params"]["data"] == "e"
            assert (await wire.event())["result"]["content"][0]["text"] == "m"


async def test_a_process_may_say_everything_in_batches(tmp_path: Path) -> None:
    async with Stand(tmp_path, {"u": process("batches")}) as stand:
        client = await stand.legacy()
        params = {"name": "u__progress", "arguments": {}, "_meta": {"progressToken": "t"}}
        first, last = events(await client.ask("tools/call", params))
        assert (first["params"]["progressToken"], last["id"]) == ("t", 1)


# Progress and log


async def test_progress_on_a_servers_own_stream_finds_its_call(tmp_path: Path) -> None:
    """Older SDKs say it there."""
    legacy = Legacy(listens=True)

    async def work(message: Any, peer: Peer) -> None:
        token = message["params"]["_meta"]["progressToken"]
        for own in legacy.streams:
            own.event(note("notifications/progress", progressToken="another", progress=1))
            own.event(note("notifications/progress", progressToken=token, progress=2))
        await heard.wait()
        peer.json(result_of(message["id"], text("done")))

    heard = asyncio.Event()
    legacy.script = Script(acts={"work": work})
    legacy.tools = [*legacy.tools, tool("work")]
    async with serve(legacy) as server, Stand(tmp_path, {"u": http(server, "legacy")}) as stand:
        client = await stand.legacy()
        message = rpc("tools/call", {"name": "u__work", "arguments": {}, "_meta": {"progressToken": "t"}})
        async with await stream(client, message) as wire:
            assert (await wire.event())["params"] == {"progressToken": "t", "progress": 2}
            heard.set()
            assert (await wire.event())["id"] == 1


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_every_session_hears_the_log_from_its_own_level(tmp_path: Path, era: str) -> None:
    script = Script(acts={"talk": streaming(*map(logged, ("debug", "warning", "error")))})
    behaviour = Modern(script) if era == "modern" else Legacy(script)
    async with serve(behaviour) as server, Stand(tmp_path, {"u": http(server, era, isolation="shared")}) as stand:
        quiet, loud = await stand.legacy(), await stand.legacy()
        for client, level in ((quiet, "error"), (loud, "debug")):
            assert (await client.ask("logging/setLevel", {"level": level})).json["result"] == {}
        for client, wanted in ((loud, ["debug", "warning", "error"]), (quiet, ["error"])) * 2:
            *notes, _ = events(await client.call("u__talk"))
            assert [each["params"]["level"] for each in notes] == wanted


# Cancellation


@pytest.mark.rule("STDIO-2", "HTTP-14")
async def test_going_and_saying_so_cancel_at_a_process_behind_an_aggregate(tmp_path: Path) -> None:
    async with Stand(tmp_path, {"u": process(isolation="shared")}) as stand:
        client = await stand.legacy()

        async def hanging() -> list[Any]:
            return [each["id"] for each in await seen(client) if each.get("params", {}).get("name") == "hang"]

        async def began(count: int) -> None:
            async with asyncio.timeout(5):
                while len(await hanging()) < count:
                    await asyncio.sleep(0.005)

        async def cancelled() -> list[Any]:
            told, hung = await seen(client), await hanging()
            off = [each["params"]["requestId"] for each in told if each.get("method") == "notifications/cancelled"]
            return [hung.index(each) for each in off]

        async with await stand.connect() as wire:
            wire.send(stand.request(calling("u__hang")))
            await began(1)
        await until(lambda: not stand.house.places)
        assert await cancelled() == [0]  # a modern client that goes

        async with await stand.connect() as wire:
            wire.send(client.request(rpc("tools/call", {"name": "u__hang"}, "h")))
            await began(2)
        assert await cancelled() == [0]  # a legacy client that goes, and says later what it means
        assert stand.house.places
        await client.tell("notifications/cancelled", requestId="h")
        await until(lambda: not stand.house.places)
        assert await cancelled() == [0, 1]


async def test_a_server_that_takes_its_question_back_has_the_client_told(tmp_path: Path) -> None:
    async def talk(server: LegacyAsker, message: dict[str, Any], peer: Peer) -> Any:
        peer.event({"jsonrpc": "2.0", "id": "q", **sample()})
        await shown.wait()
        peer.event(note("notifications/cancelled", requestId="q", reason="never mind"))
        return text("without you")

    shown = asyncio.Event()
    async with serve(LegacyAsker(talk=talk)) as server, Stand(tmp_path, {"u": http(server, "legacy")}) as stand:
        client = await stand.legacy(**EVERYTHING)
        async with await begin(client, "u__talk") as wire:
            question = await wire.event()
            shown.set()
            withdrawn = await wire.event()
            assert (withdrawn["method"], withdrawn["params"]["requestId"]) == (
                "notifications/cancelled",
                question["id"],
            )
            assert (await wire.event())["result"]["content"][0]["text"] == "without you"
        assert (await answer(client, question, SPOKEN)).status == 202  # too late, and harmless

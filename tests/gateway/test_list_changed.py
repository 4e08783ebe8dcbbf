"""``list_changed``: told for each kind, at the doors that changed, when the new list is in place."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.stand import LegacyClient, Stand, Wire, allow, deny, until
from tests.gateway.tellers import OldTeller, Teller, serve
from tests.gateway.test_listen import opened
from tests.gateway.upstreams import http, tool
from tests.upstream.house import SCRIPT

pytestmark = pytest.mark.anyio

ALL = [f"notifications/{kind}/list_changed" for kind in ("prompts", "resources", "tools")]
PROMPTS, RESOURCES, TOOLS = ALL


async def told(stream: Wire, count: int) -> list[str]:
    messages = [await stream.event() for _ in range(count)]
    assert all(each.keys() == {"jsonrpc", "method"} for each in messages)
    return sorted(each["method"] for each in messages)


async def names(session: LegacyClient) -> list[str]:
    return [each["name"] for each in (await session.ask("tools/list")).json["result"]["tools"]]


async def test_each_kind_reaches_the_doors_that_changed(tmp_path: Path) -> None:
    doors = {"v": {"tools": ["other/*"]}}
    async with (
        serve(Teller()) as server,
        serve(Teller()) as other,
        Stand(tmp_path, {"u": http(server), "other": http(other)}, virtual_servers=doors) as stand,
    ):
        one, two, three = [await stand.legacy(path=path) for path in ("/mcp", "/servers/u/mcp", "/mcp/v")]
        streams = [await each.listen() for each in (one, two, three)]
        behaviour: Any = server.handler
        behaviour.uris = ("note:new",)
        behaviour.tell(RESOURCES)
        assert await told(streams[0], 1) == await told(streams[1], 1) == [RESOURCES]
        found = (await one.ask("resources/list")).json["result"]["resources"]
        assert "u+note:new" in [each["uri"] for each in found]
        behaviour.tools = [tool("new")]
        behaviour.tell(TOOLS)
        assert await told(streams[0], 1) == [TOOLS]
        assert "u__new" in await names(one)
        theirs: Any = other.handler
        theirs.tools = [tool("newer")]
        theirs.tell(TOOLS)
        assert await told(streams[2], 1) == [TOOLS]  # the first thing that it hears
        for each in streams:
            await each.close()


async def test_an_announcement_is_passed_on_though_the_list_looks_the_same(tmp_path: Path) -> None:
    async with serve(Teller()) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        session = await stand.legacy()
        stream = await session.listen()
        behaviour: Any = server.handler
        before = behaviour.listed
        behaviour.tell(PROMPTS)
        assert await told(stream, 1) == [PROMPTS]
        assert behaviour.listed == before + 1  # read again first
        await stream.close()


@pytest.mark.rule("SUB-12")
async def test_a_legacy_server_announces_too(tmp_path: Path) -> None:
    """On a link that everybody shares to everybody, on a session's own link to that session alone."""
    shared = {"isolation": "shared"}
    async with serve(OldTeller()) as server, Stand(tmp_path, {"u": http(server, "legacy", **shared)}) as stand:
        behaviour: Any = server.handler
        await until(lambda: behaviour.own)
        stream, (listening, _) = await (await stand.legacy()).listen(), await opened(stand, toolsListChanged=True)
        behaviour.tell(behaviour.sessions[0], TOOLS)
        assert await told(stream, 1) == [TOOLS]
        assert (await listening.next())[0] == TOOLS
        await stream.close()
        await listening.close()


async def test_what_a_session_of_its_own_is_told_nobody_else_is(tmp_path: Path) -> None:
    async with serve(OldTeller()) as server, Stand(tmp_path, {"u": http(server, "legacy")}) as stand:
        behaviour: Any = server.handler
        one, two = await stand.legacy(), await stand.legacy()
        streams = [await one.listen(), await two.listen()]
        for session in (one, two):
            assert (await session.call("u__echo")).error is None
        links = behaviour.sessions[1:]
        await until(lambda: set(links) <= set(behaviour.own))
        behaviour.tell(links[0], PROMPTS)
        assert await told(streams[0], 1) == [PROMPTS]
        behaviour.tell(links[1], TOOLS)
        assert await told(streams[1], 1) == [TOOLS]  # the first thing that it hears
        for each in streams:
            await each.close()


async def test_a_list_of_one_session_is_shown_to_that_session(tmp_path: Path) -> None:
    policy = {"rules": [deny("u/hidden", id="no"), allow("u/*")]}
    async with serve(OldTeller()) as server, Stand(tmp_path, {"u": http(server, "legacy")}, policy=policy) as stand:
        behaviour: Any = server.handler
        one, two = await stand.legacy(), await stand.legacy()
        streams = [await one.listen(), await two.listen()]
        for session in (one, two):
            assert (await session.call("u__echo")).error is None
        link = behaviour.sessions[1]
        await until(lambda: link in behaviour.own)
        assert (await one.call("u__unlocked")).error == -32602
        behaviour.tools_of[link] = [tool("echo"), tool("hidden"), tool("unlocked")]
        behaviour.tell(link, TOOLS)
        assert await told(streams[0], 1) == [TOOLS]
        assert await names(one) == ["u__echo", "u__unlocked"]
        assert (await one.call("u__unlocked")).error is None
        assert (await one.call("u__hidden")).error == -31403
        assert "u__unlocked" not in await names(two)
        assert (await two.call("u__unlocked")).error == -32602
        assert "u__unlocked" not in await stand.tools()
        await stand.reload(virtual_servers={"v": {"tools": ["u/*"]}})
        assert await names(one) == ["u__echo", "u__unlocked"]
        del behaviour.tools_of[link]
        behaviour.tell(link, TOOLS)
        assert await told(streams[0], 1) == [TOOLS]
        assert await names(one) == await names(two)
        assert stand.house.overlays.shown == {}
        for each in streams:
            await each.close()


async def test_single_sessions_are_told_what_is_theirs(tmp_path: Path) -> None:
    async with serve(OldTeller()) as server, Stand(tmp_path, {"u": http(server, "legacy")}) as stand:
        behaviour: Any = server.handler
        one, two = await stand.legacy(), await stand.legacy()
        streams = [await one.listen(), await two.listen()]
        await one.ask("logging/setLevel", {"level": "warning"})
        for session in (one, two):
            assert (await session.call("u__echo")).error is None
        links = behaviour.sessions[1:]
        await until(lambda: set(links) <= set(behaviour.own))
        for link in links:
            behaviour.tell(link, "notifications/message", level="info", data=link)
            behaviour.tell(link, "notifications/elicitation/complete", elicitationId=link)
        assert (await streams[0].event())["params"] == {"elicitationId": links[0]}
        assert (await streams[1].event())["params"] == {"level": "info", "data": links[1]}
        for each in streams:
            await each.close()


@pytest.mark.rule("SUB-11")
async def test_a_server_that_is_back_may_have_changed_everything(tmp_path: Path) -> None:
    async with serve(Teller()) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        behaviour: Any = server.handler
        stream = await (await stand.legacy()).listen()
        heard, _ = await opened(stand, resourcesListChanged=True, resourceSubscriptions=["u+note:1"])
        await until(lambda: len(behaviour.now) == 1)
        behaviour.now[0].peer.reset()
        assert await told(stream, 3) == ALL
        assert {(await heard.next())[0] for _ in range(2)} == {RESOURCES, "notifications/resources/updated"}
        await until(lambda: behaviour.wanted == ["note:1"])
        await stream.close()
        await heard.close()


@pytest.mark.rule("SUB-11")
async def test_a_process_that_was_started_again_may_list_something_else(tmp_path: Path) -> None:
    command = {"command": sys.executable, "args": ["-S", SCRIPT], "isolation": "shared"}
    async with Stand(tmp_path, {"u": command}) as stand:
        session = await stand.legacy()
        stream = await session.listen()
        assert (await session.call("u__die")).error is not None
        assert await told(stream, 1) == [TOOLS]
        await stream.close()


async def test_nothing_is_told_before_there_is_news(tmp_path: Path) -> None:
    async with serve(Teller()) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        session = await stand.legacy()
        stream = await session.listen()
        for _ in range(3):
            await stand.reload()
        behaviour: Any = server.handler
        behaviour.tell(PROMPTS)
        assert await told(stream, 1) == [PROMPTS]
        await asyncio.gather(stream.close())

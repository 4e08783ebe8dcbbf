"""Lists of a principal's own: what a server lists on the link of its clients without a session, and only to them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.messages import modern
from tests.gateway.stand import LegacyClient, Stand, allow, calling, deny, keys, until
from tests.gateway.tellers import ACKNOWLEDGED
from tests.gateway.test_listen import Heard, opened
from tests.gateway.test_stdio import Pipes, started
from tests.servers.mcp_http import ModernServer, note, result_of
from tests.servers.raw_http import Peer, RawServer, Request
from tests.upstream.house import SCRIPT

pytestmark = pytest.mark.anyio

TOOLS = "notifications/tools/list_changed"
UNKNOWN = -32602
PEOPLE: dict[str, Any] = {
    "identity": {"keys": keys("ann", "bob")},
    "policy": {"rules": [allow("*/*", to={"subjects": ["*"]})]},
}


def program(*habits: str, **more: Any) -> dict[str, Any]:
    return {"u": {"command": sys.executable, "args": ["-S", SCRIPT, *habits], **more}}


async def added(stand: Stand, who: str) -> Heard:
    """Ann's process has another tool than the one that lists, and she has been told."""
    heard, _ = await opened(stand, who=who, toolsListChanged=True)
    await stand.result("u__more", who=who)
    assert (await heard.next())[0] == TOOLS
    assert "u__later" in await stand.tools(who=who)
    return heard


async def sees(client: LegacyClient) -> bool:
    listed = (await client.ask("tools/list")).json["result"]["tools"]
    return "u__later" in [each["name"] for each in listed]


async def error(stand: Stand, tool: str, who: str) -> int:
    return int((await stand.call(tool, who=who)).json["error"]["code"])


@pytest.mark.rule("SUB-12")
async def test_a_tool_of_a_principal_s_own_process_is_listed_and_called_by_nobody_else(tmp_path: Path) -> None:
    async with Stand(tmp_path, program(), virtual_servers={"v": {"tools": ["u/later"]}}, **PEOPLE) as stand:
        session = await stand.legacy("ann")
        virtual, _ = await opened(stand, who="ann", path="/mcp/v", toolsListChanged=True)
        bobs, _ = await opened(stand, who="bob", toolsListChanged=True)
        anns = await added(stand, "ann")
        assert (await virtual.next())[0] == TOOLS  # a door that showed nothing of this server before
        assert await stand.tools(who="ann", path="/mcp/v") == ["u__later"]
        assert "later" in await stand.tools(who="ann", path="/servers/u/mcp")
        assert (await stand.result("u__later", who="ann"))["content"] == []
        assert "u__later" not in await stand.tools(who="bob")
        assert await error(stand, "u__later", "bob") == UNKNOWN
        assert not await sees(session)  # its own process has no such tool
        assert (await session.call("u__later")).error == UNKNOWN
        await stand.result("u__more", who="bob")
        assert (await bobs.next())[0] == TOOLS  # the first thing that he hears
        assert {whose[1] for whose in stand.house.overlays.shown} == {""}
        for each in (virtual, bobs, anns):
            await each.close()


async def test_policy_judges_what_is_listed_to_one(tmp_path: Path) -> None:
    policy = {"rules": [deny("u/later", id="no"), allow("*/*", to={"subjects": ["*"]})]}
    async with Stand(tmp_path, program(), identity=PEOPLE["identity"], policy=policy) as stand:
        heard, _ = await opened(stand, who="ann", toolsListChanged=True)
        await stand.result("u__more", who="ann")
        assert (await heard.next())[0] == TOOLS
        assert "u__later" not in await stand.tools(who="ann")
        assert await error(stand, "u__later", "ann") == -31403
        assert await error(stand, "u__later", "bob") == UNKNOWN
        await heard.close()


@pytest.mark.parametrize("how", ["lost", "idle", "other settings"])
async def test_it_ends_with_the_link(tmp_path: Path, how: str) -> None:
    settings = {"idle_timeout": 1.0} if how == "idle" else {}
    async with Stand(tmp_path, program(**settings), **PEOPLE) as stand:
        common = await stand.tools(who="bob")
        heard = await added(stand, "ann")
        if how == "lost":
            await stand.call("u__die", who="ann")
        elif how == "other settings":
            await stand.reload(servers=program(call_timeout=7))
        assert (await heard.next())[0] == TOOLS
        assert await stand.tools(who="ann") == await stand.tools(who="bob") == common
        assert await error(stand, "u__later", "ann") == UNKNOWN
        assert stand.house.overlays.shown == {}
        await heard.close()


async def test_a_list_that_everybody_is_shown_is_nobody_s_own(tmp_path: Path) -> None:
    async with Stand(tmp_path, program(), **PEOPLE) as stand:
        heard = await added(stand, "ann")
        house = stand.house
        (whose,) = house.overlays.shown
        house.catalog.arrived(house.overlays.shown[whose].listings["u"])  # the server lists it to everybody now
        await until(lambda: not house.overlays.shown)
        assert "u__later" in await stand.tools(who="ann")
        assert "u__later" in await stand.tools(who="bob")
        await heard.close()


@pytest.mark.parametrize("bound", ["MOST", "MOST_OF_ONE"])
async def test_there_is_room_for_so_many(tmp_path: Path, bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"callgate.gateway.overlays.{bound}", 1)
    async with Stand(tmp_path, program(), **PEOPLE) as stand:
        first = await added(stand, "ann")
        session, heard = await stand.legacy("ann"), (await opened(stand, who="bob", toolsListChanged=True))[0]
        stream = await session.listen()
        assert (await session.call("u__more")).error is None
        assert (await stream.event())["method"] == TOOLS  # told, and shown what everybody is
        assert not await sees(session)
        await stand.result("u__more", who="bob")
        assert (await heard.next())[0] == TOOLS
        assert ("u__later" in await stand.tools(who="bob")) == (bound == "MOST_OF_ONE")
        for each in (first, heard, stream):
            await each.close()


async def test_an_own_link_to_a_modern_server_announces_beside_the_answer(tmp_path: Path) -> None:
    """Some servers say it on the stream of the call and nowhere else."""
    behaviour = ModernServer()

    async def handle(request: Request, peer: Peer) -> None:
        if request.message["method"] != "tools/call":
            await behaviour(request, peer)
            return
        behaviour.tools = [*behaviour.tools, {"name": "later", "inputSchema": {"type": "object"}}]
        peer.sse_head()
        peer.event(note(TOOLS))
        peer.event(result_of(request.message["id"], {"content": [], "resultType": "complete"}))
        peer.chunk(b"")

    async with RawServer(handle) as server:
        servers = {"u": {"url": server.url, "protocol": "modern", "isolation": "principal"}}
        async with Stand(tmp_path, servers, **PEOPLE) as stand:
            heard, _ = await opened(stand, who="ann", toolsListChanged=True)
            await stand.result("u__echo", who="ann")
            assert (await heard.next())[0] == TOOLS
            assert "u__later" in await stand.tools(who="ann")
            await heard.close()


# Over stdio.


async def names(pipes: Pipes, id: int) -> list[str]:
    listed = await pipes.ask(modern("tools/list", id=id))
    return [each["name"] for each in listed["result"]["tools"]]


async def both(pipes: Pipes, tool: str, id: int) -> dict[str, Any]:
    """Call, hear that the list is another one, and get the answer, in whichever order."""
    pipes.send(calling(tool, id=id))
    said = [await pipes.next(), await pipes.next()]
    assert [each["method"] for each in said if "method" in each] == [TOOLS]
    found: dict[str, Any] = next(each for each in said if each.get("id") == id)
    return found


async def test_the_one_client_of_a_pipe(tmp_path: Path) -> None:
    async with started(tmp_path, servers=program()) as pipes:
        acknowledged = await pipes.ask(modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}}))
        assert acknowledged["method"] == ACKNOWLEDGED
        before = await names(pipes, 2)
        assert "result" in await both(pipes, "u__more", 3)
        assert await names(pipes, 4) == sorted([*before, "u__later"])
        assert "result" in await pipes.ask(calling("u__later", id=5))
        assert "error" in await both(pipes, "u__die", 6)
        assert await names(pipes, 7) == before
        assert (await pipes.ask(calling("u__later", id=8)))["error"]["code"] == UNKNOWN

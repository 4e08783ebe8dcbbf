"""Servers that list nothing before somebody has signed in to them, with a real issuer beside them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from callgate.identity.keys import principal_key
from tests.gateway.askers import Client
from tests.gateway.consenting import Tab, with_keys
from tests.gateway.stand import Stand, key_of, refused, until
from tests.servers.authority import Authority
from tests.servers.mcp_http import LegacyServer, ModernServer

pytestmark = pytest.mark.anyio

URL: dict[str, Any] = {"elicitation": {"url": {}}}
LIST = "/oauth/connections"
ERAS = pytest.mark.parametrize("era", ["modern", "legacy"])


@asynccontextmanager
async def personal(folder: Path, era: str = "modern", **settings: Any) -> AsyncIterator[tuple[Stand, Authority]]:
    """A gateway whose server ``notes`` says nothing to anybody without a token."""
    server: Any = ModernServer() if era == "modern" else LegacyServer()
    async with Authority(server=server) as authority:
        servers = {"notes": {"url": authority.url, "auth": {"type": "oauth"}}}
        async with Stand(folder, servers, **settings) as stand:
            yield stand, authority


async def connect(stand: Stand, authority: Authority, who: str | None = None) -> Tab:
    """What a user does on the page of connections."""
    tab = Tab(stand)
    page = await tab.get(LIST)
    if who is not None:
        await tab.submit(page, key=key_of(who))
        page = await tab.get(LIST)
    page = await tab.get((await tab.submit(page, button="connect")).headers["location"])
    gone = await tab.submit(page)
    answer = authority.browse(gone.headers["location"])
    done = await tab.get("/oauth/connect/callback?" + "&".join(f"{name}={value}" for name, value in answer.items()))
    assert b"Connected to notes" in done.body, done
    return tab


@ERAS
async def test_such_a_server_is_there_without_tools_and_says_why(tmp_path: Path, era: str) -> None:
    async with personal(tmp_path, era) as (stand, _):
        [status] = stand.house.statuses()
        assert (status.state, status.tools) == ("ready", 0)
        assert "signed in" in status.reason
        assert await stand.tools() == []
        hello = (await stand.modern("server/discover")).json["result"]
        assert f"http://127.0.0.1:{stand.port}{LIST}: `notes`" in hello["instructions"]
        client = await stand.legacy()
        assert "`notes`" in client.opened["instructions"]


@ERAS
async def test_whoever_has_connected_is_shown_what_the_server_lists(tmp_path: Path, era: str) -> None:
    async with personal(tmp_path, era) as (stand, authority):
        session = await stand.legacy()
        assert (await session.ask("tools/list")).json["result"]["tools"] == []
        await connect(stand, authority)
        names = await stand.tools()
        assert "notes__echo" in names
        assert "echo" in await stand.tools(path="/servers/notes/mcp")
        listed = (await session.ask("tools/list")).json["result"]["tools"]
        assert sorted(tool["name"] for tool in listed) == sorted(names)
        assert (await stand.result("notes__echo", {"text": "x"})).get("isError") is None
        said = (await session.call("notes__echo", {"text": "x"}, id=3)).json["result"]
        assert said.get("isError") is None
        hello = (await stand.modern("server/discover")).json["result"]
        assert LIST not in hello.get("instructions", "")
        assert not any("Bearer" in line for line in repr(stand.rows()).split())


@ERAS
async def test_nobody_is_shown_what_another_is(tmp_path: Path, era: str) -> None:
    async with personal(tmp_path, era, **with_keys("ann", "bob")) as (stand, authority):
        await connect(stand, authority, "ann")
        assert "notes__echo" in await stand.tools(who="ann")
        assert await stand.tools(who="bob") == []
        assert "notes__echo" in await stand.tools(who="ann")
        said = await stand.result("notes__echo", {"text": "x"}, who="bob")
        assert said["isError"] is True and "/oauth/connect/" in said["content"][0]["text"]
        assert (await stand.result("notes__echo", {"text": "x"}, who="ann")).get("isError") is None


@ERAS
async def test_a_name_that_nobody_has_listed_leads_to_the_page(tmp_path: Path, era: str) -> None:
    """A client that remembers a tool from before calls it, and is asked."""
    async with personal(tmp_path, era) as (stand, authority):
        client = Client(stand, URL)
        first = await client.call("notes__echo", {"text": "x"})
        [question] = first.json["result"]["inputRequests"].values()
        tab = Tab(stand)
        gone = await tab.submit(await tab.get(question["params"]["url"].partition(f":{stand.port}")[2]))
        answer = authority.browse(gone.headers["location"])
        await tab.get("/oauth/connect/callback?" + "&".join(f"{name}={value}" for name, value in answer.items()))
        last = await client.back(first, "notes__echo", {"sign_in": {"action": "accept"}}, {"text": "x"})
        assert last.json["result"]["resultType"] == "complete", last
        refused(await client.call("notes__no_such_tool"), 400, -32602)


async def test_policy_hides_the_server_from_those_who_may_not_use_it(tmp_path: Path) -> None:
    settings = with_keys("ann", "bob")
    settings["policy"]["rules"][0]["to"] = {"subjects": ["ann"]}
    async with personal(tmp_path, **settings) as (stand, _):
        hello = (await stand.modern("server/discover", who="bob")).json["result"]
        assert "notes" not in hello.get("instructions", "")
        message = (await stand.call("notes__echo", who="bob")).json["error"]["message"]
        assert "Unknown tool" in message and "/oauth/" not in message


@ERAS
async def test_clients_are_told_when_their_lists_are_others(tmp_path: Path, era: str) -> None:
    async with personal(tmp_path, era, **with_keys("ann", "bob")) as (stand, authority):
        ann, bob = await stand.legacy("ann"), await stand.legacy("bob")
        for each in (ann, bob):
            await each.ask("tools/list")
        stream, other = await ann.listen(), await bob.listen()
        tab = await connect(stand, authority, "ann")
        assert (await stream.event())["method"].endswith("/list_changed")
        assert (await ann.ask("tools/list", id=2)).json["result"]["tools"]
        page = await tab.get(LIST)
        await tab.submit(page, button="disconnect")

        async def empty() -> bool:
            return bool((await ann.ask("tools/list", id=5)).json["result"]["tools"] == [])

        for _ in range(50):
            if await empty():
                break
        assert await empty()
        assert authority.revoked
        other.send(b"")
        assert stand.house.sessions.get(bob.id) is not None
        await stream.close()
        await other.close()


async def test_the_lists_are_there_again_after_a_restart(tmp_path: Path) -> None:
    async with personal(tmp_path) as (stand, authority):
        await connect(stand, authority)
        assert "notes__echo" in await stand.tools()
        await stand.gateway.aclose()
        await stand.start()
        # Called by name, before anything was listed to anybody.
        assert (await stand.result("notes__echo", {"text": "x"})).get("isError") is None
        assert "notes__echo" in await stand.tools()


async def test_a_server_that_lists_to_everybody_is_listed_once_and_asks_at_the_call(tmp_path: Path) -> None:
    async with Authority(lists_to_all=True) as authority:
        servers = {"notes": {"url": authority.url, "auth": {"type": "oauth"}}}
        async with Stand(tmp_path, servers) as stand:
            assert "notes__echo" in await stand.tools()
            assert stand.house.upstreams.personal() == frozenset()
            said = await stand.result("notes__echo", {"text": "x"})
            assert said["isError"] is True
            await connect(stand, authority)
            assert (await stand.result("notes__echo", {"text": "x"})).get("isError") is None


async def test_many_ask_and_the_list_is_read_once(tmp_path: Path) -> None:
    import asyncio

    async with personal(tmp_path) as (stand, authority):
        await connect(stand, authority)
        await until(lambda: not stand.house.personal._flights)
        before = len(authority.mcp.requests)
        stand.house.personal.clear()
        lists = await asyncio.gather(*(stand.tools() for _ in range(10)))
        assert all("notes__echo" in each for each in lists)
        methods = [request.message["method"] for request in authority.mcp.requests[before:] if request.body]
        assert methods.count("tools/list") == 1


async def test_a_list_that_many_are_shown_is_there_once(tmp_path: Path) -> None:
    """A thousand people would hold half a gigabyte of the same; each is still shown what is listed to that one."""
    names = ("ann", "bob", "eve")
    async with personal(tmp_path, **with_keys(*names)) as (stand, authority):
        for name in names:
            await connect(stand, authority, name)
            assert "notes__echo" in await stand.tools(who=name)
        await until(lambda: not stand.house.personal._flights)
        shown = [each for each in stand.house.overlays.shown.values() if each.views]
        assert len(shown) == 3
        assert len({id(each.listings["notes"]) for each in shown}) == 1
        # One of them is listed something else from now on.
        assert isinstance(authority.server, ModernServer)
        authority.server.tools = [{"name": "other", "inputSchema": {"type": "object"}}]
        stand.house.personal._kept.pop((principal_key("", "ann"), "notes"))
        assert await stand.tools(who="ann") == ["notes__other"]
        assert "notes__echo" in await stand.tools(who="bob")

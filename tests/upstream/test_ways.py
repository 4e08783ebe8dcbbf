"""Whose link a call takes, and what becomes of links."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from callgate.config.model import Server
from callgate.errors import Overloaded, UpstreamError, UpstreamTimeout
from callgate.types import Conduct
from tests.servers.asking_http import AskingServer, BothAsking
from tests.servers.mcp_http import ModernServer, note, serve
from tests.servers.raw_http import Peer, RawServer, Request
from tests.upstream.asking import FORMS, LEGACY, Client, asking
from tests.upstream.house import House, permitted, stdio, until

pytestmark = pytest.mark.anyio


async def pid(house: House, **front: Any) -> int:
    return int((await house.ask("s", "pid", **front))["pid"])


@pytest.mark.key("servers.isolation")
@pytest.mark.parametrize(
    ("isolation", "groups"),
    [("auto", 5), ("session", 5), ("principal", 3), ("shared", 1)],
)
async def test_who_shares_a_process(tmp_path: Path, isolation: Any, groups: int) -> None:
    callers: list[dict[str, Any]] = [
        {"principal": "alice"},
        {"principal": "bob"},
        {"principal": "alice", "era": "legacy", "session": "one"},
        {"principal": "alice", "era": "legacy", "session": "two"},
        {"principal": "alice", **FORMS},
    ]
    async with House(tmp_path, s=asking(isolation=isolation)) as house:
        first = [await pid(house, **caller) for caller in callers]
        assert [await pid(house, **caller) for caller in callers] == first
        assert len(set(first)) == groups
        if isolation != "shared":
            assert first[0] != first[1]  # never two principals


async def test_a_modern_process_is_shared_unless_it_must_not_be(tmp_path: Path) -> None:
    async with House(tmp_path, s=stdio("modern", isolation="auto"), p=stdio("modern", isolation="session")) as house:
        shared = {(await house.ask("s", "pid", principal=who))["pid"] for who in ("alice", "bob")}
        own = {(await house.ask("p", "pid", principal=who))["pid"] for who in ("alice", "bob")}
        assert (len(shared), len(own)) == (1, 2)


async def test_a_legacy_http_server_without_session_ids_is_shared(tmp_path: Path) -> None:
    behaviour = AskingServer(stateless=True)
    async with RawServer(behaviour) as server, House(tmp_path, s=Server(url=server.url)) as house:
        for who in ("alice", "bob"):
            await house.ask("s", "echo", principal=who, **FORMS)
        assert [hello["capabilities"] for hello in behaviour.hellos] == [{}]


@pytest.mark.rule("EXT-3", "PARK-7")
async def test_initialize_declares_what_the_client_declared(tmp_path: Path) -> None:
    async with House(tmp_path, s=asking()) as house:
        front: dict[str, Any] = {"era": "legacy", "session": "one"}
        given: dict[str, Any] = {"elicitation": {}, "roots": {"listChanged": True}, "experimental": {}}
        hello = (await house.ask("s", "hello", capabilities=given, **front))["hello"]
        assert hello["capabilities"] == {"elicitation": {"form": {}}, "roots": {"listChanged": True}}
        assert (await house.ask("s", "hello"))["hello"]["capabilities"] == {}


@pytest.mark.rule("EXT-3")
async def test_a_modern_server_is_told_the_client_s_capabilities_of_each_request(tmp_path: Path) -> None:
    async with serve(ModernServer()) as server, House(tmp_path, s=Server(url=server.url)) as house:
        given: dict[str, Any]
        for given in ({}, {"elicitation": {}}, {"sampling": {"tools": {}}, "unknown": {}}):
            await house.ask("s", "echo", capabilities=given)
    told = [r.message["params"]["_meta"] for r in server.requests if r.message.get("method") == "tools/call"]
    assert [meta["io.modelcontextprotocol/clientCapabilities"] for meta in told] == [
        {},
        {"elicitation": {"form": {}}},
        {"sampling": {"tools": {}}},
    ]
    own = [r.message["params"]["_meta"] for r in server.requests if r.message.get("method") == "tools/list"]
    assert all(meta["io.modelcontextprotocol/clientCapabilities"] == {} for meta in own)


# A legacy client and a server of both eras.


@pytest.mark.parametrize("http", [False, True])
async def test_a_legacy_client_that_can_be_asked_takes_a_legacy_link(tmp_path: Path, http: bool) -> None:
    behaviour = BothAsking(ModernServer(), AskingServer())
    async with RawServer(behaviour) as server:
        config = Server(url=server.url) if http else asking("dual")
        async with House(tmp_path, s=config) as house:
            assert house.status("s").era == "modern"
            client = Client()
            front: dict[str, Any] = {**LEGACY, "session": "one"}
            call = permitted("s", "ask", {}, **front).call
            assert house.upstreams.era(call) == "legacy"
            answer = await house.call("s", "ask", ask=client.ask, **front)
            assert answer.era == "legacy"
            assert len(client.questions) == 1
            for plain in ({}, {"era": "legacy"}, FORMS):  # nobody to ask, or a client of the modern era
                assert house.upstreams.era(permitted("s", "echo", {}, **plain).call) == "modern"
            assert (await house.call("s", "echo" if http else "hello", era="legacy")).era == "modern"


@pytest.mark.parametrize("http", [False, True])
async def test_a_server_that_refuses_initialize_is_asked_once(tmp_path: Path, http: bool) -> None:
    behaviour = BothAsking(ModernServer(), AskingServer(), refuses=True)
    async with RawServer(behaviour) as server:
        config = Server(url=server.url) if http else asking("modern")
        async with House(tmp_path, s=config) as house:
            for session in ("one", "two"):
                answer = await house.call("s", "echo" if http else "hello", **LEGACY, session=session)
                assert answer.era == "modern"
            call = permitted("s", "echo", {}, **LEGACY, session="three").call
            assert house.upstreams.era(call) == "modern"
            assert behaviour.refused == (1 if http else 0)


@pytest.mark.key("servers.connect_timeout")
async def test_a_server_that_is_slow_once_is_not_taken_for_one_that_refuses(tmp_path: Path) -> None:
    behaviour, awake = BothAsking(ModernServer(), AskingServer()), asyncio.Event()

    async def handle(request: Request, peer: Peer) -> None:
        if request.method == "POST" and request.message.get("method") == "initialize":
            await awake.wait()
        await behaviour(request, peer)

    async with RawServer(handle) as server, House(tmp_path, s=Server(url=server.url, connect_timeout=0.5)) as house:
        call, slow = permitted("s", "echo", {}, **LEGACY, session="one").call, {**LEGACY, "session": "one"}
        assert await house.upstreams.settle_era(call) == "modern"
        assert (await house.call("s", "echo", **slow)).era == "modern"  # this call only
        awake.set()
        assert house.upstreams.era(call) == "legacy"
        assert (await house.call("s", "echo", **slow)).era == "legacy"


async def test_the_era_is_settled_before_a_call_when_it_must_be_certain(tmp_path: Path) -> None:
    behaviour = BothAsking(ModernServer(), AskingServer(), refuses=True)
    async with RawServer(behaviour) as server, House(tmp_path, s=Server(url=server.url), d=asking("dual")) as house:
        front: dict[str, Any] = {**LEGACY, "session": "one"}
        assert await house.upstreams.settle_era(permitted("s", "echo", {}, **front).call) == "modern"
        assert await house.upstreams.settle_era(permitted("d", "hello", {}, **front).call) == "legacy"
        assert await house.upstreams.settle_era(permitted("d", "hello", {}).call) == "modern"


async def test_a_dual_server_without_sessions_is_used_as_a_modern_one(tmp_path: Path) -> None:
    behaviour = BothAsking(ModernServer(), AskingServer(stateless=True))
    async with RawServer(behaviour) as server, House(tmp_path, s=Server(url=server.url)) as house:
        assert (await house.call("s", "echo", **LEGACY, session="one")).era == "modern"
        assert house.upstreams.era(permitted("s", "echo", {}, **LEGACY).call) == "modern"


async def test_a_configured_era_is_kept(tmp_path: Path) -> None:
    behaviour = BothAsking(ModernServer(), AskingServer())
    async with RawServer(behaviour) as server:
        async with House(tmp_path, s=Server(url=server.url, protocol="modern")) as house:
            assert (await house.call("s", "echo", **LEGACY, session="one")).era == "modern"
        assert behaviour.legacy.hellos == []


async def test_the_era_of_a_server_that_was_never_reached(tmp_path: Path) -> None:
    async with House(tmp_path, s=Server(command="no-such-program")) as house:
        assert house.upstreams.era(permitted("s", "x", {}).call) is None
        assert house.upstreams.era(permitted("unknown", "x", {}).call) is None


# Lists of their own.


@pytest.mark.parametrize("how", ["lost", "forgotten", "closed", "idle"])
async def test_what_an_own_link_announced_counts_as_long_as_it_lives(tmp_path: Path, how: str) -> None:
    front: dict[str, Any] = {"era": "legacy", "session": "one"} if how == "forgotten" else {}
    session, more = front.get("session", ""), {"idle_timeout": 0.5} if how == "idle" else {}
    async with House(tmp_path, s=stdio(isolation="auto", **more)) as house:
        upstreams = house.upstreams
        await house.ask("s", "pid", **front)
        assert await upstreams.own_listing("s", "alice", session) is None  # it announced nothing
        await house.ask("s", "more", **front)
        await until(lambda: upstreams.lists_own("s", "alice", session))
        listing = await upstreams.own_listing("s", "alice", session)
        assert listing is not None
        assert listing.tools[-1]["name"] == "later"
        assert not upstreams.lists_own("s", "bob", session)
        if how == "lost":
            with pytest.raises(UpstreamError):
                await house.ask("s", "die")
        elif how == "forgotten":
            upstreams.forget("one")
        elif how == "closed":
            await upstreams.apply({}, tmp_path)
        await until(lambda: house.common_again)
        assert house.common_again == [("s", "alice", session)]
        assert not upstreams.lists_own("s", "alice", session)
        assert await upstreams.own_listing("s", "alice", session) is None


async def test_the_newest_announcement_wins(tmp_path: Path) -> None:
    """A principal whose clients declare different capabilities has several links."""
    async with House(tmp_path, s=stdio(isolation="auto")) as house:
        for times, front in ((1, {}), (2, FORMS)):
            for _ in range(times):
                await house.ask("s", "more", **front)
            listing = await house.upstreams.own_listing("s", "alice", "")
            assert listing is not None
            assert [tool["name"] for tool in listing.tools].count("later") == times
        with pytest.raises(UpstreamError):
            await house.ask("s", "die")  # the older one
        assert house.upstreams.lists_own("s", "alice", "")
        with pytest.raises(UpstreamError):
            await house.ask("s", "die", **FORMS)
        assert not house.upstreams.lists_own("s", "alice", "")


async def test_a_session_that_the_server_began_anew_has_announced_nothing(tmp_path: Path) -> None:
    behaviour = AskingServer()
    async with RawServer(behaviour) as server, House(tmp_path, s=Server(url=server.url)) as house:
        await house.ask("s", "echo", **FORMS)
        mine = behaviour.sessions[-1]
        await until(lambda: mine in behaviour.own)
        behaviour.own[mine].event(note("notifications/tools/list_changed"))
        await until(lambda: house.upstreams.lists_own("s", "alice", ""))
        behaviour.sessions.remove(mine)
        await house.ask("s", "echo", **FORMS)
        assert house.common_again == [("s", "alice", "")]


# The life of links.


async def test_the_end_of_a_session_ends_its_links(tmp_path: Path) -> None:
    behaviour = AskingServer()
    async with RawServer(behaviour) as server, House(tmp_path, s=asking(), h=Server(url=server.url)) as house:
        one, two = [await pid(house, **LEGACY, session=session) for session in ("one", "two")]
        await house.ask("h", "echo", **LEGACY, session="one")
        session = behaviour.calls[0]
        house.upstreams.forget("one")
        await until(lambda: one not in house.status("s").pids and behaviour.deleted == [session])
        assert two in house.status("s").pids
        assert await pid(house, **LEGACY, session="two") == two


async def test_a_running_call_outlives_the_session(tmp_path: Path) -> None:
    async with House(tmp_path, s=asking()) as house:
        client = Client()
        client.open.clear()
        call = asyncio.create_task(house.ask("s", "ask", ask=client.ask, **LEGACY, session="one"))
        await until(lambda: client.questions)
        house.upstreams.forget("one")
        assert await pid(house, **LEGACY, session="one") in house.status("s").pids
        client.open.set()
        old = (await call)["pid"]
        await until(lambda: old not in house.status("s").pids)


@pytest.mark.key("servers.max_lifetime")
async def test_an_old_process_is_replaced_but_not_during_a_call(tmp_path: Path) -> None:
    async with House(tmp_path, s=asking(max_lifetime=0.2)) as house:
        front: dict[str, Any] = {**LEGACY, "session": "one"}
        client = Client()
        client.open.clear()
        call = asyncio.create_task(house.ask("s", "ask", ask=client.ask, **front))
        await until(lambda: client.questions)
        await asyncio.sleep(0.25)  # older than max_lifetime
        new = await pid(house, **front)
        client.open.set()
        assert (await call)["pid"] != new
        await until(lambda: len(house.status("s").pids) == 2)


@pytest.mark.key("servers.max_links_per_principal")
async def test_one_principal_cannot_take_all_links(tmp_path: Path) -> None:
    async with House(tmp_path, s=asking(max_links_per_principal=2, call_timeout=2)) as house:
        oldest = await pid(house, **LEGACY, session="one")
        calls = []
        for session in ("two", "three"):
            calls.append(asyncio.create_task(house.call("s", "hold", **LEGACY, session=session)))
            await until(lambda: house.status("s").in_flight == len(calls))
        await until(lambda: oldest not in house.status("s").pids)
        with pytest.raises(Overloaded, match="you already have 2"):
            await house.call("s", "pid", **LEGACY, session="four")
        assert await pid(house, principal="bob") in house.status("s").pids
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)


async def test_waiting_for_a_process_ends_with_the_deadline(tmp_path: Path) -> None:
    async with House(tmp_path, s=asking(max_links_per_principal=1, call_timeout=0.3)) as house:
        client = Client()
        client.open.clear()
        call = asyncio.create_task(house.ask("s", "ask", ask=client.ask, **FORMS))
        await until(lambda: client.questions)
        with pytest.raises(UpstreamTimeout, match="no free process"):
            await house.call("s", "ask", ask=client.ask, **FORMS)
        client.open.set()
        await call


async def test_a_link_that_is_held_stays_and_is_found_again(tmp_path: Path) -> None:
    async with House(tmp_path, s=asking(idle_timeout=0.1)) as house:
        first = Client()
        first.open.clear()
        busy = asyncio.create_task(house.ask("s", "ask", ask=first.ask, **FORMS))
        await until(lambda: first.questions)
        task = permitted("s", "ask", {}, **FORMS)
        made = asyncio.ensure_future(house.upstreams.send(task, Conduct()))  # on another process of the same owner
        await until(lambda: len(house.status("s").pids) == 3)
        assert (await made).error is None
        house.upstreams.hold(task.call, "task-1", 60)
        first.open.set()
        usual = (await busy)["pid"]
        await until(lambda: usual not in house.status("s").pids)  # idle, and nobody holds it
        held = (await house.ask("s", "x", method="tasks/get", params={"taskId": "task-1"}, **FORMS))["pid"]
        assert held in house.status("s").pids
        house.upstreams.hold(task.call, "task-1", 0)
        await until(lambda: held not in house.status("s").pids)


async def test_a_program_that_can_run_only_once_says_what_to_do(tmp_path: Path) -> None:
    async with House(tmp_path, s=stdio(f"single:{tmp_path}/lock", protocol="legacy", isolation="auto")) as house:
        assert house.status("s").state == "ready"
        with pytest.raises(UpstreamError, match="another one is running") as refused:
            await house.call("s", "echo")
        assert "isolation: shared" in refused.value.hint


async def test_an_own_process_that_died_is_replaced(tmp_path: Path) -> None:
    async with House(tmp_path, s=asking()) as house:
        front: dict[str, Any] = {**LEGACY, "session": "one"}
        first = await pid(house, **front)
        with pytest.raises(UpstreamError, match="exited with status 3"):
            await house.call("s", "die", **front)
        assert await pid(house, **front) != first


async def test_an_own_process_works_on_while_the_one_that_lists_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callgate.upstream.server.BACKOFF", (60.0, 60.0))
    async with House(tmp_path, s=asking()) as house:
        lists = house.status("s").pids[0]
        own = await pid(house, **LEGACY, session="one")
        os.kill(lists, 9)
        await until(lambda: house.status("s").state == "failed")
        assert await pid(house, **LEGACY, session="one") == own


# What servers say by themselves.


async def test_news_of_an_own_process(tmp_path: Path) -> None:
    async with House(tmp_path, s=asking()) as house:
        listed = len(house.listings)
        await house.ask("s", "news", **LEGACY, session="one")
        await until(lambda: len(house.news) == 5)
        assert {(news.server, news.principal, news.session) for news in house.news} == {("s", "alice", "one")}
        assert [news.method.removeprefix("notifications/") for news in house.news] == [
            "tools/list_changed",
            "resources/updated",
            "message",
            "tasks/status",
            "elicitation/complete",
        ]
        assert house.news[1].params == {"about": "resources/updated"}
        await until(lambda: len(house.listings) > listed)  # the list is read again, on the link that lists


async def test_news_of_a_shared_process(tmp_path: Path) -> None:
    async with House(tmp_path, s=asking(isolation="shared")) as house:
        await house.ask("s", "news", **LEGACY, session="one")
        await until(lambda: len(house.news) == 3)
        assert [(n.method, n.principal, n.session) for n in house.news] == [
            ("notifications/tools/list_changed", "", ""),
            ("notifications/resources/updated", "", ""),
            ("notifications/tasks/status", "", ""),
        ]


async def test_log_messages_outside_calls_are_not_for_clients_without_a_session(tmp_path: Path) -> None:
    async with House(tmp_path, s=asking()) as house:
        await house.ask("s", "news")
        await until(lambda: any("complete" in news.method for news in house.news))
        assert not any(news.method == "notifications/message" for news in house.news)


async def test_news_on_a_session_s_own_stream(tmp_path: Path) -> None:
    behaviour = AskingServer()
    async with RawServer(behaviour) as server, House(tmp_path, s=Server(url=server.url)) as house:
        await house.ask("s", "echo", **LEGACY, session="one")
        session = behaviour.calls[0]
        await until(lambda: session in behaviour.own)
        behaviour.own[session].event(note("notifications/message", level="info", data="x"))
        behaviour.own[session].event(note("notifications/resources/updated", uri="a:b"))
        await until(lambda: len(house.news) == 2)
        assert [(n.session, n.params) for n in house.news][1] == ("one", {"uri": "a:b"})


@pytest.mark.parametrize("http", [False, True])
async def test_a_client_s_notifications_reach_the_links_of_its_session_only(tmp_path: Path, http: bool) -> None:
    behaviour = AskingServer()
    async with RawServer(behaviour) as server:
        config = Server(url=server.url) if http else asking()
        async with House(tmp_path, s=config) as house:
            tool = "echo" if http else "hello"
            for session in ("one", "two"):
                await house.ask("s", tool, **LEGACY, session=session)
            await house.ask("s", tool, principal="bob", **LEGACY, session="three")
            tell = house.upstreams.tell
            tell("alice", "one", "notifications/roots/list_changed", {})
            tell("bob", "one", "notifications/roots/list_changed", {"wrong": "principal"})
            tell("alice", "two", "notifications/initialized", {"not": "relayed"})
            tell("alice", "", "notifications/roots/list_changed", {"no": "session"})
            if http:
                await until(lambda: told(server))
                assert told(server) == [(behaviour.calls[0], {})]
            else:
                assert (await heard(house, "one")) == [{}]
                assert (await heard(house, "two")) == []


def told(server: RawServer) -> list[tuple[str, Any]]:
    posts = [request for request in server.requests if b"roots/list_changed" in request.body]
    return [(request.headers["mcp-session-id"], request.message["params"]) for request in posts]


async def heard(house: House, session: str) -> list[Any]:
    seen = (await house.ask("s", "seen", **LEGACY, session=session))["seen"]
    return [message["params"] for message in seen if message.get("method") == "notifications/roots/list_changed"]

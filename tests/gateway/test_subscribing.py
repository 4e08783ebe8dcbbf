"""``resources/subscribe`` of legacy sessions: judged, recorded, and told to nobody else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.gateway.stand import Stand, allow, deny, keys, until
from tests.gateway.tellers import UPDATED, OldTeller, Teller, serve
from tests.gateway.upstreams import Modern, http

pytestmark = pytest.mark.anyio

SUBSCRIBE, UNSUBSCRIBE = "resources/subscribe", "resources/unsubscribe"


def updated(uri: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": UPDATED, "params": {"uri": uri}}


async def test_a_modern_server_tells_a_session(tmp_path: Path) -> None:
    async with serve(Teller()) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        behaviour: Any = server.handler
        session = await stand.legacy()
        assert session.opened["capabilities"]["resources"] == {"listChanged": True, "subscribe": True}
        other = await stand.legacy(path="/servers/u/mcp")
        stream, theirs = await session.listen(), await other.listen()
        assert (await session.ask(SUBSCRIBE, {"uri": "u+note:1"})).json["result"] == {}
        assert (await other.ask(SUBSCRIBE, {"uri": "note:2"})).json["result"] == {}
        assert behaviour.wanted == ["note:1", "note:2"]
        for uri in ("note:2", "note:1"):
            behaviour.tell(UPDATED, uri=uri)
        assert await stream.event() == updated("u+note:1")  # and not note:2
        assert await theirs.event() == updated("note:2")
        assert (await session.ask(UNSUBSCRIBE, {"uri": "u+note:1"})).json["result"] == {}
        await until(lambda: behaviour.wanted == ["note:2"])
        await other.end()
        await until(lambda: behaviour.wanted == [])
        await stream.close()
        await theirs.close()
        seen = [(each["method"], each["server"], each["tool"]) for each in await stand.records(3)]
        assert seen == [
            (SUBSCRIBE, "u", "resource:note:1"), (SUBSCRIBE, "u", "resource:note:2"),
            (UNSUBSCRIBE, "u", "resource:note:1"),
        ]  # fmt: skip


@pytest.mark.rule("SUB-12")
async def test_a_legacy_server_is_asked_on_the_sessions_own_link(tmp_path: Path) -> None:
    async with serve(OldTeller()) as server, Stand(tmp_path, {"u": http(server, "legacy")}) as stand:
        behaviour: Any = server.handler
        one, two = await stand.legacy(), await stand.legacy()
        stream, other = await one.listen(), await two.listen()
        for session in (one, two):
            assert (await session.ask(SUBSCRIBE, {"uri": "u+note:1"})).json["result"] == {}
        (_, mine, _), (_, theirs, _) = behaviour.calls
        assert mine != theirs
        await until(lambda: mine in behaviour.own and theirs in behaviour.own)
        behaviour.tell(theirs, UPDATED, uri="note:1")
        behaviour.tell(theirs, UPDATED, uri="note:1/part")
        assert await other.event() == updated("u+note:1")
        assert await other.event() == updated("u+note:1/part")  # a part of what was subscribed
        behaviour.tell(mine, UPDATED, uri="note:2")  # nobody asked for it
        behaviour.tell(mine, UPDATED, uri="note:1")
        assert await stream.event() == updated("u+note:1")  # the first: what the other one heard did not come here
        assert (await one.ask(UNSUBSCRIBE, {"uri": "u+note:1"})).json["result"] == {}
        assert behaviour.calls[-1] == ("unsubscribe", mine, "note:1")
        await two.end()
        await until(lambda: theirs in behaviour.deleted)
        await stream.close()
        await other.close()


async def test_sessions_that_share_a_link_share_its_subscription(tmp_path: Path) -> None:
    shared = {"isolation": "shared"}
    async with serve(OldTeller()) as server, Stand(tmp_path, {"u": http(server, "legacy", **shared)}) as stand:
        behaviour: Any = server.handler
        one, two, three = [await stand.legacy() for _ in range(3)]
        streams = [await each.listen() for each in (one, two, three)]
        for session in (one, two):
            assert (await session.ask(SUBSCRIBE, {"uri": "u+note:1"})).json["result"] == {}
        sessions = {session for _, session, _ in behaviour.calls}
        assert len(sessions) == 1
        link = sessions.pop()
        assert (await three.ask(UNSUBSCRIBE, {"uri": "u+note:1"})).json["result"] == {}  # not its own
        assert (await one.ask(UNSUBSCRIBE, {"uri": "u+note:1"})).json["result"] == {}
        assert "unsubscribe" not in {what for what, *_ in behaviour.calls}
        await until(lambda: link in behaviour.own)
        behaviour.tell(link, UPDATED, uri="note:1")
        assert await streams[1].event() == updated("u+note:1")
        assert (await two.ask(UNSUBSCRIBE, {"uri": "u+note:1"})).json["result"] == {}
        assert behaviour.calls[-1] == ("unsubscribe", link, "note:1")
        for session, stream in ((one, streams[0]), (three, streams[2])):
            await stand.reload(policy={"rules": [allow("u/*", id=session.id[:8].replace("-", "x"))]})
            assert (await stream.event())["method"] != UPDATED  # the update before it went past them
        for stream in streams:
            await stream.close()


async def test_policy_decides_about_every_resource(tmp_path: Path) -> None:
    policy = {"rules": [deny("u/resource:note:secret", id="no"), allow("u/*")]}
    async with serve(Teller()) as server, Stand(tmp_path, {"u": http(server)}, policy=policy) as stand:
        behaviour: Any = server.handler
        session = await stand.legacy()
        assert (await session.ask(SUBSCRIBE, {"uri": "u+note:secret"})).error == -31403
        assert (await session.ask(SUBSCRIBE, {"uri": "nothing+note:1"})).error == -32602
        assert (await session.ask(SUBSCRIBE, {"uri": 5})).error == -32602
        assert (await session.ask(SUBSCRIBE, {"uri": "u+note:1/../secret"})).error == -32602
        assert behaviour.wanted == []
        outcomes = [(each["tool"], each["outcome"]) for each in await stand.records(2)]
        assert outcomes[0] == ("resource:note:secret", "denied")


async def test_a_hidden_server_is_as_unknown_as_none(tmp_path: Path) -> None:
    policy = {"rules": [allow("v/*")]}
    async with (
        serve(Teller()) as server,
        Stand(tmp_path, {"v": http(server), "hidden": http(server)}, policy=policy) as stand,
    ):
        session = await stand.legacy()
        seen = (await session.ask(SUBSCRIBE, {"uri": "hidden+note:1"})).json["error"]
        none = (await session.ask(SUBSCRIBE, {"uri": "nothng+note:1"})).json["error"]
        assert seen["code"] == none["code"] == -32602
        assert seen["message"].replace("hidden", "nothng") == none["message"]


async def test_a_door_without_resources_has_no_subscriptions(tmp_path: Path) -> None:
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        session = await stand.legacy(path="/servers/u/mcp")
        for method in (SUBSCRIBE, UNSUBSCRIBE):
            assert (await session.ask(method, {"uri": "note:1"})).error == -32601


async def test_a_server_that_does_not_agree_is_not_waited_for(tmp_path: Path) -> None:
    async with serve(Teller(deaf_to=("note:2",))) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        session = await stand.legacy()
        assert (await session.ask(SUBSCRIBE, {"uri": "u+note:2"})).error == -31502
        assert (await session.ask(SUBSCRIBE, {"uri": "u+note:1"})).json["result"] == {}
        assert stand.house.subscriptions.holds(session.id, ("u", "note:1"))
        assert not stand.house.subscriptions.holds(session.id, ("u", "note:2"))


@pytest.mark.rule("SUB-13")
async def test_a_flood_of_subscriptions_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callgate.gateway.subscribing.MOST", 3)
    monkeypatch.setattr("callgate.gateway.subscribing.MOST_OF_ONE", 5)
    identity = {"keys": keys("ann", "bob")}
    async with serve(Teller()) as server, Stand(tmp_path, {"u": http(server)}, identity=identity) as stand:
        one, two, other = await stand.legacy("ann"), await stand.legacy("ann"), await stand.legacy("bob")

        async def subscribed(session: Any) -> list[int | None]:
            return [(await session.ask(SUBSCRIBE, {"uri": f"u+note:{n}"})).error for n in range(4)]

        assert await subscribed(one) == [None, None, None, -31429]
        assert await subscribed(two) == [None, None, -31429, -31429]
        assert await subscribed(other) == [None, None, None, -31429]
        await one.end()
        assert (await two.ask(SUBSCRIBE, {"uri": "u+note:9"})).error is None
        for session in (two, other):
            await session.end()
        await until(lambda: len(stand.house.bus) == 0)
        assert stand.house.subscriptions._of == {}


async def test_a_server_under_other_settings_is_asked_again(tmp_path: Path) -> None:
    async with serve(Teller()) as old, serve(Teller()) as new, Stand(tmp_path, {"u": http(old)}) as stand:
        behaviour: Any = new.handler
        session = await stand.legacy()
        stream = await session.listen()
        assert (await session.ask(SUBSCRIBE, {"uri": "u+note:1"})).error is None
        await stand.reload(servers={"u": http(new)})
        await until(lambda: behaviour.wanted == ["note:1"])
        told = await stream.event()
        while told["method"] != UPDATED:  # lists that changed
            told = await stream.event()
        assert told == updated("u+note:1")
        await stream.close()


@pytest.mark.rule("SUB-11")
async def test_a_session_that_a_legacy_server_lost_is_subscribed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callgate.upstream.watching.LOOK", 0.02)
    async with serve(OldTeller()) as server, Stand(tmp_path, {"u": http(server, "legacy")}) as stand:
        behaviour: Any = server.handler
        session = await stand.legacy()
        stream = await session.listen()
        assert (await session.ask(SUBSCRIBE, {"uri": "u+note:1"})).error is None
        (owner,) = stand.house.upstreams._servers["u"].ways.isolation._pools
        stand.house.upstreams._servers["u"].ways.isolation._pools[owner][0].making.result().lost = "gone"
        await until(lambda: len(behaviour.calls) == 2)
        assert await stream.event() == updated("u+note:1")
        await stream.close()


@pytest.mark.parametrize("isolation", ["auto", "shared"])
async def test_a_server_that_has_forgotten_its_session_is_asked_again(tmp_path: Path, isolation: str) -> None:
    config = {"isolation": isolation}
    async with serve(OldTeller()) as server, Stand(tmp_path, {"u": http(server, "legacy", **config)}) as stand:
        behaviour: Any = server.handler
        session = await stand.legacy()
        stream = await session.listen()
        assert (await session.ask(SUBSCRIBE, {"uri": "u+note:1"})).error is None
        first = behaviour.calls[0][1]
        behaviour.sessions[:] = [f"gone{n}" for n in range(len(behaviour.sessions))]
        assert (await session.call("u__echo")).error is None
        await until(lambda: len(behaviour.calls) == 2)
        assert behaviour.calls[1][1] not in (first, "")
        assert await stream.event() == updated("u+note:1")
        await stream.close()

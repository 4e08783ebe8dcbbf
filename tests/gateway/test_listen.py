"""``subscriptions/listen``: what a modern client asked to hear about, and nothing else."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.messages import PREFIX, modern
from tests.gateway.stand import Stand, Wire, allow, deny, keys, refused, until
from tests.gateway.tellers import ACKNOWLEDGED, SUBSCRIPTION, UPDATED, OldTeller, Teller, serve
from tests.gateway.upstreams import Modern, http, tool
from tests.identity.provider import ec_key, public, sign
from tests.servers.mcp_http import note, result_of
from tests.servers.raw_http import Peer

pytestmark = pytest.mark.anyio

TOOLS_CHANGED = "notifications/tools/list_changed"


class Heard:
    """An open listen. ``next`` gives method and params of what comes, the subscription's id checked and taken off."""

    def __init__(self, wire: Wire, id: object) -> None:
        self.wire = wire
        self.id = id

    async def next(self) -> tuple[str, dict[str, Any]]:
        message = await self.wire.event()
        assert "id" not in message
        found = message["params"]["_meta"].pop(SUBSCRIPTION)
        assert (type(found), found) == (type(self.id), self.id)
        if not message["params"]["_meta"]:
            del message["params"]["_meta"]
        return message["method"], message["params"]

    async def end(self) -> None:
        """It ends with its result, and nothing before it."""
        message = await self.wire.event()
        meta = {"resultType": "complete", "_meta": {SUBSCRIPTION: self.id}}
        assert message == {"jsonrpc": "2.0", "id": self.id, "result": meta}
        assert await self.wire.chunk() == b""

    async def close(self) -> None:
        await self.wire.close()


async def listen(stand: Stand, id: object = 1, who: str | None = None, path: str = "/mcp", **wanted: Any) -> Heard:
    wire = await stand.connect()
    wire.send(stand.request(modern("subscriptions/listen", {"notifications": wanted}, id), who=who, path=path))
    status, headers = await wire.head()
    assert (status, headers["content-type"], headers["x-accel-buffering"]) == (200, "text/event-stream", "no")
    return Heard(wire, id)


async def opened(stand: Stand, id: object = 1, **more: Any) -> tuple[Heard, Any]:
    """The stream, and what was acknowledged."""
    heard = await listen(stand, id, **more)
    method, params = await heard.next()
    assert method == ACKNOWLEDGED
    return heard, params["notifications"]


@pytest.mark.rule("SUB-1", "SUB-2", "SUB-3", "SUB-9")
@pytest.mark.parametrize("id", [7, "seven", "7", 0])
async def test_what_was_asked_for_is_acknowledged_and_told_with_the_id(tmp_path: Path, id: object) -> None:
    async with serve(Teller()) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        behaviour: Any = server.handler
        heard, honoured = await opened(stand, id, toolsListChanged=True, promptsListChanged=False, other=True)
        assert honoured == {"toolsListChanged": True}
        behaviour.tell("notifications/prompts/list_changed")  # nobody asked for it
        behaviour.tools = [tool("new")]
        behaviour.tell(TOOLS_CHANGED)
        assert await heard.next() == (TOOLS_CHANGED, {})
        assert await stand.tools() == ["u__new"]  # the new list is in place when it is told
        await heard.close()


class Talkative(OldTeller):
    """Says something before it answers a subscription."""

    async def _resource(self, message: dict[str, Any], peer: Peer, session: str) -> bool:
        if message.get("method") != "resources/subscribe":
            return await super()._resource(message, peer, session)
        peer.sse_head()
        peer.event(note("notifications/message", level="error", data="nobody asked"))
        peer.event(result_of(message["id"], {}))
        peer.chunk(b"")
        return True


@pytest.mark.rule("SUB-1", "SUB-3")
async def test_nothing_precedes_the_acknowledgement(tmp_path: Path) -> None:
    async with serve(Talkative()) as server, Stand(tmp_path, {"u": http(server, "legacy")}) as stand:
        message = modern("subscriptions/listen", {"notifications": {"resourceSubscriptions": ["u+note:1"]}})
        message["params"]["_meta"][PREFIX + "logLevel"] = "debug"
        async with await stand.connect() as wire:
            wire.send(stand.request(message))
            await wire.head()
            method, params = await Heard(wire, 1).next()
            assert (method, params["notifications"]) == (ACKNOWLEDGED, {"resourceSubscriptions": ["u+note:1"]})


@pytest.mark.rule("SUB-7", "SUB-8", "SUB-10", "SUB-9")
async def test_resources_are_told_of_to_whoever_subscribed_in_the_words_of_the_door(tmp_path: Path) -> None:
    async with serve(Teller(deaf_to=("note:2",))) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        behaviour: Any = server.handler
        uris = ["u+note:1", "u+note:2", "u+note:unlisted", "note:1", "x+note:1"]
        one, honoured = await opened(stand, "one", resourceSubscriptions=uris)
        assert honoured == {"resourceSubscriptions": ["u+note:1", "u+note:unlisted"]}
        two, honoured = await opened(stand, 2, path="/servers/u/mcp", resourceSubscriptions=["note:1"])
        assert honoured == {"resourceSubscriptions": ["note:1"]}
        three, _ = await opened(stand, 3, resourceSubscriptions=["u+note:unlisted"])
        assert behaviour.wanted == ["note:1", "note:unlisted"]
        assert len(behaviour.now) == 1  # one stream for everybody
        behaviour.tell(UPDATED, uri="note:1", more={"kept": None})
        assert await one.next() == (UPDATED, {"uri": "u+note:1", "more": {"kept": None}})
        assert await two.next() == (UPDATED, {"uri": "note:1", "more": {"kept": None}})
        behaviour.tell(UPDATED, uri="note:unlisted")
        assert await three.next() == (UPDATED, {"uri": "u+note:unlisted"})  # and never note:1
        for each in (one, two, three):
            await each.close()
        await until(lambda: behaviour.wanted == [])
        records = [(each["method"], each["tool"], each["outcome"]) for each in await stand.records(7)]
        assert ("resources/subscribe", "resource:note:1", "ok") in records


@pytest.mark.rule("SUB-8")
async def test_what_policy_denies_is_neither_acknowledged_nor_told(tmp_path: Path) -> None:
    policy = {"rules": [deny("u/resource:note:secret", id="no"), allow("u/*")]}
    identity = {"keys": keys("ann")}
    async with (
        serve(Teller()) as server,
        Stand(tmp_path, {"u": http(server)}, policy=policy, identity=identity) as stand,
    ):
        behaviour: Any = server.handler
        uris = ["u+note:secret", "u+note:1", "u+note:2"]
        heard, honoured = await opened(stand, who="ann", resourceSubscriptions=uris)
        assert honoured == {"resourceSubscriptions": ["u+note:1", "u+note:2"]}
        assert behaviour.wanted == ["note:1", "note:2"]
        behaviour.tell(UPDATED, uri="note:secret")  # though nobody asked
        await stand.reload(policy={"rules": [deny("u/resource:note:2", id="no"), allow("u/*")]})
        behaviour.tell(UPDATED, uri="note:2")  # it may hear of it no longer
        behaviour.tell(UPDATED, uri="note:1")
        assert await heard.next() == (UPDATED, {"uri": "u+note:1"})
        await heard.close()
        outcomes = {each["tool"]: each["outcome"] for each in await stand.records(3)}
        assert outcomes["resource:note:secret"] == "denied"


async def test_a_server_that_is_hidden_is_as_unknown_as_one_that_does_not_exist(tmp_path: Path) -> None:
    policy = {"rules": [allow("v/*")]}
    async with (
        serve(Teller()) as server,
        serve(Teller()) as hidden,
        Stand(tmp_path, {"v": http(server), "hidden": http(hidden)}, policy=policy) as stand,
    ):
        behaviour: Any = hidden.handler
        uris = ["hidden+note:1", "nothing+note:1", "v+note:1"]
        heard, honoured = await opened(stand, resourceSubscriptions=uris)
        assert honoured == {"resourceSubscriptions": ["v+note:1"]}
        assert behaviour.wanted == []
        await heard.close()


@pytest.mark.rule("SUB-4")
async def test_the_end_is_a_result(tmp_path: Path) -> None:
    identity = {"keys": keys("ann"), "anonymous": True}
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}, identity=identity) as stand:
        before, _ = await opened(stand, "x", who="ann", toolsListChanged=True)
        await stand.reload(identity={"keys": keys("bob"), "anonymous": True})
        await before.end()
        refused(await stand.modern("tools/list", who="ann"), 401)
        stream, _ = await opened(stand, 5, toolsListChanged=True)
        closing = asyncio.create_task(stand.gateway.aclose())
        await stream.end()
        await closing
        await before.close()
        await stream.close()


async def test_a_door_that_is_gone_ends_its_streams(tmp_path: Path) -> None:
    doors = {"v": {"tools": ["u/*"]}}
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}, virtual_servers=doors) as stand:
        stream, _ = await opened(stand, 5, path="/mcp/v", toolsListChanged=True)
        await stand.reload(virtual_servers={})
        await stream.end()
        await stream.close()


async def test_another_policy_counts_as_a_change(tmp_path: Path) -> None:
    async with serve(Teller()) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        stream, honoured = await opened(
            stand, toolsListChanged=True, promptsListChanged=True, resourcesListChanged=True
        )
        assert list(honoured.values()) == [True, True, True]
        await stand.reload(policy={"rules": [allow("u/echo")]})
        assert {(await stream.next())[0] for _ in range(3)} == {
            f"notifications/{kind}/list_changed" for kind in ("tools", "prompts", "resources")
        }
        await stream.close()


@pytest.mark.rule("SUB-13")
@pytest.mark.key("limits.max_streams")
async def test_streams_are_bounded_and_leave_nothing(tmp_path: Path) -> None:
    async with serve(Teller()) as server, Stand(tmp_path, {"u": http(server)}, limits={"max_streams": 3}) as stand:
        behaviour: Any = server.handler
        for _ in range(20):
            streams = [
                (await opened(stand, toolsListChanged=True, resourceSubscriptions=["u+note:1"]))[0] for _ in range(3)
            ]
            reply = await stand.modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
            refused(reply, 200, -31429)
            for each in streams:
                await each.close()
            await until(lambda: not len(stand.house.streams))
        assert len(stand.house.bus) == 0
        await until(lambda: behaviour.wanted == [])


@pytest.mark.rule("SUB-13")
async def test_two_hundred_streams_that_are_dropped_leave_nothing(tmp_path: Path) -> None:
    limits = {"max_streams": 200}
    async with serve(Teller()) as server, Stand(tmp_path, {"u": http(server)}, limits=limits) as stand:
        tasks = len(asyncio.all_tasks())
        streams = [
            await opened(stand, n, toolsListChanged=True, resourceSubscriptions=["u+note:1"]) for n in range(200)
        ]
        assert len(stand.house.streams) == 200
        for heard, _ in streams:
            heard.wire.writer.transport.abort()
        await until(lambda: len(stand.house.streams) == 0 == len(stand.house.bus))
        assert stand.house.subscriptions._of == {}
        await until(lambda: not stand.house.upstreams._servers["u"].watching._watches)
        await until(lambda: len(asyncio.all_tasks()) <= tasks)


@pytest.mark.parametrize(
    "params",
    [
        {}, {"notifications": None}, {"notifications": []}, {"notifications": {"toolsListChanged": "yes"}},
        {"notifications": {"resourceSubscriptions": "note:1"}}, {"notifications": {"resourceSubscriptions": [1]}},
        {"notifications": {"resourceSubscriptions": ["x"] * 1001}}, {"notifications": {"taskIds": {}}},
    ],
)  # fmt: skip
async def test_a_filter_that_is_none_is_refused(tmp_path: Path, params: dict[str, Any]) -> None:
    async with Stand(tmp_path) as stand:
        refused(await stand.modern("subscriptions/listen", params), 400, -32602)


async def test_a_client_that_reads_no_streams_is_told(tmp_path: Path) -> None:
    async with Stand(tmp_path) as stand:
        message = modern("subscriptions/listen", {"notifications": {}})
        raw = stand.request(message).replace(b"application/json, text/event-stream", b"application/json")
        assert (await stand.ask(raw)).status == 406


async def test_sessions_have_no_listen_and_modern_clients_no_subscribe(tmp_path: Path) -> None:
    async with serve(Teller()) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        session = await stand.legacy()
        assert (await session.ask("subscriptions/listen", {"notifications": {}})).error == -32601
        for method in ("resources/subscribe", "resources/unsubscribe"):
            refused(await stand.modern(method, {"uri": "u+note:1"}), 404, -32601)


@pytest.mark.rule("SUB-12")
@pytest.mark.parametrize("stateless", [True, False])
async def test_a_legacy_server_is_subscribed_for_a_modern_client(tmp_path: Path, stateless: bool) -> None:
    async with (
        serve(OldTeller(stateless=stateless)) as server,
        Stand(tmp_path, {"u": http(server, "legacy")}) as stand,
    ):
        behaviour: Any = server.handler
        uris = ["u+note:1", "u+note:none"]
        heard, honoured = await opened(stand, resourceSubscriptions=uris)
        assert honoured == {"resourceSubscriptions": ["u+note:1"]}
        second, _ = await opened(stand, 2, resourceSubscriptions=uris[:1])
        session = next(session for what, session, uri in behaviour.calls if uri == "note:1")
        await until(lambda: session in behaviour.own)
        behaviour.tell(session, UPDATED, uri="note:1")
        assert await heard.next() == (UPDATED, {"uri": "u+note:1"})
        assert await second.next() == (UPDATED, {"uri": "u+note:1"})
        await heard.close()
        await until(lambda: len(stand.house.streams) == 1)
        assert not [what for what, *_ in behaviour.calls if what == "unsubscribe"]
        await second.close()
        await until(lambda: ("unsubscribe", session, "note:1") in behaviour.calls)


@pytest.mark.rule("RS-9")
async def test_an_expired_credential_ends_the_stream(tmp_path: Path) -> None:
    key = ec_key("k")
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [public(key)]}))
    issuer = {"issuer": "https://idp.test", "audience": "callgate", "jwks_file": "keys.json", "leeway": 0.2}
    now = int(time.time())
    claims = {"iss": "https://idp.test", "aud": "callgate", "sub": "ann", "iat": now, "exp": now + 2}
    token = sign(key, {"alg": "ES256", "kid": "k"}, claims)
    async with Stand(tmp_path, {"x": {"command": "true"}}, identity={"jwt": [issuer]}) as stand:
        wire = await stand.connect()
        message = modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, "e")
        wire.send(stand.request(message, ("Authorization", f"Bearer {token}")))
        assert (await wire.head())[0] == 200
        heard = Heard(wire, "e")
        assert (await heard.next())[0] == ACKNOWLEDGED
        await heard.end()
        await heard.close()


@pytest.mark.rule("SUB-13")
async def test_who_does_not_read_holds_no_more_than_was_asked_for(tmp_path: Path) -> None:
    async with serve(Teller()) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        behaviour: Any = server.handler
        wire = await stand.connect(limit=1024)
        wanted = {"resourceSubscriptions": ["u+note:1", "u+note:2"]}
        wire.send(stand.request(modern("subscriptions/listen", {"notifications": wanted}, 1)))
        await until(lambda: behaviour.wanted == ["note:1", "note:2"])
        [[stream]] = stand.house.streams._open.values()
        wire.reader._transport.pause_reading()  # type: ignore[attr-defined]
        stuck = 0
        async with asyncio.timeout(20):
            while stuck < 10:  # until nothing more fits into the pipes
                behaviour.tell(UPDATED, uri="note:1", text="x" * 500_000)
                await asyncio.sleep(0.01)
                stuck = stuck + 1 if len(stream._mail) else 0
                assert len(stream._mail) <= 1
        for uri in ("note:1", "note:2"):
            behaviour.tell(UPDATED, uri=uri, text="the last one")
        await until(lambda: len(stream._mail) == 2)
        wire.reader._transport.resume_reading()  # type: ignore[attr-defined]
        assert (await wire.head())[0] == 200
        heard = Heard(wire, 1)
        last: dict[str, Any] = {}
        while last.get("uri") != "u+note:2":
            last = (await heard.next())[1]
        await heard.close()

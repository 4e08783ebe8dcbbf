"""Questions of legacy servers to modern clients: the call waits at the server while the client answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.askers import (
    ALL,
    FORM,
    NAME,
    ROOTS,
    Client,
    LegacyAsker,
    Talk,
    asked,
    asking,
    asks,
    elicit,
    said,
    sample,
    state,
)  # fmt: skip
from tests.gateway.stand import Stand, keys, refused, until
from tests.gateway.upstreams import http, serve, text
from tests.servers.raw_http import Peer, RawServer

pytestmark = pytest.mark.anyio

DECLINED: dict[str, Any] = {"action": "decline"}
DOORS = {"v": {"tools": ["u/*"]}}
URL = {"mode": "url", "url": "https://example.org/x", "elicitationId": "e1", "message": "Look"}


def legacy(server: RawServer, **more: Any) -> dict[str, Any]:
    return {"u": http(server, "legacy", **more)}


@pytest.mark.rule("PARK-1", "PARK-7")
@pytest.mark.parametrize(("path", "name"), [("/mcp", "u__ask"), ("/mcp/v", "u__ask"), ("/servers/u/mcp", "ask")])
async def test_a_question_in_the_middle_of_a_call(tmp_path: Path, path: str, name: str) -> None:
    asker = LegacyAsker(ask=asking(elicit(), 3))
    async with serve(asker) as server, Stand(tmp_path, legacy(server), virtual_servers=DOORS) as stand:
        client = Client(stand, {"elicitation": {}}, path=path)
        reply = await client.call(name, {"a": 1})
        for number in (1, 2, 3):
            assert asked(reply) == {f"r{number}": elicit()}
            reply = await client.back(reply, name, {f"r{number}": NAME if number < 3 else DECLINED}, {"a": 1})
        assert said(reply) == [NAME, NAME, DECLINED]
        assert reply.json["result"]["resultType"] == "complete"
        assert len(stand.house.parking) == 0
        records = await stand.records(4)
    assert [each["reason"] for each in records[:3]] == ["the server asks the client"] * 3
    assert {(each["outcome"], each["server"], each["tool"]) for each in records} == {("ok", "u", "ask")}
    assert len(asker.calls) == 1
    assert asker.declared[-1] == {"elicitation": {"form": {}}}


QUESTIONS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "form": (elicit(mode="form", task={"ttl": 1}), elicit(mode="form"), NAME),
    "url": (
        {"method": "elicitation/create", "params": URL},
        {"method": "elicitation/create", "params": {k: v for k, v in URL.items() if k != "elicitationId"}},
        {"action": "accept"},
    ),
    "sampling": (sample(), sample(), {"role": "assistant", "content": {"type": "text", "text": "hi"}, "model": "m"}),
    "sampling with tools": (
        sample(tools=[{"name": "t", "inputSchema": {}}], toolChoice={"mode": "auto"}),
        sample(tools=[{"name": "t", "inputSchema": {}}], toolChoice={"mode": "auto"}),
        {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "t", "input": {}}], "model": "m"},
    ),
    "roots": (ROOTS, ROOTS, {"roots": [{"uri": "file:///home", "odd": None}]}),
}


@pytest.mark.parametrize(("question", "shown", "answer"), QUESTIONS.values(), ids=QUESTIONS)
async def test_all_kinds_of_questions(
    tmp_path: Path, question: dict[str, Any], shown: dict[str, Any], answer: dict[str, Any]
) -> None:
    async with serve(LegacyAsker(ask=asking(question))) as server, Stand(tmp_path, legacy(server)) as stand:
        client = Client(stand)
        first = await client.call("u__ask")
        assert asked(first) == {"r1": shown}
        assert said(await client.back(first, "u__ask", {"r1": answer})) == [answer]


async def test_prompts_and_resources_may_ask(tmp_path: Path) -> None:
    def then(result: Any) -> Talk:
        async def talk(server: LegacyAsker, message: dict[str, Any], peer: Peer) -> Any:
            heard = await server.ask(peer, ROOTS)
            return {**result, "_meta": {"heard": heard["result"]}}

        return talk

    talks = {"review": then({"messages": []}), "file:///pub/a.txt": then({"contents": []})}
    async with serve(LegacyAsker(**talks)) as server, Stand(tmp_path, legacy(server)) as stand:
        for method, name in (("prompts/get", "review"), ("resources/read", "file:///pub/a.txt")):
            client = Client(stand, path="/servers/u/mcp", method=method)
            first = await client.call(name)
            assert asked(first) == {"r1": ROOTS}
            last = (await client.back(first, name, {"r1": {"roots": []}})).json["result"]
            assert (last["resultType"], last["_meta"]) == ("complete", {"heard": {"roots": []}})


async def two(server: LegacyAsker, message: dict[str, Any], peer: Peer) -> Any:
    """Asks two questions at once."""
    heard = await asyncio.gather(server.ask(peer, elicit(message="one")), server.ask(peer, elicit(message="two")))
    return text(str([each["result"]["content"]["name"] for each in heard]))


def named(name: str) -> dict[str, Any]:
    return {"action": "accept", "content": {"name": name}}


@pytest.mark.rule("PARK-6", "MRTR-4", "MRTR-9")
async def test_questions_that_come_together_go_together_and_what_is_not_answered_is_asked_again(tmp_path: Path) -> None:
    async with serve(LegacyAsker(ask=two)) as server, Stand(tmp_path, legacy(server)) as stand:
        client = Client(stand)
        reply = await client.call("u__ask")
        assert asked(reply) == {"r1": elicit(message="one"), "r2": elicit(message="two")}
        reply = await client.back(reply, "u__ask", {"r2": named("B"), "r9": named("X"), "": {}})
        assert asked(reply) == {"r1": elicit(message="one")}
        reply = await client.back(reply, "u__ask", {})
        assert asked(reply) == {"r1": elicit(message="one")}
        reply = await client.call("u__ask", requestState=state(reply))
        assert asked(reply) == {"r1": elicit(message="one")}
        reply = await client.back(reply, "u__ask", {"r1": named("A"), "r2": named("too late")})
        assert reply.json["result"]["content"][0]["text"] == "['A', 'B']"


@pytest.mark.rule("PARK-7", "MRTR-3")
@pytest.mark.parametrize(
    ("capabilities", "question"),
    [
        ({"elicitation": {}}, {"method": "elicitation/create", "params": URL}),
        ({"elicitation": {"url": {}}}, elicit()),
        ({"elicitation": {}}, ROOTS),
        ({"sampling": {}}, sample(tools=[])),
        ({"roots": {}}, {"method": "tools/call", "params": {"name": "x"}}),
        ({}, elicit()),
    ],
)
async def test_nobody_is_asked_what_they_did_not_declare(
    tmp_path: Path, capabilities: dict[str, Any], question: dict[str, Any]
) -> None:
    async with serve(LegacyAsker(ask=asking(question))) as server, Stand(tmp_path, legacy(server)) as stand:
        [error] = said(await Client(stand, capabilities).call("u__ask"))
        assert error["code"] == -32601


@pytest.mark.rule("MRTR-3")
async def test_a_client_that_comes_back_and_declares_less_is_not_asked_the_rest(tmp_path: Path) -> None:
    async def talk(server: LegacyAsker, message: dict[str, Any], peer: Peer) -> Any:
        first, second = await server.ask(peer, elicit()), await server.ask(peer, ROOTS)
        return text(str((first["result"]["action"], second["error"]["code"])))

    async with serve(LegacyAsker(ask=talk)) as server, Stand(tmp_path, legacy(server)) as stand:
        first = await Client(stand).call("u__ask")
        last = await Client(stand, {"elicitation": {}}).back(first, "u__ask", {"r1": NAME})
        assert last.json["result"]["content"][0]["text"] == "('accept', -32601)"


# What clients may try.


@pytest.mark.rule("PARK-3", "MRTR-7")
async def test_a_handle_works_once(tmp_path: Path) -> None:
    asker = LegacyAsker(ask=asking(elicit()))
    async with serve(asker) as server, Stand(tmp_path, legacy(server)) as stand:
        client = Client(stand)
        first = await client.call("u__ask")
        assert said(await client.back(first, "u__ask", {"r1": NAME})) == [NAME]
        for _ in range(2):
            reply = refused(await client.back(first, "u__ask", {"r1": NAME}), 400, -32602)
            assert "not run again" in reply.json["error"]["message"]
        assert len(asker.calls) == 1


@pytest.mark.rule("PARK-3")
async def test_of_two_clients_with_one_handle_one_is_served(tmp_path: Path) -> None:
    asker = LegacyAsker(ask=asking(elicit(), 2))
    async with serve(asker) as server, Stand(tmp_path, legacy(server)) as stand:
        client = Client(stand)
        first = await client.call("u__ask")
        replies = await asyncio.gather(*[client.back(first, "u__ask", {"r1": named(str(n))}) for n in range(5)])
        assert sorted(reply.status for reply in replies) == [200, 400, 400, 400, 400]
        [second] = [reply for reply in replies if reply.status == 200]
        assert len(said(await client.back(second, "u__ask", {"r2": NAME}))) == 2
        assert len(asker.calls) == 1


@pytest.mark.rule("PARK-1", "MRTR-5", "MRTR-6")
async def test_nobody_else_can_answer_and_the_call_is_not_disturbed(tmp_path: Path) -> None:
    asker = LegacyAsker(ask=asking(elicit()), other=asking(elicit()))
    identity = {"keys": keys("alice", "mallory")}
    more: dict[str, Any] = {"identity": identity, "virtual_servers": DOORS}
    async with serve(asker) as server, Stand(tmp_path, legacy(server), **more) as stand:
        alice = Client(stand, who="alice")
        first = await alice.call("u__ask", {"a": 1})
        other = await alice.call("u__other", {"a": 1})
        sealed = state(first)
        shapes: list[Any] = [None, [], "r1", {"r1": None}, {"r1": [NAME]}]
        attacks = [
            Client(stand, who="mallory").back(first, "u__ask", {"r1": NAME}, {"a": 1}),
            Client(stand, who="alice", path="/mcp/v").back(first, "u__ask", {"r1": NAME}, {"a": 1}),
            alice.back(other, "u__ask", {"r1": NAME}, {"a": 1}),
            alice.back(first, "u__ask", {"r1": NAME}, {"a": "1"}),
            alice.call(
                "u__ask", {"a": 1}, requestState=sealed[:40] + ("A" if sealed[40] != "A" else "B") + sealed[41:]
            ),
            *[alice.back(first, "u__ask", shape, {"a": 1}) for shape in shapes],
        ]
        for attack in attacks:
            refused(await attack, 400, -32602)
        assert len(stand.house.parking) == 2
        assert said(await alice.back(first, "u__ask", {"r1": NAME}, {"a": 1})) == [NAME]
        assert said(await alice.back(other, "u__other", {"r1": NAME}, {"a": 1})) == [NAME]
    assert len(asker.calls) == 2


@pytest.mark.rule("PARK-1")
async def test_many_calls_at_once_are_not_mixed_up(tmp_path: Path) -> None:
    asker = LegacyAsker(ask=asking(elicit(), 3))
    people = [f"p{number}" for number in range(4)]
    async with (
        serve(asker) as server,
        Stand(tmp_path, legacy(server), identity={"keys": keys(*people)}) as stand,
    ):

        async def whole(who: str, call: int) -> None:
            client, mine = Client(stand, who=who), {"of": [who, call]}
            reply = await client.call("u__ask", mine)
            for number in (1, 2, 3):
                assert list(asked(reply)) == [f"r{number}"]
                reply = await client.back(reply, "u__ask", {f"r{number}": {"said": [who, call, number]}}, mine)
            assert said(reply) == [{"said": [who, call, number]} for number in (1, 2, 3)]

        await asyncio.gather(*[whole(who, call) for who in people for call in range(8)])
        assert len(stand.house.parking) == 0
        assert not stand.house.parking._places and not stand.house.parking._taken
    assert len(asker.calls) == 32


@pytest.mark.rule("PARK-4")
@pytest.mark.key("limits.parked_ttl")
async def test_who_does_not_come_back_has_given_the_call_up(tmp_path: Path) -> None:
    asker = LegacyAsker(ask=asking(elicit()))
    limits = {"parked_ttl": 0.05}
    async with serve(asker) as server, Stand(tmp_path, legacy(server), limits=limits) as stand:
        client = Client(stand)
        first = await client.call("u__ask")
        await until(lambda: asker.cancelled)
        reply = refused(await client.back(first, "u__ask", {"r1": NAME}), 400, -32602)
        assert "not run again" in reply.json["error"]["message"]
        assert len(stand.house.parking) == 0
        await until(lambda: stand.house.statuses()[0].in_flight == 0)
    assert len(asker.calls) == 1


@pytest.mark.rule("PARK-2", "PARK-5")
async def test_a_call_that_a_restart_has_lost_is_not_run_again(tmp_path: Path) -> None:
    asker = LegacyAsker(ask=asking(elicit()))
    async with serve(asker) as server:
        stand = Stand(tmp_path, legacy(server))
        async with stand:
            first = await Client(stand).call("u__ask")
        async with stand:
            reply = refused(await Client(stand).back(first, "u__ask", {"r1": NAME}), 400, -32602)
    assert "lost when callgate restarted. It was not run again" in reply.json["error"]["message"]
    assert len(asker.calls) == 1
    assert len(asker.cancelled) == 1  # the old process said so when it stopped


@pytest.mark.rule("PARK-5")
async def test_a_call_that_the_server_has_lost_is_not_run_again(tmp_path: Path) -> None:
    asker = LegacyAsker(ask=asking(elicit()))
    async with serve(asker) as server, Stand(tmp_path, legacy(server)) as stand:
        first = await Client(stand).call("u__ask")
        await server.stop()
        reply = await Client(stand).back(first, "u__ask", {"r1": NAME})
        assert reply.error in (-31502, -31503)
        assert len(stand.house.parking) == 0
    assert len(asker.calls) == 1


@pytest.mark.rule("PARK-5")
async def test_a_call_whose_server_is_configured_anew_is_not_run_again(tmp_path: Path) -> None:
    asker = LegacyAsker(ask=asking(elicit()))
    async with serve(asker) as server, Stand(tmp_path, legacy(server)) as stand:
        first = await Client(stand).call("u__ask")
        await stand.reload(servers=legacy(server, max_queue=7))
        await stand.house.warmed(5)
        reply = refused(await Client(stand).back(first, "u__ask", {"r1": NAME}), 400, -32602)
        assert "configuration of the server has changed" in reply.json["error"]["message"]
    assert len(asker.calls) == 1


@pytest.mark.rule("HTTP-14")
async def test_a_client_that_leaves_while_the_server_works_gives_up_the_call_and_one_that_thinks_does_not(
    tmp_path: Path,
) -> None:
    async def talk(server: LegacyAsker, message: dict[str, Any], peer: Peer) -> Any:
        await server.ask(peer, elicit())
        await asyncio.Event().wait()

    asker = LegacyAsker(ask=talk)
    async with serve(asker) as server, Stand(tmp_path, legacy(server)) as stand:
        client = Client(stand)
        first = await client.call("u__ask")  # its connection is closed by now
        assert not asker.cancelled
        async with await stand.connect() as wire:
            wire.send(client.request(client.message("u__ask", inputResponses={"r1": NAME}, requestState=state(first))))
            await until(lambda: asker.responses)
        await until(lambda: asker.cancelled)
        await until(lambda: not stand.house.parking._running)
        records = await stand.records(2)
    assert [each["outcome"] for each in records] == ["ok", "cancelled"]


# Bounds.


@pytest.mark.rule("PARK-8")
@pytest.mark.key("limits.max_parked")
@pytest.mark.parametrize("most", [1, 2])
async def test_a_principal_has_so_many_places(tmp_path: Path, most: int) -> None:
    asker = LegacyAsker(ask=asking(elicit(), 2))
    more: dict[str, Any] = {"identity": {"keys": keys("alice", "bob")}, "limits": {"max_parked": most}}
    async with serve(asker) as server, Stand(tmp_path, legacy(server), **more) as stand:
        alice = Client(stand, who="alice")
        first = await alice.call("u__ask")
        second = await alice.call("u__ask")
        assert second.error == (-31429 if most == 1 else None)
        await until(lambda: len(asker.cancelled) == 2 - most)
        asked(await Client(stand, who="bob").call("u__ask"))
        first = await alice.back(first, "u__ask", {"r1": NAME})  # which has its place already
        assert said(await alice.back(first, "u__ask", {"r2": NAME})) == [NAME, NAME]
        asked(await alice.call("u__ask"))


@pytest.mark.rule("PARK-8")
async def test_all_together_have_so_many_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callgate.gateway.parking.MOST", 1)
    asker = LegacyAsker(ask=asking(elicit()))
    identity = {"keys": keys("alice", "bob")}
    async with serve(asker) as server, Stand(tmp_path, legacy(server), identity=identity) as stand:
        first = await Client(stand, who="alice").call("u__ask")
        assert (await Client(stand, who="bob").call("u__ask")).error == -31429
        assert said(await Client(stand, who="alice").back(first, "u__ask", {"r1": NAME})) == [NAME]
        asked(await Client(stand, who="bob").call("u__ask"))


async def test_a_parked_call_takes_no_place_among_the_calls_in_flight(tmp_path: Path) -> None:
    asker = LegacyAsker(ask=asking(elicit()), plain=asking(ROOTS, 0))
    limits = {"max_calls": 1}
    async with serve(asker) as server, Stand(tmp_path, legacy(server, max_concurrency=1), limits=limits) as stand:
        client = Client(stand)
        first = await client.call("u__ask")
        assert said(await client.call("u__plain")) == []
        assert said(await client.back(first, "u__ask", {"r1": NAME})) == [NAME]


# What servers may do meanwhile.


@pytest.mark.rule("PARK-6")
async def test_an_answer_to_a_question_that_nobody_has_seen_yet_is_none(tmp_path: Path) -> None:
    async with serve(LegacyAsker(ask=asking(elicit(), 2))) as server, Stand(tmp_path, legacy(server)) as stand:
        client = Client(stand)
        first = await client.call("u__ask")
        second = await client.back(first, "u__ask", {"r1": NAME, "r2": DECLINED})
        assert asked(second) == {"r2": elicit()}
        assert said(await client.back(second, "u__ask", {"r2": NAME})) == [NAME, NAME]


@pytest.mark.rule("PARK-6")
async def test_a_question_that_came_while_the_client_thought_is_shown_before_it_is_answered(tmp_path: Path) -> None:
    async def talk(server: LegacyAsker, message: dict[str, Any], peer: Peer) -> Any:
        one = asyncio.create_task(server.ask(peer, elicit()))
        await thinks.wait()
        two = asyncio.create_task(server.ask(peer, elicit()))
        return text(json.dumps([(await one)["result"], (await two)["result"]]))

    thinks = asyncio.Event()
    async with serve(LegacyAsker(ask=talk)) as server, Stand(tmp_path, legacy(server)) as stand:
        client = Client(stand)
        first = await client.call("u__ask")
        [parked] = stand.house.parking._running
        thinks.set()
        await until(lambda: len(parked.open) == 2)
        second = await client.back(first, "u__ask", {"r1": NAME, "r2": DECLINED})
        assert asked(second) == {"r2": elicit()}
        assert said(await client.back(second, "u__ask", {"r2": NAME})) == [NAME, NAME]


def note(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params}


async def test_notifications_go_to_the_request_that_waits_in_its_own_words(tmp_path: Path) -> None:
    async def talk(server: LegacyAsker, message: dict[str, Any], peer: Peer) -> Any:
        token = message["params"]["_meta"]["progressToken"]
        for step in (1, 2):
            peer.event(note("notifications/progress", progressToken=token, progress=step))
            peer.event(note("notifications/message", level="info", data=step))
            peer.event(note("notifications/message", level="error", data=step))
            await server.ask(peer, elicit())
        return text("done")

    async def leg(stand: Stand, message: dict[str, Any], **meta: Any) -> list[Any]:
        message["params"]["_meta"] |= meta
        async with await stand.connect() as wire:
            wire.send(client.request(message))
            _, headers = await wire.head()
            assert headers["content-type"] == "text/event-stream"
            heard = [await wire.event()]
            while "id" not in heard[-1]:
                heard.append(await wire.event())
            return heard

    level = "io.modelcontextprotocol/logLevel"
    async with serve(LegacyAsker(ask=talk)) as server, Stand(tmp_path, legacy(server)) as stand:
        client = Client(stand)
        first = await leg(stand, client.message("u__ask"), progressToken="one", **{level: "info"})
        assert [each["params"] for each in first[:-1]] == [
            {"progressToken": "one", "progress": 1}, {"level": "info", "data": 1}, {"level": "error", "data": 1},
        ]  # fmt: skip
        back = {"inputResponses": {"r1": NAME}, "requestState": first[-1]["result"]["requestState"]}
        second = await leg(stand, client.message("u__ask", **back), progressToken=2, **{level: "warning"})
        assert [each["params"] for each in second[:-1]] == [
            {"progressToken": 2, "progress": 2}, {"level": "error", "data": 2},
        ]  # fmt: skip
        back = {"inputResponses": {"r2": NAME}, "requestState": second[-1]["result"]["requestState"]}
        last = await client.call("u__ask", **back)
        assert last.json["result"]["content"] == text("done")["content"]


async def test_a_server_that_takes_its_question_back_may_be_done(tmp_path: Path) -> None:
    done = asyncio.Event()

    async def talk(server: LegacyAsker, message: dict[str, Any], peer: Peer) -> Any:
        question = asyncio.ensure_future(server.ask(peer, elicit()))
        await done.wait()
        peer.event(note("notifications/cancelled", requestId="q1"))
        question.cancel()
        return text("done without you")

    async with serve(LegacyAsker(ask=talk)) as server, Stand(tmp_path, legacy(server)) as stand:
        client = Client(stand)
        first = await client.call("u__ask")
        done.set()
        await until(lambda: not stand.house.parking._running)
        last = await client.back(first, "u__ask", {"r1": NAME})
        assert last.json["result"]["content"] == text("done without you")["content"]


def pages(*urls: Mapping[str, Any]) -> Talk:
    """Wants these pages opened, the first time."""

    async def talk(server: LegacyAsker, message: dict[str, Any], peer: Peer) -> Any:
        if len(server.calls) > 1:
            return text("done")
        return {"error": {"code": -32042, "message": "Open the page.", "data": {"elicitations": list(urls)}}}

    return talk


async def test_a_demand_to_open_pages_becomes_a_question_and_the_retry_calls_again(tmp_path: Path) -> None:
    asker = LegacyAsker(ask=pages(URL, URL))
    async with serve(asker) as server, Stand(tmp_path, legacy(server)) as stand:
        client = Client(stand)
        first = await client.call("u__ask")
        shown = {"method": "elicitation/create", "params": {k: v for k, v in URL.items() if k != "elicitationId"}}
        assert asked(first) == {"r1": shown, "r2": shown}
        assert len(stand.house.parking) == 0
        reply = refused(await client.back(first, "u__ask", {"r1": {"action": "accept"}, "r2": DECLINED}), 400, -32602)
        assert "the user declined" in reply.json["error"]["message"]
        opened = {"r1": {"action": "accept"}, "r2": {"action": "accept"}}
        last = await client.back(first, "u__ask", opened)
        assert last.json["result"]["content"] == text("done")["content"]
    assert [call.keys() & {"inputResponses", "requestState"} for call in asker.calls] == [set(), set()]


@pytest.mark.rule("ERR-1")
@pytest.mark.parametrize(
    ("capabilities", "urls"),
    [({"elicitation": {}}, [URL]), ({}, [URL]), (ALL, []), (ALL, ["no page"]), (ALL, [FORM]), (ALL, [URL, {"a": 1}])],
)
async def test_who_opens_no_pages_gets_an_error(tmp_path: Path, capabilities: Any, urls: list[Any]) -> None:
    async with serve(LegacyAsker(ask=pages(*urls))) as server, Stand(tmp_path, legacy(server)) as stand:
        assert (await Client(stand, capabilities).call("u__ask")).error == -32603


async def test_a_client_of_the_servers_own_time_gets_the_demand_as_it_is(tmp_path: Path) -> None:
    async with serve(LegacyAsker(ask=pages(URL))) as server, Stand(tmp_path, legacy(server)) as stand:
        session = await stand.legacy(elicitation={"url": {}})
        reply = await session.call("u__ask")
        message = reply.json
        assert (message["error"]["code"], message["error"]["data"]) == (-32042, {"elicitations": [URL]})


async def test_a_legacy_server_cannot_ask_in_a_result(tmp_path: Path) -> None:
    async def talk(server: LegacyAsker, message: dict[str, Any], peer: Peer) -> Any:
        return asks({"who": elicit(message="SECRET")})

    async with serve(LegacyAsker(ask=talk)) as server, Stand(tmp_path, legacy(server)) as stand:
        for capabilities in (ALL, {}):
            reply = await Client(stand, capabilities).call("u__ask")
            assert reply.error == -31502 and "SECRET" not in reply.body.decode()


async def test_a_legacy_server_is_never_told_of_answers_that_belong_to_no_question(tmp_path: Path) -> None:
    asker = LegacyAsker(ask=asking(ROOTS, 0))
    async with serve(asker) as server, Stand(tmp_path, legacy(server)) as stand:
        assert said(await Client(stand).call("u__ask", inputResponses={"r1": NAME})) == []
        refused(await Client(stand).call("u__ask", requestState="forged"), 400, -32602)
    assert [call.keys() & {"inputResponses", "requestState"} for call in asker.calls] == [set()]

"""Questions of modern servers to modern clients: they pass through, with a state that is bound to who was asked."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from callgate.gateway.rounds import declares, modern_form, needs
from callgate.types import Front, Question
from tests.fuzz.messages import PREFIX, modern
from tests.gateway.askers import (
    ALL,
    FORM,
    NAME,
    ROOTS,
    Client,
    LegacyAsker,
    ModernAsker,
    Play,
    asked,
    asking,
    asks,
    elicit,
    sample,
    state,
)
from tests.gateway.stand import Stand, allow, keys, refused
from tests.gateway.test_seal import call
from tests.gateway.upstreams import http, serve, text
from tests.servers.mcp_http import error_of

pytestmark = pytest.mark.anyio

ODD = 'a state with "quotes", ü, \\ and \n in it'
DOORS = {"v": {"tools": ["u/*"]}}


def once(requests: Any = None, **more: Any) -> Play:
    """Asks, and is content with whatever comes back."""

    def play(params: dict[str, Any]) -> Any:
        if {"inputResponses", "requestState"} & params.keys():
            return text("done")
        return asks({"who": elicit()} if requests is None else requests, **more)

    return play


@pytest.mark.rule("MRTR-2", "MRTR-8", "CACHE-1")
@pytest.mark.parametrize(("path", "name"), [("/mcp", "u__ask"), ("/mcp/v", "u__ask"), ("/servers/u/mcp", "ask")])
async def test_a_question_reaches_the_client_and_the_answer_the_server(tmp_path: Path, path: str, name: str) -> None:
    asker = ModernAsker(ask=once({"who": elicit(), "x": ROOTS}, requestState=ODD, more={"kept": None}, ttlMs=5))
    async with serve(asker) as server, Stand(tmp_path, {"u": http(server)}, virtual_servers=DOORS) as stand:
        client = Client(stand, path=path)
        first = await client.call(name, {"a": 1})
        assert asked(first) == {"who": elicit(), "x": ROOTS}
        assert first.json["result"]["more"] == {"kept": None}
        assert ODD not in first.body.decode()
        last = await client.back(first, name, {"who": NAME, "x": {"roots": []}}, {"a": 1})
        assert last.json["result"] == text("done")
        retry = asker.got[1]
    assert (retry["name"], retry["arguments"]) == ("ask", {"a": 1})
    assert retry["inputResponses"] == {"who": NAME, "x": {"roots": []}}
    assert retry["requestState"] == ODD
    assert asker.ids[0] != asker.ids[1]


@pytest.mark.rule("ELI-5")
@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize(
    ("path", "name", "meta"),
    [
        ("/mcp", "u__ask", {"kept": 1, "callgate/server": "u"}),
        ("/mcp/v", "u__ask", {"kept": 1, "callgate/server": "u"}),
        ("/servers/u/mcp", "ask", {"kept": 1}),
    ],
)
async def test_a_question_names_who_asks_where_the_endpoint_does_not(
    tmp_path: Path, era: str, path: str, name: str, meta: Any
) -> None:
    """A server that calls itself somebody else is named all the same."""
    forged = elicit(_meta={"kept": 1, **({"callgate/server": "bank"} if "/servers" not in path else {})})
    asker = ModernAsker(ask=once({"r1": forged})) if era == "modern" else LegacyAsker(ask=asking(forged))
    async with serve(asker) as server, Stand(tmp_path, {"u": http(server, era)}, virtual_servers=DOORS) as stand:
        first = (await Client(stand, path=path).call(name)).json["result"]
        assert first["inputRequests"]["r1"]["params"] == {**FORM, "_meta": meta}


@pytest.mark.rule("MRTR-8")
async def test_a_server_without_a_state_gets_none_back_and_its_client_is_bound_all_the_same(tmp_path: Path) -> None:
    asker = ModernAsker(ask=once())
    async with serve(asker) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        client = Client(stand)
        first = await client.call("u__ask")
        refused(await client.back(first, "u__ask", {"who": NAME}, {"other": 1}), 400, -32602)
        assert (await client.back(first, "u__ask", {"who": NAME})).json["result"] == text("done")
        assert "requestState" not in asker.got[1]
        # A client that forgets the state: the server decides.
        assert (await client.call("u__ask", inputResponses={"who": NAME})).json["result"] == text("done")
        assert asker.got[2].keys() >= {"inputResponses"} and "requestState" not in asker.got[2]


async def test_a_state_without_questions_is_one_too(tmp_path: Path) -> None:
    async with (
        serve(
            ModernAsker(ask=once({}, requestState="")),
        ) as server,
        Stand(tmp_path, {"u": http(server)}) as stand,
    ):
        client = Client(stand, {})
        first = await client.call("u__ask")
        assert asked(first) == {}
        assert (await client.call("u__ask", requestState=state(first))).json["result"] == text("done")


async def test_several_rounds(tmp_path: Path) -> None:
    def play(params: dict[str, Any]) -> Any:
        step = int(params.get("requestState", "0"))
        return text("done") if step == 3 else asks({f"q{step}": elicit()}, requestState=str(step + 1))

    async with serve(ModernAsker(ask=play)) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        client = Client(stand)
        reply = await client.call("u__ask")
        for step in range(3):
            assert list(asked(reply)) == [f"q{step}"]
            reply = await client.back(reply, "u__ask", {f"q{step}": NAME})
        assert reply.json["result"] == text("done")
        records = await stand.records(4)
    assert [record["reason"] for record in records[:3]] == ["the server asks the client"] * 3
    assert {record["outcome"] for record in records} == {"ok"}


@pytest.mark.rule("MRTR-1")
async def test_prompts_and_resources_may_ask(tmp_path: Path) -> None:
    asker = ModernAsker(**{"review": once(), "file:///pub/a.txt": once()})
    async with serve(asker) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        for method, name in (("prompts/get", "review"), ("resources/read", "file:///pub/a.txt")):
            client = Client(stand, path="/servers/u/mcp", method=method)
            first = await client.call(name)
            assert asked(first) == {"who": elicit()}
            last = await client.back(first, name, {"who": NAME})
            assert last.json["result"]["resultType"] == "complete"


@pytest.mark.rule("MRTR-1")
async def test_no_other_method_may_ask(tmp_path: Path) -> None:
    class Odd(ModernAsker):
        async def __call__(self, request: Any, peer: Any) -> None:
            if request.message["method"] == "odd/one":
                peer.json({"jsonrpc": "2.0", "id": request.message["id"], "result": asks({"who": elicit()})})
            else:
                await super().__call__(request, peer)

    async with serve(Odd(ask=once())) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        for able in ({}, ALL):
            message = modern("odd/one")
            message["params"]["_meta"][PREFIX + "clientCapabilities"] = able
            reply = await stand.ask(stand.request(message, path="/servers/u/mcp"))
            assert reply.error == -31502
            assert "Who?" not in reply.body.decode()


BROKEN: dict[str, Any] = {
    "asks nothing": asks(),
    "requests that are no object": asks([elicit()]),  # type: ignore[arg-type]
    "state that is no text": asks(requestState=7),
    "state that is null": asks(requestState=None),
    "an endless state": asks(requestState="x" * 300_000),
    "a question that is no object": asks({"who": "SECRET"}),
    "a method that nobody knows": asks({"who": {"method": "tools/call", "params": {"message": "SECRET"}}}),
    "params that are no object": asks({"who": {"method": "elicitation/create", "params": ["SECRET"]}}),
    "a mode that nobody knows": asks({"who": elicit(mode="voice", message="SECRET")}),
    "a mode that is no text": asks({"who": elicit(mode=["form"], message="SECRET")}),
    "a type that nobody knows": {"resultType": "riddle", "riddle": "SECRET"},
    "a task that nobody wanted": {"resultType": "task", "taskId": "SECRET"},
    "an empty type": {"resultType": "", "content": ["SECRET"]},
}


@pytest.mark.rule("MRTR-2", "MRTR-4", "EXT-1")
@pytest.mark.parametrize("result", BROKEN.values(), ids=BROKEN)
async def test_a_server_that_breaks_the_rules_asks_nobody(tmp_path: Path, result: Any) -> None:
    async with serve(ModernAsker(ask=lambda _: result)) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        reply = await Client(stand).call("u__ask")
        assert reply.error == -31502
        assert "Server `u` broke the protocol" in reply.json["error"]["message"]
        assert "SECRET" not in reply.body.decode()
        [record] = await stand.records(1)
    assert record["outcome"] == "failed"


@pytest.mark.rule("MRTR-4")
async def test_two_questions_under_one_key_are_refused(tmp_path: Path) -> None:
    class Twice(ModernAsker):
        async def __call__(self, request: Any, peer: Any) -> None:
            if request.message["method"] == "tools/call":
                one = json.dumps(elicit()).encode()
                peer.body(
                    b'{"jsonrpc":"2.0","id":%d,"result":{"resultType":"input_required","inputRequests":{"a":%b,"a":%b}}}'
                    % (request.message["id"], one, one)
                )
            else:
                await super().__call__(request, peer)

    async with serve(Twice(ask=once())) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        assert (await Client(stand).call("u__ask")).error == -31502


UNDECLARED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, elicit()),
    ({"elicitation": {"url": {}}}, elicit()),
    ({"elicitation": {}}, elicit(mode="url", url="https://example.org")),
    ({"elicitation": {"form": {}}}, elicit(mode="url", url="https://example.org")),
    ({"elicitation": {}, "roots": {}}, sample()),
    ({"sampling": {}}, sample(tools=[])),
    ({"sampling": {}}, sample(toolChoice={"mode": "auto"})),
    ({"elicitation": {}, "sampling": {}}, ROOTS),
    ({"roots": None}, ROOTS),
]


@pytest.mark.rule("MRTR-3")
@pytest.mark.parametrize(("capabilities", "question"), UNDECLARED)
async def test_nobody_is_asked_what_they_did_not_declare(
    tmp_path: Path, capabilities: dict[str, Any], question: dict[str, Any]
) -> None:
    asker = ModernAsker(ask=once({"q": question}))
    async with serve(asker) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        reply = await Client(stand, capabilities).call("u__ask")
        assert (reply.error, asker.got[0]["_meta"].get("x")) == (-31502, None)
        assert "did not declare" in reply.json["error"]["message"]
        assert "inputRequests" not in reply.body.decode()
        assert asked(await Client(stand).call("u__ask")) == {"q": question}


@pytest.mark.rule("MRTR-3")
@pytest.mark.parametrize(
    ("capabilities", "question"),
    [({"elicitation": {}}, elicit()), ({"elicitation": {}}, elicit(mode="form")), ({"sampling": {}}, sample())],
)
async def test_forms_are_what_elicitation_without_a_mode_means(
    tmp_path: Path, capabilities: dict[str, Any], question: dict[str, Any]
) -> None:
    async with serve(ModernAsker(ask=once({"q": question}))) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        assert asked(await Client(stand, capabilities).call("u__ask")) == {"q": question}


@pytest.mark.rule("MRTR-3")
async def test_a_retry_that_declares_less_is_asked_less(tmp_path: Path) -> None:
    def play(params: dict[str, Any]) -> Any:
        return asks({"more": ROOTS}) if "inputResponses" in params else asks({"who": elicit()})

    async with serve(ModernAsker(ask=play)) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        first = await Client(stand).call("u__ask")
        assert (await Client(stand, {"elicitation": {}}).back(first, "u__ask", {"who": NAME})).error == -31502
        assert asked(await Client(stand).back(first, "u__ask", {"who": NAME})) == {"more": ROOTS}


POLICY = {"rules": [allow("u/*")]}


@pytest.mark.rule("MRTR-5", "MRTR-6")
async def test_a_state_opens_for_nobody_else_and_for_nothing_else(tmp_path: Path) -> None:
    asker = ModernAsker(ask=once(), other=once(), review=once())
    identity = {"keys": keys("alice", "mallory")}
    async with (
        serve(asker) as server,
        Stand(tmp_path, {"u": http(server)}, identity=identity, policy=POLICY, virtual_servers=DOORS) as stand,
    ):
        alice = Client(stand, who="alice")
        first = await alice.call("u__ask", {"a": 1})
        attacks = [
            Client(stand, who="mallory").back(first, "u__ask", {"who": NAME}, {"a": 1}),
            Client(stand, who="alice", path="/mcp/v").back(first, "u__ask", {"who": NAME}, {"a": 1}),
            Client(stand, who="alice", path="/servers/u/mcp").back(first, "ask", {"who": NAME}, {"a": 1}),
            alice.back(first, "u__other", {"who": NAME}, {"a": 1}),
            alice.back(first, "u__ask", {"who": NAME}, {"a": 2}),
            alice.back(first, "u__ask", {"who": NAME}),
            alice.call("u__ask", {"a": 1}, requestState=state(first)[:-1]),
            alice.call("u__ask", {"a": 1}, requestState="the server's own state, guessed"),
            alice.call("u__ask", {"a": 1}, requestState=None),
            Client(stand, who="alice", path="/servers/u/mcp", method="prompts/get").back(first, "review", {}, {"a": 1}),
        ]
        for attack in attacks:
            reply = refused(await attack, 400, -32602)
            assert "not valid for this request" in reply.json["error"]["message"]
        assert len(asker.got) == 1  # the server heard of none of them
        assert (await alice.back(first, "u__ask", {"who": NAME}, {"a": 1})).json["result"] == text("done")


@pytest.mark.rule("MRTR-6")
@pytest.mark.key("limits.parked_ttl")
@pytest.mark.parametrize(("ttl", "status"), [(0.001, 400), (60, 200)])
async def test_a_state_expires(tmp_path: Path, ttl: float, status: int) -> None:
    limits = {"parked_ttl": ttl}
    async with serve(ModernAsker(ask=once())) as server, Stand(tmp_path, {"u": http(server)}, limits=limits) as stand:
        first = await Client(stand).call("u__ask")
        await asyncio.sleep(0.005)  # longer than the shorter of the two
        reply = await Client(stand).back(first, "u__ask", {"who": NAME})
        assert reply.status == status
        assert (status == 200) or "expired" in reply.json["error"]["message"]


async def test_a_state_is_refused_when_the_server_is_another_one_now(tmp_path: Path) -> None:
    asker = ModernAsker(ask=once())
    async with serve(asker) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        first = await Client(stand).call("u__ask")
        await stand.reload(servers={"u": http(server, call_timeout=7)})
        await stand.house.warmed(5)
        reply = refused(await Client(stand).back(first, "u__ask", {"who": NAME}), 400, -32602)
        assert "configuration of the server has changed" in reply.json["error"]["message"]
        assert len(asker.got) == 1


async def test_a_state_outlives_a_restart(tmp_path: Path) -> None:
    stand = Stand(tmp_path, {})
    async with serve(ModernAsker(ask=once(requestState="s"))) as server:
        stand.write(servers={"u": http(server)})
        async with stand:
            first = await Client(stand).call("u__ask")
        async with stand:
            assert (await Client(stand).back(first, "u__ask", {"who": NAME})).json["result"] == text("done")


async def test_a_retry_is_judged_like_any_call(tmp_path: Path) -> None:
    asker = ModernAsker(ask=once())
    async with serve(asker) as server, Stand(tmp_path, {"u": http(server)}, policy=POLICY) as stand:
        first = await Client(stand).call("u__ask")
        await stand.reload(policy={"rules": [allow("u/nothing")]})
        refused(await Client(stand).back(first, "u__ask", {"who": NAME}), 200, -31403)
        assert [record["outcome"] for record in await stand.records(2)] == ["ok", "denied"]
    assert len(asker.got) == 1


async def test_a_legacy_client_brings_no_state(tmp_path: Path) -> None:
    asker = ModernAsker(ask=lambda params: text("done"))
    async with serve(asker) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        session = await stand.legacy()
        reply = await session.call("u__ask", requestState="forged", inputResponses={"who": NAME})
        assert reply.json["result"]["content"] == text("done")["content"]
    assert not {"requestState", "inputResponses"} & asker.got[0].keys()


@pytest.mark.rule("MRTR-10", "CACHE-7")
async def test_no_answer_to_a_retry_may_be_kept(tmp_path: Path) -> None:
    def play(params: dict[str, Any]) -> Any:
        done = {"resultType": "complete", "contents": [], "ttlMs": 60_000, "cacheScope": "public"}
        return done if "inputResponses" in params else asks({"who": elicit()}, ttlMs=60_000, cacheScope="public")

    async with (
        serve(ModernAsker(**{"file:///pub/a.txt": play})) as server,
        Stand(tmp_path, {"u": http(server)}) as stand,
    ):
        client = Client(stand, path="/servers/u/mcp", method="resources/read")
        first = await client.call("file:///pub/a.txt")
        asked(first)
        last = (await client.back(first, "file:///pub/a.txt", {"who": NAME})).json["result"]
    assert (last["ttlMs"], last["cacheScope"]) == (0, "private")


@pytest.mark.rule("HTTP-11", "ERR-5")
@pytest.mark.parametrize(
    ("capabilities", "needed", "status", "code"),
    [
        ({}, {"elicitation": {}}, 400, -32021),
        ({"elicitation": {}}, {"elicitation": {"url": {}}}, 400, -32021),
        ({"sampling": {}}, {"sampling": {"tools": {}}}, 400, -32021),
        ({"elicitation": {}}, {"elicitation": {"form": {}}}, 200, -32603),
        (ALL, {"elicitation": {}, "sampling": {"tools": {}}, "roots": {}}, 200, -32603),
        ({}, None, 200, -32603),
    ],
)
async def test_a_client_is_told_what_it_would_have_to_declare(
    tmp_path: Path, capabilities: Any, needed: Any, status: int, code: int
) -> None:
    class Needy(ModernAsker):
        async def __call__(self, request: Any, peer: Any) -> None:
            if request.message["method"] == "tools/call":
                peer.json(error_of(request.message["id"], -32021, "cannot ask", {"requiredCapabilities": needed}), 400)
            else:
                await super().__call__(request, peer)

    async with serve(Needy(ask=once())) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        reply = refused(await Client(stand, capabilities).call("u__ask"), status, code)
        assert code != -32021 or reply.json["error"]["data"] == {"requiredCapabilities": needed}
        assert (await (await stand.legacy()).call("u__ask")).error == -32603


def test_a_legacy_question_loses_what_exists_only_in_its_era() -> None:
    meta = {"progressToken": 1, "io.modelcontextprotocol/related-task": {"taskId": "t"}, "kept": True}
    params = {**FORM, "mode": "url", "url": "https://example.org", "elicitationId": "e", "task": {}, "_meta": meta}
    question = Question("elicitation/create", params)
    own = call(front=Front(door="server:notes"))
    assert needs(question) == {"elicitation": {"url": {}}}
    assert modern_form(question, own)["params"] == {
        **FORM, "mode": "url", "url": "https://example.org", "_meta": {"kept": True},
    }  # fmt: skip
    assert modern_form(Question("roots/list", {"_meta": {"progressToken": 1}}), own) == ROOTS
    assert modern_form(Question("elicitation/create", FORM), own) == elicit()


@pytest.mark.parametrize(
    ("given", "needed", "enough"),
    [
        (ALL, {}, True),
        (ALL, {"sampling": {"tools": {}}}, True),
        ({"sampling": {}}, {"sampling": {"tools": {}}}, False),
        ({"sampling": True}, {"sampling": {}}, False),
        ({"elicitation": {"url": {}}}, {"elicitation": {}}, False),
        ({"elicitation": {"odd": 1}}, {"elicitation": {}}, True),
        ({}, {"roots": {}}, False),
    ],
)
def test_what_is_declared(given: dict[str, Any], needed: dict[str, Any], enough: bool) -> None:
    assert declares(given, needed) is enough

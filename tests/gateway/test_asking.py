"""Questions of servers to legacy clients: who is asked, where, how long, and whose answer counts."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from callgate.gateway.asking import OPEN, Questions, refusal
from callgate.types import Answer, Question
from tests.gateway.dialogue import ANN, EVERYTHING, answer, begin, form, said, sample
from tests.gateway.stand import LegacyClient, Stand, keys, until
from tests.gateway.upstreams import Legacy, http, serve, tools
from tests.processes import environment
from tests.servers.mcp_http import result_of
from tests.servers.raw_http import Peer, Request

pytestmark = pytest.mark.anyio

ROOTS = {"method": "roots/list"}


class Asking(Legacy):
    """A legacy server that asks, on the stream of a call, whatever ``arguments.questions`` holds, and says what the
    answers were.
    """

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.tools = [*self.tools, *tools("question")]
        self.answers: dict[str, asyncio.Future[Any]] = {}
        self.declared: list[Any] = []
        self.told: list[Any] = []

    async def _post(self, request: Request, peer: Peer, session: str) -> None:
        message = request.message
        if message.get("method") == "initialize":
            self.declared.append(message["params"]["capabilities"])
        elif str(message.get("method")).startswith("notifications/"):
            self.told.append(message)
        elif "method" not in message and (waiting := self.answers.get(message["id"])) is not None:
            waiting.set_result(message)
        await super()._post(request, peer, session)

    async def _call(self, message: dict[str, Any], peer: Peer) -> None:
        if message["params"]["name"] != "question":
            await super()._call(message, peer)
            return
        peer.sse_head()
        heard = []
        for number, question in enumerate(message["params"]["arguments"]["questions"]):
            heard.append(self.ask(f"{message['id']}-{number}", question, peer))
        told = [{key: each[key] for key in each.keys() & {"result", "error"}} for each in await asyncio.gather(*heard)]
        peer.event(result_of(message["id"], {"content": [{"type": "text", "text": json.dumps(told)}]}))
        peer.chunk(b"")

    def ask(self, id: str, question: Any, peer: Peer) -> asyncio.Future[Any]:
        waiting = self.answers[id] = asyncio.get_running_loop().create_future()
        peer.event({"jsonrpc": "2.0", "id": id, **question})
        return waiting


def told(message: Any) -> Any:
    return json.loads(said(message))


SPOKEN = {"role": "assistant", "content": {"type": "text", "text": "hi"}, "model": "m", "extra": None}


@pytest.mark.rule("ELI-5")
@pytest.mark.parametrize("path", ["/mcp", "/mcp/v", "/servers/u/mcp"])
@pytest.mark.parametrize(
    ("question", "result"), [(form(), ANN), (sample(), SPOKEN), (ROOTS, {"roots": [{"uri": "file:///x"}]})]
)
async def test_a_legacy_server_asks_a_legacy_client(tmp_path: Path, path: str, question: Any, result: Any) -> None:
    settings = {"virtual_servers": {"v": {"tools": ["u/*"]}}}
    async with serve(Asking()) as server, Stand(tmp_path, {"u": http(server, "legacy")}, **settings) as stand:
        client = await stand.legacy(path=path, **EVERYTHING)
        name = "question" if path.startswith("/servers") else "u__question"
        call = await begin(client, name, questions=[question])
        asked = await call.event()
        assert asked["method"] == question["method"]
        params = asked.get("params", {})
        if not path.startswith("/servers"):
            assert params.pop("_meta") == {"callgate/server": "u"}  # rule ELI-5
        assert params == question.get("params", {})
        await answer(client, asked, result)
        assert told(await call.event()) == [{"result": result}]
        assert await call.chunk() == b""
        await call.close()
        [record] = await stand.records(1)
        assert record["outcome"] == "ok"


async def test_a_clients_error_goes_back_as_it_is(tmp_path: Path) -> None:
    async with serve(Asking()) as server, Stand(tmp_path, {"u": http(server, "legacy")}) as stand:
        client = await stand.legacy(**EVERYTHING)
        call = await begin(client, "u__question", questions=[sample()])
        error = {"code": -1, "message": "User rejected sampling", "data": {"why": [1]}}
        await answer(client, await call.event(), **error)
        assert told(await call.event()) == [{"error": error}]
        await call.close()


async def test_several_questions_of_several_calls_are_open_at_once(tmp_path: Path) -> None:
    async with serve(Asking()) as server, Stand(tmp_path, {"u": http(server, "legacy")}) as stand:
        client = await stand.legacy(**EVERYTHING)
        calls = [await begin(client, "u__question", id=n, questions=[form(f"{n}a"), form(f"{n}b")]) for n in range(3)]
        asked = [[await call.event(), await call.event()] for call in calls]
        ids = [each["id"] for pair in asked for each in pair]
        assert len(set(ids)) == 6
        for pair in reversed(asked):
            for each in reversed(pair):
                await answer(client, each, {"action": "accept", "content": {"to": each["params"]["message"]}})
        for number, call in enumerate(calls):
            heard = [each["result"]["content"]["to"] for each in told(await call.event())]
            assert heard == [f"{number}a", f"{number}b"]
            await call.close()


async def test_sessions_of_one_principal_never_get_each_others_questions(tmp_path: Path) -> None:
    identity = {"keys": keys("ann", "bob")}
    async with (
        serve(Asking()) as server,
        Stand(tmp_path, {"u": http(server, "legacy")}, identity=identity) as stand,
    ):
        one, two, bob = [await stand.legacy(who=who, **EVERYTHING) for who in ("ann", "ann", "bob")]
        listening = [await each.listen() for each in (one, two, bob)]
        calls = [await begin(each, "u__question", questions=[form(str(n))]) for n, each in enumerate((one, two, bob))]
        asked = [await call.event() for call in calls]
        assert [each["params"]["message"] for each in asked] == ["0", "1", "2"]
        # The answers of others are taken and mean nothing.
        await answer(two, asked[0], {"action": "accept", "content": {"by": "thief"}})
        await answer(bob, asked[0], {"action": "accept", "content": {"by": "thief"}})
        stolen = LegacyClient(stand, one.id, None, "bob", "/mcp")
        assert (await stolen.post({"jsonrpc": "2.0", "id": asked[0]["id"], "result": ANN})).status == 404
        for client, question in zip((one, two, bob), asked, strict=True):
            await answer(client, question, {"action": "accept", "content": {"by": question["params"]["message"]}})
        for number, call in enumerate(calls):
            assert told(await call.event())[0]["result"]["content"] == {"by": str(number)}
        for wire in (*calls, *listening):
            await wire.close()


@pytest.mark.rule("EXT-3")
async def test_a_client_is_not_asked_what_it_did_not_declare(tmp_path: Path) -> None:
    server = Asking()
    async with serve(server) as running, Stand(tmp_path, {"u": http(running, "legacy")}) as stand:
        client = await stand.legacy(roots={})
        reply = await client.call("u__question", {"questions": [form(), sample(), {"method": "tools/list"}]})
        assert {each["error"]["code"] for each in told(reply.json)} == {-32601}  # one object: nothing was asked
        assert {"roots": {}} in server.declared


async def test_an_answer_to_nothing_is_taken_and_means_nothing(tmp_path: Path) -> None:
    async with serve(Asking()) as server, Stand(tmp_path, {"u": http(server, "legacy")}) as stand:
        client = await stand.legacy(**EVERYTHING)
        call = await begin(client, "u__question", questions=[form()])
        question = await call.event()
        for id in ("callgate-1", 1, None, 1.5, {"a": 1}, question["id"] + "0"):
            assert (await client.post({"jsonrpc": "2.0", "id": id, "result": ANN})).status == 202
        await answer(client, question, {"action": "decline"})
        await answer(client, question)  # the second answer comes too late
        assert told(await call.event()) == [{"result": {"action": "decline"}}]
        await call.close()


@pytest.mark.parametrize("body", [{"result": 5}, {"result": None}, {"error": "no"}, {"error": {"code": "x"}}])
async def test_an_answer_that_is_none_is_an_error_for_the_server(tmp_path: Path, body: Any) -> None:
    async with serve(Asking()) as server, Stand(tmp_path, {"u": http(server, "legacy")}) as stand:
        client = await stand.legacy(**EVERYTHING)
        call = await begin(client, "u__question", questions=[form()])
        question = await call.event()
        assert (await client.post({"jsonrpc": "2.0", "id": question["id"], **body})).status == 202
        [error] = told(await call.event())
        assert error["error"]["code"] == -32603
        await call.close()


async def test_answers_may_come_in_a_batch(tmp_path: Path) -> None:
    async with serve(Asking()) as server, Stand(tmp_path, {"u": http(server, "legacy")}) as stand:
        client = await stand.legacy(version="2025-03-26", **EVERYTHING)
        call = await begin(client, "u__question", questions=[form("1"), form("2")])
        asked = [await call.event(), await call.event()]
        batch = [{"jsonrpc": "2.0", "id": each["id"], "result": ANN} for each in asked]
        assert (await client.post(batch)).status == 202
        assert told(await call.event()) == [{"result": ANN}, {"result": ANN}]
        await call.close()


async def test_a_call_that_is_cancelled_takes_its_question_back(tmp_path: Path) -> None:
    server = Asking()
    async with serve(server) as running, Stand(tmp_path, {"u": http(running, "legacy")}) as stand:
        client = await stand.legacy(**EVERYTHING)
        call = await begin(client, "u__question", id="c", questions=[form()])
        question = await call.event()
        await client.tell("notifications/cancelled", requestId="c")
        said = [await call.event(), await call.event()]
        withdrawn = [each for each in said if each.get("method") == "notifications/cancelled"]
        assert [each["params"]["requestId"] for each in withdrawn] == [question["id"]]
        await until(lambda: server.cancelled)
        await call.close()


@pytest.mark.rule("ELI-5")
@pytest.mark.parametrize(("path", "meta"), [("/mcp", {"callgate/server": "u"}), ("/servers/u/mcp", None)])
async def test_a_server_that_asks_outside_any_call_is_answered_on_the_stream_of_the_session(
    tmp_path: Path, path: str, meta: Any
) -> None:
    server = Asking(listens=True)
    async with serve(server) as running, Stand(tmp_path, {"u": http(running, "legacy")}) as stand:
        client = await stand.legacy(path=path, **EVERYTHING)
        listening = await client.listen()
        server.listening.clear()
        before = len(server.streams)
        await (await begin_and_end(client)).close()
        await until(lambda: len(server.streams) > before)
        heard = server.ask("alone", form("outside"), server.streams[-1])
        question = await listening.event()
        assert question["params"]["message"] == "outside"
        assert question["params"].get("_meta") == meta
        await answer(client, question)
        assert (await heard)["result"] == ANN
        await listening.close()


async def begin_and_end(client: LegacyClient) -> Any:
    """A call that asks once, from beginning to end: the session has its own link with the server now."""
    name = "question" if client.path.startswith("/servers") else "u__question"
    call = await begin(client, name, questions=[ROOTS])
    await answer(client, await call.event(), {"roots": []})
    assert told(await call.event()) == [{"result": {"roots": []}}]
    return call


async def test_changed_roots_are_told_to_the_servers_of_the_session(tmp_path: Path) -> None:
    server = Asking()
    async with serve(server) as running, Stand(tmp_path, {"u": http(running, "legacy")}) as stand:
        client = await stand.legacy(**{**EVERYTHING, "roots": {"listChanged": True}})
        await (await begin_and_end(client)).close()
        assert (await client.tell("notifications/roots/list_changed")).status == 202
        await until(lambda: any(each["method"] == "notifications/roots/list_changed" for each in server.told))


# One session's questions


async def put(questions: Questions, said: list[Any], question: Question, **capabilities: Any) -> Answer:
    def say(message: bytes) -> bool:
        said.append(json.loads(message))
        return True

    return await questions.ask(capabilities, say, question)


async def test_a_session_has_only_so_many_open_questions() -> None:
    questions, said = Questions(), list[Any]()
    waiting = [asyncio.create_task(put(questions, said, Question("roots/list"), roots={})) for _ in range(OPEN)]
    await until(lambda: len(questions) == OPEN)
    refused = await put(questions, said, Question("roots/list"), roots={})
    assert refused.error is not None
    questions.fail("over")
    assert {(await each).error is not None for each in waiting} == {True}
    assert (len(questions), len(said)) == (0, OPEN)


async def test_a_client_that_left_for_good_is_not_waited_for() -> None:
    answer = await Questions().ask({"roots": {}}, lambda message: False, Question("roots/list"))
    assert answer.error is not None


PAGE = {"mode": "url", "url": "https://x.example", "message": "m"}
TOOLS: dict[str, Any] = {"messages": [], "tools": []}
TASK = {"task": {"ttl": 1}, "messages": []}


@pytest.mark.parametrize(
    ("question", "able", "code"),
    [
        (Question("elicitation/create", {}), {"elicitation": {}}, None),
        (Question("elicitation/create", {"mode": "form"}), {"elicitation": {"form": {}}}, None),
        (Question("elicitation/create", {}), {"elicitation": {"url": {}}}, -32602),
        (Question("elicitation/create", PAGE), {"elicitation": {}}, -32602),
        (Question("elicitation/create", PAGE), {"elicitation": {"url": {}}}, None),
        (Question("elicitation/create", {"mode": ["form"]}), {"elicitation": {}}, -32602),
        (Question("elicitation/create", {}), {"sampling": {}}, -32601),
        (Question("sampling/createMessage", TOOLS), {"sampling": {}}, -32602),
        (Question("sampling/createMessage", TOOLS), {"sampling": {"tools": {}}}, None),
        (Question("sampling/createMessage", TASK), {"sampling": {}, "tasks": {}}, -32602),
        (
            Question("sampling/createMessage", TASK),
            {"sampling": {}, "tasks": {"requests": {"sampling": {"createMessage": {}}}}},
            None,
        ),
        (Question("tasks/get", {"taskId": "t"}), {"tasks": {}}, None),
        (Question("tasks/list"), {"tasks": {"list": {}}}, -32601),
        (Question("tools/call"), EVERYTHING, -32601),
        (Question("roots/list"), {}, -32601),
    ],
)
def test_what_a_client_is_asked(question: Question, able: dict[str, Any], code: int | None) -> None:
    found = refusal(question, able)
    assert (found.code if found is not None else None) == code


# Real servers


@pytest.mark.parametrize("door", ["/mcp", "/servers/u/mcp"])
async def test_a_real_server_asks_over_pipes(tmp_path: Path, door: str) -> None:
    """A dual-era server over stdio: a legacy client that can be asked gets a legacy link of its own."""
    path = environment()["PYTHONPATH"]
    fixture = {"command": sys.executable, "args": ["-m", "tests.conformance.fixture", "--stdio"]}
    async with Stand(tmp_path, {"u": {**fixture, "env": {"PYTHONPATH": path}, "connect_timeout": 30}}) as stand:
        prefix = "" if door.startswith("/servers") else "u__"
        client = await stand.legacy(path=door, **EVERYTHING)
        call = await begin(client, f"{prefix}test_elicitation", message="Who?")
        question = await call.event()
        assert question["params"]["message"] == "Who?"
        await answer(client, question, {"action": "decline"})
        assert said(await call.event()) == "User response: action=decline, content={}"
        await call.close()
        call = await begin(client, f"{prefix}test_sampling", prompt="Say hi")
        await answer(client, await call.event(), SPOKEN)
        assert said(await call.event()) == "LLM response: hi"
        await call.close()

"""Legacy clients of modern servers: the questions in a result become requests, and the call is made again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.messages import dump, post, rpc
from tests.gateway.dialogue import ANN, EVERYTHING, answer, begin, form, params, said, sample, stream
from tests.gateway.stand import Stand, allow, deny, events, keys, until
from tests.gateway.upstreams import Act, Modern, Script, http, serve, text
from tests.processes import start_fixture
from tests.servers.mcp_http import error_of, result_of
from tests.servers.raw_http import Peer

pytestmark = pytest.mark.anyio

STATE = 'a "state" that must come back as it is: \u00e4\\n=='


def asks(questions: Mapping[str, Any] | None = None, state: str | None = None) -> dict[str, Any]:
    asked = {"inputRequests": dict(questions)} if questions is not None else {}
    return {"resultType": "input_required", **asked, **({"requestState": state} if state is not None else {})}


def rounds(*legs: dict[str, Any]) -> Act:
    """Answers with one leg after the other, and then with the parameters of the last request."""
    left = list(legs)

    async def act(message: Any, peer: Peer) -> None:
        peer.json(result_of(message["id"], left.pop(0) if left else text(json.dumps(message["params"]))))

    return act


def playing(**acts: Act) -> Modern:
    return Modern(Script(acts=acts))


@pytest.mark.rule("REENT-2")
@pytest.mark.rule("REENT-3")
@pytest.mark.rule("MRTR-8")
async def test_a_question_in_a_result_is_asked_on_the_stream_of_the_call(tmp_path: Path) -> None:
    server = playing(greet=rounds(asks({"who": form()}, STATE)))
    async with serve(server) as running, Stand(tmp_path, {"u": http(running)}) as stand:
        client = await stand.legacy(**EVERYTHING)
        listening = await client.listen()
        call = await begin(client, "u__greet", loud=True)
        question = await call.event()
        assert (question["method"], params(question)) == ("elicitation/create", form()["params"])
        await answer(client, question)
        sent = json.loads(said(await call.event()))
        assert (sent["inputResponses"], sent["requestState"]) == ({"who": ANN}, STATE)
        assert sent["arguments"] == {"loud": True}
        first, second = server.script.called
        assert first["id"] != second["id"]
        assert "inputResponses" not in first["params"]
        await client.tell("notifications/initialized")
        assert (await call.chunk()) == b""
        for wire in (call, listening):
            await wire.close()
        [record] = await stand.records(1)
        assert (record["outcome"], record["tool"]) == ("ok", "greet")


async def test_all_questions_of_a_round_are_open_at_once(tmp_path: Path) -> None:
    everything = {"who": form(), "hi": sample(), "where": {"method": "roots/list"}}
    async with (
        serve(playing(greet=rounds(asks(everything)))) as running,
        Stand(tmp_path, {"u": http(running)}) as stand,
    ):
        client = await stand.legacy(**EVERYTHING)
        call = await begin(client, "u__greet")
        asked = {each["method"]: each for each in [await call.event() for _ in range(3)]}
        spoken = {"role": "assistant", "content": {"type": "text", "text": "hi"}, "model": "m", "x": None}
        results = {"roots/list": {"roots": []}, "sampling/createMessage": spoken, "elicitation/create": ANN}
        for method, result in results.items():  # in another order than asked
            await answer(client, asked[method], result)
        sent = json.loads(said(await call.event()))
        assert sent["inputResponses"] == {"who": ANN, "hi": spoken, "where": {"roots": []}}
        assert "requestState" not in sent
        await call.close()


async def test_answers_belong_to_their_round(tmp_path: Path) -> None:
    legs = asks({"one": form("1")}, "s1"), asks({"two": form("2")}), asks(state="s3")
    async with serve(playing(greet=rounds(*legs))) as running, Stand(tmp_path, {"u": http(running)}) as stand:
        client = await stand.legacy(**EVERYTHING)
        call = await begin(client, "u__greet")
        await answer(client, await call.event(), {"action": "decline"})  # an ordinary answer
        await answer(client, await call.event(), {"action": "cancel"})
        last = json.loads(said(await call.event()))
        assert (last.get("inputResponses"), last["requestState"]) == (None, "s3")
        await call.close()


@pytest.mark.rule("REENT-1")
async def test_a_server_that_never_stops_asking_is_left(tmp_path: Path) -> None:
    server = playing(greet=rounds(*[asks({"who": form()})] * 20))
    async with serve(server) as running, Stand(tmp_path, {"u": http(running)}) as stand:
        client = await stand.legacy(**EVERYTHING)
        call = await begin(client, "u__greet")
        for _ in range(8):
            await answer(client, await call.event())
        last = await call.event()
        assert last["result"]["isError"] is True
        assert "more than 8 times" in said(last)
        assert len(server.script.called) == 9
        await call.close()


@pytest.mark.rule("REENT-1")
async def test_a_question_that_nobody_answers_ends_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callgate.gateway.asking.PATIENCE", 0.05)
    async with (
        serve(playing(greet=rounds(asks({"who": form()})))) as running,
        Stand(tmp_path, {"u": http(running)}) as stand,
    ):
        client = await stand.legacy(**EVERYTHING)
        question, withdrawn, last = events(await client.call("u__greet"))
        assert (withdrawn["method"], withdrawn["params"]["requestId"]) == ("notifications/cancelled", question["id"])
        assert (last["result"]["isError"], "did not answer within" in said(last)) == (True, True)


@pytest.mark.rule("REENT-4")
@pytest.mark.parametrize("able", [{}, {"roots": {}}])
async def test_a_client_that_cannot_be_asked_is_told_so(tmp_path: Path, able: dict[str, Any]) -> None:
    act = rounds(*[asks({"who": form()})] * 2)
    async with serve(playing(greet=act)) as running, Stand(tmp_path, {"u": http(running)}) as stand:
        client = await stand.legacy(**able)
        reply = await client.call("u__greet")
        assert reply.headers["content-type"] == "application/json"
        assert "error" in reply.json
        assert "elicitation" in reply.json["error"]["message"]
        [record] = await stand.records(1)
        assert record["outcome"] == "failed"


@pytest.mark.rule("REENT-4")
async def test_a_client_that_reads_no_streams_is_told_so(tmp_path: Path) -> None:
    act = rounds(asks({"who": form()}))
    async with serve(playing(greet=act)) as running, Stand(tmp_path, {"u": http(running)}) as stand:
        client = await stand.legacy(**EVERYTHING)
        message = dump(rpc("tools/call", {"name": "u__greet"}))
        plain = [("Accept", "application/json"), *client.headers()]
        reply = await stand.ask(post(stand.port, message, plain, without=["Accept"]))
        assert reply.json["result"]["isError"] is True
        assert "cannot be asked" in said(reply.json)
        assert (await stand.records(1))[0]["outcome"] == "tool_error"


async def test_a_client_that_refuses_one_question_is_not_bothered_with_the_others(tmp_path: Path) -> None:
    act = rounds(asks({"who": form(), "hi": sample()}))
    async with serve(playing(greet=act)) as running, Stand(tmp_path, {"u": http(running)}) as stand:
        client = await stand.legacy(**EVERYTHING)
        call = await begin(client, "u__greet")
        asked = {each["method"]: each for each in (await call.event(), await call.event())}
        await answer(client, asked["sampling/createMessage"], code=-1, message="The user said no")
        withdrawn, last = await call.event(), await call.event()
        assert withdrawn["params"]["requestId"] == asked["elicitation/create"]["id"]
        assert (last["result"]["isError"], "The user said no" in said(last)) == (True, True)
        await call.close()


async def test_a_page_to_open_has_an_id_for_clients_of_this_era(tmp_path: Path) -> None:
    page = {"method": "elicitation/create", "params": {"mode": "url", "message": "Log in", "url": "https://x.example"}}
    act = rounds(asks({"page": page}))
    async with serve(playing(greet=act)) as running, Stand(tmp_path, {"u": http(running)}) as stand:
        client = await stand.legacy(elicitation={"form": {}, "url": {}})
        call = await begin(client, "u__greet")
        question = await call.event()
        asked = params(question)
        assert len(asked.pop("elicitationId")) > 16
        assert asked == page["params"]
        await answer(client, question, {"action": "accept"})
        assert json.loads(said(await call.event()))["inputResponses"] == {"page": {"action": "accept"}}
        await call.close()


@pytest.mark.rule("MRTR-2")
@pytest.mark.rule("MRTR-4")
@pytest.mark.parametrize(
    "wrong",
    [
        asks(), asks({"who": {"method": "tools/call", "params": {}}}), asks({"who": 5}), asks({"who": {}}),
        {"resultType": "input_required", "inputRequests": [], "requestState": "s"},
        {"resultType": "input_required", "requestState": 7}, asks({"who": {**form(), "params": 1}}),
    ],
)  # fmt: skip
async def test_a_server_that_asks_wrongly_has_failed(tmp_path: Path, wrong: dict[str, Any]) -> None:
    async with serve(playing(greet=rounds(wrong))) as running, Stand(tmp_path, {"u": http(running)}) as stand:
        client = await stand.legacy(**EVERYTHING)
        reply = await client.call("u__greet")
        assert reply.json["error"]["code"] != -32603, reply
        [record] = await stand.records(1)
        assert record["outcome"] == "failed"


async def test_every_leg_is_judged(tmp_path: Path) -> None:
    server = playing(greet=rounds(asks({"who": form()})))
    async with (
        serve(server) as running,
        Stand(tmp_path, {"u": http(running)}, policy={"rules": [allow("u/*")]}) as stand,
    ):
        client = await stand.legacy(**EVERYTHING)
        call = await begin(client, "u__greet")
        question = await call.event()
        await stand.reload(policy={"rules": [deny("u/greet"), allow("u/*")]})
        await answer(client, question)
        assert (await call.event())["error"]["code"] == -31403
        assert len(server.script.called) == 1
        await call.close()
        [record] = await stand.records(1)
        assert record["outcome"] == "denied"


async def test_a_credential_that_changed_meanwhile_reaches_no_server(tmp_path: Path) -> None:
    server = playing(greet=rounds(asks({"who": form()})))
    people, policy = {"keys": keys("ann", roles=["reader"])}, {"rules": [allow("*/*")]}
    async with serve(server) as running, Stand(
        tmp_path, {"u": http(running)}, identity=people, policy=policy
    ) as stand:  # fmt: skip
        client = await stand.legacy("ann", **EVERYTHING)
        call = await begin(client, "u__greet")
        question = await call.event()
        await stand.reload(identity={"keys": keys("ann", roles=["guest"])})
        await answer(client, question)
        assert (await call.event())["error"]["code"] == -31401
        assert len(server.script.called) == 1
        await call.close()


async def test_a_state_never_reaches_another_server(tmp_path: Path) -> None:
    server, other = playing(greet=rounds(asks({"who": form()}, STATE))), playing(greet=rounds())
    async with serve(server) as one, serve(other) as two, Stand(tmp_path, {"u": http(one)}) as stand:
        client = await stand.legacy(**EVERYTHING)
        call = await begin(client, "u__greet")
        question = await call.event()
        await stand.reload(servers={"u": http(two)})
        await answer(client, question)
        assert "was changed" in said(await call.event())
        assert other.script.called == []
        await call.close()


async def test_an_error_in_a_later_round_is_the_answer(tmp_path: Path) -> None:
    async def fails(message: Any, peer: Peer) -> None:
        if "inputResponses" in message["params"]:
            peer.json(error_of(message["id"], -32000, "no such name"))
        else:
            peer.json(result_of(message["id"], asks({"who": form()})))

    async with serve(playing(greet=fails)) as running, Stand(tmp_path, {"u": http(running)}) as stand:
        client = await stand.legacy(**EVERYTHING)
        call = await begin(client, "u__greet")
        await answer(client, await call.event())
        assert (await call.event())["error"]["code"] == -32000
        await call.close()


async def test_a_call_that_is_cancelled_takes_its_question_back(tmp_path: Path) -> None:
    async with (
        serve(playing(greet=rounds(asks({"who": form()})))) as running,
        Stand(tmp_path, {"u": http(running)}) as stand,
    ):
        client = await stand.legacy(**EVERYTHING)
        call = await begin(client, "u__greet", id=5)
        question = await call.event()
        await client.tell("notifications/cancelled", requestId=5)
        assert (await call.event())["params"]["requestId"] == question["id"]
        assert (await call.event())["error"]["code"] == -31499
        await call.close()
        [record] = await stand.records(1)
        assert record["outcome"] == "cancelled"


async def test_prompts_ask_too_and_fail_as_errors(tmp_path: Path) -> None:
    class Prompting(Modern):
        async def __call__(self, request: Any, peer: Peer) -> None:
            message = request.message
            if message["method"] == "server/discover":
                found = {"supportedVersions": ["2026-07-28"], "capabilities": {"prompts": {}}, "resultType": "complete"}
                peer.json(result_of(message["id"], found))
            elif message["method"] == "prompts/list":
                peer.json(result_of(message["id"], {"prompts": [{"name": "review"}], "resultType": "complete"}))
            elif message["method"] == "prompts/get":
                peer.json(result_of(message["id"], asks({"who": form()}, "s")))
            else:
                await super().__call__(request, peer)

    async with serve(Prompting()) as running, Stand(tmp_path, {"u": http(running)}) as stand:
        client = await stand.legacy(path="/servers/u/mcp", **EVERYTHING)
        call = await stream(client, rpc("prompts/get", {"name": "review"}))
        await answer(client, await call.event())
        await answer(client, await call.event(), code=-1, message="Enough")
        last = await call.event()
        assert (last["error"]["code"], "Enough" in last["error"]["message"]) == (-32603, True)
        await call.close()


async def test_a_session_that_ends_ends_its_questions(tmp_path: Path) -> None:
    async with (
        serve(playing(greet=rounds(asks({"who": form()})))) as running,
        Stand(tmp_path, {"u": http(running)}) as stand,
    ):
        client = await stand.legacy(**EVERYTHING)
        call = await begin(client, "u__greet")
        await call.event()
        session = stand.house.sessions.find(client.id.encode(), stand.house.recogniser.anonymous, "")  # type: ignore[arg-type]
        assert (await client.end()).status == 204
        await until(lambda: not len(session.questions))
        async with asyncio.timeout(5):
            while await call.chunk():
                pass
        await call.close()


async def test_a_real_server_of_the_modern_era_is_content(tmp_path: Path) -> None:
    """Several questions at once, several rounds, and a state that the server itself sealed."""
    fixture, url = await asyncio.to_thread(start_fixture, tmp_path / "fixture")
    spoken = {"role": "assistant", "content": {"type": "text", "text": "hi"}, "model": "m"}
    answers = {
        "What is your name?": {"name": "Ann"}, "Please confirm": {"ok": True},
        "Step 1: What is your name?": {"name": "Ann"}, "Step 2: What is your favorite color?": {"color": "red"},
    }  # fmt: skip
    with fixture:
        async with Stand(tmp_path, {"u": {"url": url, "protocol": "modern"}}) as stand:
            client = await stand.legacy(**EVERYTHING)
            for tool, rounds_, heard in (
                ("multiple_inputs", 3, "All answers arrived."), ("multi_round", 2, "Ann likes red."),
                ("request_state", 1, "state-ok"), ("list_roots", 1, "Roots: file:///x"),
            ):  # fmt: skip
                call = await begin(client, f"u__test_input_required_result_{tool}")
                for _ in range(rounds_):
                    question = await call.event()
                    if question["method"] == "elicitation/create":
                        content = answers[question["params"]["message"]]
                        await answer(client, question, {"action": "accept", "content": content})
                    else:
                        roots = {"roots": [{"uri": "file:///x"}]}
                        await answer(client, question, roots if question["method"] == "roots/list" else spoken)
                assert said(await call.event()) == heard
                await call.close()

"""Legacy servers that ask: whom, what becomes of the answer, and what is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from callgate.config.model import Server
from callgate.egress import Response
from callgate.errors import UpstreamError, UpstreamTimeout
from callgate.types import Answer, Ask, Conduct, Occasion, Permitted, Question
from tests.servers.asking_http import AskingServer
from tests.servers.raw_http import RawServer
from tests.upstream.asking import FORMS, LEGACY, Client, asking
from tests.upstream.house import House, permitted, until

pytestmark = pytest.mark.anyio

ACCEPTED = {"action": "accept", "content": {"by": "client"}}


async def test_a_question_of_a_stdio_server_reaches_the_client_of_the_call(tmp_path: Path) -> None:
    async with House(tmp_path, s=asking()) as house:
        client = Client()
        meta = {"_meta": {"org.example/x": 1}, "mode": "form", "message": "Hä?", "requestedSchema": {}}
        result = await house.ask("s", "ask", {"params": meta}, ask=client.ask, **FORMS)
        assert result["answers"] == [ACCEPTED]
        assert client.questions == [Question("elicitation/create", meta)]


async def test_a_question_of_an_http_server_reaches_the_client_of_the_call(tmp_path: Path) -> None:
    async with RawServer(AskingServer()) as server, House(tmp_path, s=Server(url=server.url)) as house:
        clients = [Client(f"c{n}") for n in range(4)]
        calls = [house.ask("s", "ask", ask=client.ask, principal="alice", **FORMS) for client in clients]
        told = [result["told"]["content"]["by"] for result in await asyncio.gather(*calls)]
        assert told == ["c0", "c1", "c2", "c3"]


@pytest.mark.parametrize(
    ("method", "params", "capabilities"),
    [
        ("sampling/createMessage", {"messages": []}, {"elicitation": {}}),
        ("sampling/createMessage", {"messages": [], "tools": []}, {"sampling": {}}),
        ("roots/list", {}, {"elicitation": {}}),
        ("elicitation/create", {"mode": "url", "url": "http://x"}, {"elicitation": {}}),
        ("elicitation/create", {"mode": "form"}, {"elicitation": {"url": {}}}),
        ("elicitation/create", {"mode": []}, {"elicitation": {}}),
        ("tasks/get", {"taskId": "t"}, {"elicitation": {}}),
        ("completion/complete", {}, {"elicitation": {}, "sampling": {}, "roots": {}}),
    ],
)
@pytest.mark.rule("PARK-7", "EXT-3")
async def test_a_server_cannot_ask_what_the_client_did_not_declare(
    tmp_path: Path, method: str, params: dict[str, Any], capabilities: dict[str, Any]
) -> None:
    async with House(tmp_path, s=asking(protocol="legacy")) as house:
        client = Client()
        arguments = {"method": method, "params": params}
        result = await house.ask("s", "ask", arguments, ask=client.ask, capabilities=capabilities)
        assert result["answers"][0]["code"] == -32601
        assert client.questions == []


async def test_a_server_on_a_shared_link_asks_nobody(tmp_path: Path) -> None:
    async with House(tmp_path, s=asking(isolation="shared")) as house:
        client = Client()
        result = await house.ask("s", "ask", ask=client.ask, **FORMS)
        assert result["answers"][0]["code"] == -32601
        assert client.questions == []


async def test_a_call_whose_client_cannot_be_asked(tmp_path: Path) -> None:
    async with House(tmp_path, s=asking()) as house:
        assert (await house.ask("s", "ask", **FORMS))["answers"][0]["code"] == -32601


async def test_two_questions_with_one_id_are_one_question(tmp_path: Path) -> None:
    async with House(tmp_path, s=asking()) as house:
        client, front = Client(), {**LEGACY, "session": "one"}
        client.open.clear()
        call = asyncio.create_task(house.ask("s", "ask", {"ids": ["same", "same"]}, ask=client.ask, **front))
        await until(lambda: client.questions)
        await house.ask("s", "hello", **front)  # its answer comes after both questions
        client.open.set()
        assert (await call)["answers"] == [ACCEPTED]
        assert len(client.questions) == 1


async def test_two_questions_with_one_id_over_http(tmp_path: Path) -> None:
    behaviour = AskingServer()
    async with RawServer(behaviour) as server, House(tmp_path, s=Server(url=server.url)) as house:
        client = Client()
        client.open.clear()
        call = asyncio.create_task(house.ask("s", "ask", {"twice": True}, ask=client.ask, **LEGACY, session="one"))
        await until(lambda: house.notes)  # what comes after both questions
        client.open.set()
        await call
        assert len(client.questions) == len(behaviour.responses) == 1


async def test_the_number_of_open_questions_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callgate.upstream.questions.MAX_OPEN", 3)
    async with House(tmp_path, s=asking()) as house:
        client = Client()
        client.open.clear()
        call = asyncio.create_task(house.ask("s", "ask", {"times": 5}, ask=client.ask, **FORMS))
        await until(lambda: len(client.questions) == 3)
        client.open.set()
        answers = (await call)["answers"]
        assert sum(answer.get("code") == -32603 for answer in answers) == 2


async def test_the_client_s_refusal_and_failure_go_to_the_server(tmp_path: Path) -> None:
    async def refuse(question: Question) -> Answer:
        raise UpstreamError("nobody is there")

    async def broken(question: Question) -> Answer:
        raise ValueError("a mistake")

    async with House(tmp_path, s=asking()) as house:
        said = await house.ask("s", "ask", ask=refuse, **FORMS)
        assert said["answers"] == [{"code": -32603, "message": "nobody is there"}]
        assert (await house.ask("s", "ask", ask=broken, **FORMS))["answers"][0]["code"] == -32603


@pytest.mark.parametrize("http", [False, True])
async def test_the_clock_and_the_place_are_free_while_a_question_is_open(tmp_path: Path, http: bool) -> None:
    async with RawServer(AskingServer()) as server:
        bounds: dict[str, Any] = {"call_timeout": 0.4, "max_concurrency": 1, "max_queue": 0}
        config = Server(url=server.url, **bounds) if http else asking(**bounds)
        async with House(tmp_path, s=config) as house:
            client = Client()
            client.open.clear()
            await house.ask("s", "hello", principal="bob")  # bob's link is there
            call = asyncio.create_task(house.ask("s", "ask", ask=client.ask, **FORMS))
            await until(lambda: client.questions)
            assert house.status("s").in_flight == 0
            for _ in range(3):
                await house.ask("s", "hello", principal="bob")
            await asyncio.sleep(0.5)  # longer than call_timeout
            client.open.set()
            await call
            assert house.status("s").in_flight == 0


@pytest.mark.parametrize("http", [False, True])
async def test_the_clock_runs_again_after_the_answer(tmp_path: Path, http: bool) -> None:
    async with RawServer(AskingServer()) as server:
        config = Server(url=server.url, call_timeout=0.2) if http else asking(call_timeout=0.2)
        async with House(tmp_path, s=config) as house:
            client = Client()
            with pytest.raises(UpstreamTimeout, match="did not answer in time"):
                await house.call("s", "hang" if http else "hold", ask=client.ask, **FORMS)
            assert house.status("s").in_flight == 0


@pytest.mark.parametrize("http", [False, True])
async def test_a_cancelled_call_withdraws_its_question(tmp_path: Path, http: bool) -> None:
    behaviour = AskingServer()
    async with RawServer(behaviour) as server:
        config = Server(url=server.url) if http else asking()
        async with House(tmp_path, s=config) as house:
            client = Client()
            client.open.clear()
            call = asyncio.create_task(house.call("s", "ask", ask=client.ask, **FORMS))
            await until(lambda: client.questions)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await until(lambda: client.cancelled == 1)
            assert house.status("s").in_flight == 0
            if http:
                await until(lambda: behaviour.cancelled)
            else:
                seen = (await house.ask("s", "seen", **FORMS))["seen"]
                assert any(message.get("method") == "notifications/cancelled" for message in seen)


async def test_a_server_withdraws_its_question(tmp_path: Path) -> None:
    async with House(tmp_path, s=asking()) as house:
        client = Client()
        client.open.clear()
        front: dict[str, Any] = {**LEGACY, "session": "one"}
        call = asyncio.create_task(house.call("s", "withdraw", ask=client.ask, **front))
        await until(lambda: client.cancelled == 1 or (client.questions == [] and house.status("s").in_flight == 1))
        seen = (await house.ask("s", "finish", **front))["seen"]
        assert (await call).error is None
        assert not any(message.get("id") == "unwanted" for message in seen)


async def test_a_server_withdraws_its_question_over_http(tmp_path: Path) -> None:
    behaviour = AskingServer()
    async with RawServer(behaviour) as server, House(tmp_path, s=Server(url=server.url, call_timeout=0.3)) as house:
        client = Client()
        client.open.clear()
        with pytest.raises(UpstreamTimeout):  # the clock runs: nothing is open any more
            await house.call("s", "ask", {"withdraw": True}, ask=client.ask, **FORMS)
        assert behaviour.responses == []


async def test_calls_of_one_legacy_session_are_asked_through_the_newest(tmp_path: Path) -> None:
    async with House(tmp_path, s=asking()) as house:
        front: dict[str, Any] = {**LEGACY, "session": "one"}
        first, second = Client("first"), Client("second")
        held = asyncio.create_task(house.call("s", "hold", ask=first.ask, **front))
        await until(lambda: house.status("s").in_flight == 1)
        result = await house.ask("s", "ask", ask=second.ask, **front)
        assert result["answers"][0]["content"] == {"by": "second"}
        await house.call("s", "finish", **front)
        await held


async def test_a_question_in_doubt_is_put_to_nobody(tmp_path: Path) -> None:
    """One process for a principal with two sessions: whose call does the server ask about?"""
    async with House(tmp_path, s=asking(isolation="principal")) as house:
        one, two = Client("one"), Client("two")
        held = asyncio.create_task(house.call("s", "hold", ask=one.ask, **LEGACY, session="one"))
        await until(lambda: house.status("s").in_flight == 1)
        result = await house.ask("s", "ask", ask=two.ask, **LEGACY, session="two")
        assert result["answers"][0]["code"] == -32601
        assert one.questions == two.questions == []
        await house.call("s", "finish", **LEGACY, session="two")
        await held


async def test_a_question_without_a_call_goes_to_the_session(tmp_path: Path) -> None:
    async with House(tmp_path, s=asking()) as house:
        await house.ask("s", "later", **LEGACY, session="one")
        await until(lambda: house.outside)
        server, principal, session, question = house.outside[0]
        assert (server, principal, session, question.method) == ("s", "alice", "one", "elicitation/create")
        await until_answered(house, "late", {"result": {"action": "decline"}}, **LEGACY, session="one")


async def test_a_question_without_a_call_is_refused_where_nobody_is_known(tmp_path: Path) -> None:
    async with House(tmp_path, s=asking()) as house:
        await house.ask("s", "later", ask=Client().ask, **FORMS)
        await until_answered(house, "late", {"error": {"code": -32601}}, **FORMS)
        assert house.outside == []


async def until_answered(house: House, ident: str, expected: dict[str, Any], **front: Any) -> None:
    async with asyncio.timeout(5):
        while True:
            for message in (await house.ask("s", "seen", **front))["seen"]:
                if message.get("id") == ident:
                    assert all(message[key].items() >= value.items() for key, value in expected.items())
                    return


async def test_a_question_on_the_server_s_own_stream(tmp_path: Path) -> None:
    behaviour = AskingServer()
    async with RawServer(behaviour) as server, House(tmp_path, s=Server(url=server.url)) as house:
        client = Client()
        await house.ask("s", "echo", **FORMS)
        session = behaviour.calls[0]
        await until(lambda: session in behaviour.own)
        result = await house.ask("s", "ask", {"aside": True}, ask=client.ask, **FORMS)
        assert result["told"] == ACCEPTED
        assert house.outside == []


async def test_the_server_s_own_stream_asks_a_session_outside_calls(tmp_path: Path) -> None:
    behaviour = AskingServer()
    async with RawServer(behaviour) as server, House(tmp_path, s=Server(url=server.url)) as house:
        await house.ask("s", "echo", **LEGACY, session="one")
        session = behaviour.calls[0]
        await until(lambda: session in behaviour.own)
        question = {"jsonrpc": "2.0", "id": 1, "method": "elicitation/create", "params": {"message": "?"}}
        behaviour.own[session].event(question)
        await until(lambda: behaviour.responses)
        assert behaviour.responses[0]["result"] == {"action": "decline"}
        assert house.outside[0][1:3] == ("alice", "one")


@pytest.mark.rule("PARK-9")
async def test_a_call_that_may_be_asked_runs_alone_on_its_process(tmp_path: Path) -> None:
    async with House(tmp_path, s=asking()) as house:
        first, second = Client("first"), Client("second")
        first.open.clear()
        one = asyncio.create_task(house.ask("s", "ask", ask=first.ask, **FORMS))
        await until(lambda: first.questions)
        two = await house.ask("s", "ask", ask=second.ask, **FORMS)  # does not wait behind the open question
        assert two["answers"][0]["content"] == {"by": "second"}
        first.open.set()
        assert (await one)["answers"][0]["content"] == {"by": "first"}
        assert (await one)["pid"] != two["pid"]
        again = await house.ask("s", "ask", ask=second.ask, **FORMS)
        assert again["pid"] == (await one)["pid"]  # the first process is the principal's usual one


@pytest.mark.rule("PARK-9")
async def test_more_calls_than_processes_wait_for_their_turn(tmp_path: Path) -> None:
    async with House(tmp_path, s=asking()) as house:
        clients = [Client(f"c{n}") for n in range(9)]
        results = await asyncio.gather(*(house.ask("s", "ask", ask=client.ask, **FORMS) for client in clients))
        assert [result["answers"][0]["content"]["by"] for result in results] == [client.name for client in clients]
        assert len({result["pid"] for result in results}) <= 4


async def test_the_end_of_a_process_ends_its_questions(tmp_path: Path) -> None:
    async with House(tmp_path, s=asking()) as house:
        front: dict[str, Any] = {**LEGACY, "session": "one"}
        client = Client()
        client.open.clear()
        call = asyncio.create_task(house.call("s", "ask", ask=client.ask, **front))
        await until(lambda: client.questions)
        with pytest.raises(UpstreamError, match="exited with status 3"):
            await house.call("s", "die", **front)
        with pytest.raises(UpstreamError, match="exited with status 3"):
            await call
        await until(lambda: client.cancelled == 1)
        assert house.status("s").in_flight == 0
        assert (await house.ask("s", "hello", **front))["hello"]["capabilities"] == {"elicitation": {"form": {}}}


class ByRole:
    """A credential that shows in whose name a request is sent."""

    names_callers = True
    hears = False

    async def lines(self, occasion: Occasion) -> bytes:
        who = occasion.who
        return f"x-caller: {who.subject} as {''.join(who.roles)}\r\n".encode() if who else b"x-caller: callgate\r\n"

    async def refused(self, occasion: Occasion, lines: bytes, response: Response) -> bool:
        return False

    def heard(self, occasion: Occasion, response: Response) -> None: ...

    async def aclose(self) -> None: ...


@pytest.mark.rule("RS-8")
@pytest.mark.parametrize("stateless", [False, True])
async def test_an_answer_is_sent_in_the_name_of_the_call_that_it_was_asked_for(tmp_path: Path, stateless: bool) -> None:
    async with RawServer(AskingServer(stateless=stateless)) as server:
        house = House(tmp_path, s=Server(url=server.url, protocol="legacy"))
        house.upstreams._credential = lambda name, server, references: ByRole()

        async def call(tool: str, role: str, ask: Ask | None = None) -> Answer:
            plain = permitted("s", tool, {}, **FORMS)
            who = msgspec.structs.replace(plain.call.principal, roles=(role,))
            one = Permitted(msgspec.structs.replace(plain.call, principal=who), plain.verdict)
            return await house.upstreams.send(one, Conduct(house.emit, ask))

        async def as_somebody_else(question: Question) -> Answer:
            await call("echo", "admin")  # the same person with more roles, meanwhile
            return Answer(result=b'{"action":"accept"}')

        async with house:
            assert (await call("ask", "reader", as_somebody_else)).error is None
        posts = [each for each in server.requests if each.method == "POST"]
        (answer,) = [each for each in posts if "method" not in each.message]
        assert answer.headers["x-caller"] == "alice as reader"

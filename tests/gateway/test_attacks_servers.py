"""Attacks of servers: on the memory and the time of everybody, on other servers' names, on clients that do not read."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from callgate.gateway import bus, replay, task_store
from callgate.gateway.bus import Mailbox
from callgate.gateway.replay import Stream
from callgate.gateway.subscribing import DEEPEST, LONGEST, UPDATED, parents
from callgate.upstream import questions
from tests.gateway.askers import FORM, LegacyAsker, ModernAsker, asks, elicit
from tests.gateway.dialogue import begin
from tests.gateway.stand import Stand, until
from tests.gateway.tasking import ModernClient, begun, open_stand
from tests.gateway.tellers import Teller
from tests.gateway.tellers import serve as tell
from tests.gateway.test_subscribing import updated
from tests.gateway.upstreams import Modern, Script, http, serve, text
from tests.servers.tasks_http import LegacyTasks, ModernTasks

pytestmark = pytest.mark.anyio


async def test_a_uri_with_many_parts_takes_no_time_and_no_memory(tmp_path: Path) -> None:
    """The URIs above a URI take memory that grows with the square of its length."""
    deep = "note:" + "/" * 200_000
    began = time.process_time()
    assert parents(deep) == [deep]
    assert time.process_time() - began < 0.05
    widest = "file:///" + "/".join(["x" * 20] * (DEEPEST - 2))
    assert len(widest) < LONGEST and len(parents(widest)) > DEEPEST
    async with tell(Teller()) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        behaviour: Any = server.handler
        session = await stand.legacy()
        stream = await session.listen()
        await session.ask("resources/subscribe", {"uri": "u+note:1"})
        behaviour.tell(UPDATED, uri=deep)
        behaviour.tell(UPDATED, uri="note:1")
        assert await stream.event() == updated("u+note:1")
        await stream.close()


async def test_what_waits_for_a_listener_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server may tell of any number of resources below one that somebody subscribed to."""
    monkeypatch.setattr(bus, "HELD", 1000)
    mail = Mailbox()
    for number in range(100):
        mail.put(number, b"%099d!" % number)
    assert len(mail) == 10
    mail.put(99, b"x" * 5000)  # the newest is kept, however large it is
    assert (len(mail), await mail.next()) == (1, b"x" * 5000)
    for number in range(100):
        mail.put(number, b"%099d!" % number)
    assert await mail.next() == b"%099d!" % 90


async def test_what_waits_for_a_session_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "STREAM_BYTES", 1000)
    stream = Stream()
    for number in range(100):
        stream.hear("", b"%099d!" % number)
    assert (stream.held, stream.qsize()) == (1000, 10)
    stream.hear("", b"x" * 5000)
    assert await stream.get() == ("", b"x" * 5000)
    stream.cut()
    assert await stream.get() is None
    assert stream.held == 0


@pytest.mark.parametrize("key", ["uri", r"\u0075ri", r"u\u0072\u0069"])
async def test_a_server_cannot_link_to_a_resource_of_another_one(tmp_path: Path, key: str) -> None:
    """``git+…`` in the mouth of another server is a URI of that server, however its member is spelled."""
    block = b'{"type":"resource_link","name":"n","%b":"git+file:///key"}' % key.encode()
    result = b'{"resultType":"complete","content":[%b]}' % block

    async def act(message: Any, peer: Any) -> None:
        raw = b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (message["id"], result)
        peer.body(raw)

    async with serve(Modern(Script(acts={"link": act}))) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        (told,) = (await stand.result("u__link"))["content"]
        assert told["uri"] == "u+git+file:///key"


async def test_a_result_with_too_many_questions_is_refused(tmp_path: Path) -> None:
    """Each of them would be asked by a task of its own."""
    many = {f"k{number}": elicit() for number in range(65)}
    server = ModernAsker(many=lambda params: asks(many))
    async with serve(server) as upstream, Stand(tmp_path, {"u": http(upstream)}) as stand:
        session = await stand.legacy(elicitation={})
        assert (await session.call("u__many")).error == -31502


@pytest.mark.parametrize("asked", [65, "none"])
async def test_a_task_with_too_many_questions_is_refused(tmp_path: Path, asked: Any) -> None:
    server = ModernTasks()
    async with open_stand(tmp_path, server) as stand:
        client = ModernClient(stand)
        id = (await client.started())["taskId"]
        server.jobs.last.questions = asked if asked == "none" else {f"k{each}": elicit() for each in range(asked)}
        assert (await client.about("get", id)).error == -31502


@pytest.mark.parametrize("era", [ModernTasks, LegacyTasks])
@pytest.mark.parametrize("member", ["taskId", "statusMessage"])
async def test_a_large_task_is_not_remembered(tmp_path: Path, era: Any, member: str) -> None:
    """A server's id of a task would be sealed into ours, however long it is."""
    server = era()
    server.makes = {"taskId": "t", "status": "working", member: "x" * 100_000}
    async with open_stand(tmp_path, server) as stand:
        assert (await ModernClient(stand).call("jobs__slow")).error == -31502
        assert not len(stand.house.tasks)


async def test_open_questions_are_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "MAX_HELD", 10_000)
    heard: list[Any] = []

    async def talk(server: LegacyAsker, message: Any, peer: Any) -> Any:
        question = {"method": "elicitation/create", "params": {**FORM, "message": "x" * 6000}}
        asking = [asyncio.ensure_future(server.ask(peer, question)) for _ in range(2)]
        done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        heard.extend(each.result() for each in done)
        return text("done")

    async with serve(LegacyAsker(large=talk)) as server, Stand(tmp_path, {"u": http(server, "legacy")}) as stand:
        session = await stand.legacy(elicitation={})
        wire = await begin(session, "u__large")
        await until(lambda: heard)
        assert heard[0]["error"]["message"] == "too many questions are open"
        await wire.close()


async def test_results_of_one_caller_push_nobody_elses_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_store, "KEPT_BYTES", 2000)
    async with open_stand(tmp_path, ModernTasks()) as stand:
        ann, ben = await stand.legacy("ann"), await stand.legacy("ben")
        hers = (await begun(ann, "jobs__quick"))["taskId"]
        for _ in range(60):
            await begun(ben, "jobs__quick")
        assert stand.house.tasks.bytes <= 2000
        assert "result" in (await ann.ask("tasks/result", {"taskId": hers})).json


class Eager(Teller):
    """Announces another list whenever it lists."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    async def __call__(self, request: Any, peer: Any) -> None:
        if request.message["method"] == "tools/list":
            self.times.append(asyncio.get_running_loop().time())
            self.tell("notifications/tools/list_changed")
        await super().__call__(request, peer)


async def test_a_server_that_announces_all_the_time_is_not_listed_all_the_time(tmp_path: Path) -> None:
    server = Eager()
    async with tell(server) as upstream, Stand(tmp_path, {"u": http(upstream)}):
        await until(lambda: len(server.times) > 5)
        assert server.times[5] - server.times[0] > 0.3

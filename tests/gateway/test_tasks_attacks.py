"""Attacks on tasks: other people's ids, changed ids, floods, and access that was taken away."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from callgate.errors import ProtocolError
from callgate.gateway import task_legacy
from callgate.gateway.task_ids import TaskIds, Ticket
from tests.fuzz.raw import Reply
from tests.gateway.stand import allow, deny, refused, until
from tests.gateway.tasking import ANN, ASKABLE, ModernClient, begun, got, open_stand
from tests.servers.tasks_http import LegacyTasks, ModernTasks, said

pytestmark = pytest.mark.anyio

SERVERS = [ModernTasks, LegacyTasks]


def said_of(reply: Reply) -> tuple[int, str]:
    """The error, without the id of the call."""
    return reply.json["error"]["code"], reply.json["error"]["message"]


@pytest.mark.rule("TASK-5")
@pytest.mark.rule("TASK-8")
@pytest.mark.parametrize("era", SERVERS)
async def test_a_stolen_id_is_an_unknown_id(tmp_path: Path, era: Any) -> None:
    server = era()
    async with open_stand(tmp_path, server) as stand:
        id = (await ModernClient(stand).started())["taskId"]
        thief, asked = ModernClient(stand, "ben"), len(server.jobs.heard)
        unknown = said_of(await thief.about("get", "A" * 120))
        for method in ("get", "update", "cancel"):
            reply = refused(await thief.about(method, id, inputResponses={}), 400, -32602)
            assert said_of(reply) == unknown
        old = await stand.legacy("ben")
        for method in ("get", "result", "cancel"):
            assert said_of(await old.ask(f"tasks/{method}", {"taskId": id})) == unknown
        assert (await old.ask("tasks/list")).json["result"] == {"tasks": []}
        assert len(server.jobs.heard) == asked and not server.jobs.last.over.is_set()
        records = [each for each in await stand.records(8) if each["method"].startswith("tasks/")]
        assert len(records) == 7
        assert {(each["outcome"], each["subject"], each["tool"]) for each in records} == {("refused", "ben", "")}


@pytest.mark.rule("TASK-5")
async def test_a_servers_own_id_leads_nowhere(tmp_path: Path) -> None:
    server = ModernTasks()
    async with open_stand(tmp_path, server) as stand:
        client = ModernClient(stand)
        await client.started()
        for id in ("inner-1", "", "x" * 20_000):
            refused(await client.about("get", id), 400, -32602)
        assert len(server.jobs.heard) == 1


@pytest.mark.rule("TASK-5")
async def test_every_byte_of_an_id_counts() -> None:
    ids = TaskIds(lambda: b"k" * 32)
    ticket = Ticket("ann", "jobs", "slow", "inner-1", "modern", 2**40, "digest", '{"n":1}')
    id = ids.seal(ticket)
    assert ids.open(id, "ann") == ticket and ids.seal(ticket) != id
    changed = [id[:at] + ("B" if id[at] == "A" else "A") + id[at + 1 :] for at in range(len(id))]
    for wrong in (*changed, id[:-1], id + "A", id + "=", id + "\n", "é" * 60):
        with pytest.raises(Exception, match="Unknown task"):
            ids.open(wrong, "ann")
    with pytest.raises(Exception, match="Unknown task"):
        TaskIds(lambda: b"j" * 32).open(id, "ann")


async def test_an_id_has_its_time() -> None:
    ids = TaskIds(lambda: b"k" * 32)
    with pytest.raises(Exception, match="Unknown task"):
        ids.open(ids.seal(Ticket("ann", "jobs", "slow", "inner-1", "modern", 1, "digest")), "ann")


@pytest.mark.parametrize("era", SERVERS)
async def test_access_that_was_taken_away_is_gone_for_tasks_too(tmp_path: Path, era: Any) -> None:
    server = era()
    async with open_stand(tmp_path, server) as stand:
        client, old = ModernClient(stand), await stand.legacy("ann")
        id = (await client.started())["taskId"]
        await stand.reload(policy={"rules": [deny("jobs/slow"), allow("*/*")]})
        asked = len(server.jobs.heard)
        for method in ("get", "update", "cancel"):
            refused(await client.about(method, id, inputResponses={}), 200, -31403)
        assert (await old.ask("tasks/result", {"taskId": id})).error == -31403
        assert (await old.ask("tasks/list")).json["result"] == {"tasks": []}
        assert len(server.jobs.heard) == asked
        records = await stand.records()
        assert {each["outcome"] for each in records if each["method"].startswith("tasks/")} == {"denied"}


async def test_policy_sees_the_arguments_of_the_call(tmp_path: Path) -> None:
    server = ModernTasks()
    async with open_stand(tmp_path, server) as stand:
        client = ModernClient(stand)
        id = (await client.started())["taskId"]
        await stand.reload(policy={"rules": [allow("jobs/*", when="args.n == 1")]})
        await client.result("get", id)
        await stand.reload(policy={"rules": [allow("jobs/*", when="args.n == 2")]})
        refused(await client.about("get", id), 200, -31403)


async def test_a_task_of_another_door_is_unknown(tmp_path: Path) -> None:
    virtual = {"few": {"tools": ["jobs/quick"]}, "all": {"tools": ["jobs/*"]}}
    async with open_stand(tmp_path, ModernTasks(), virtual_servers=virtual) as stand:
        id = (await ModernClient(stand).started())["taskId"]
        for door, known in (("few", False), ("all", True)):
            old = await stand.legacy("ann", path=f"/mcp/{door}")
            assert ("result" in (await old.ask("tasks/get", {"taskId": id})).json) is known


async def test_a_server_that_was_changed_does_not_get_old_ids(tmp_path: Path) -> None:
    server = ModernTasks()
    async with open_stand(tmp_path, server) as stand:
        client = ModernClient(stand)
        id = (await client.started())["taskId"]
        jobs = {**stand.settings["servers"]["jobs"], "call_timeout": "7s"}
        await stand.reload(servers={"jobs": jobs})
        refused(await client.about("get", id), 400, -32602)
        assert len(server.jobs.heard) == 1


@pytest.mark.key("limits.max_tasks")
@pytest.mark.parametrize("era", SERVERS)
async def test_a_flood_of_tasks_is_refused(tmp_path: Path, era: Any) -> None:
    server = era()
    async with open_stand(tmp_path, server, limits={"max_tasks": 2}) as stand:
        client = await stand.legacy("ann")
        first = await begun(client)
        await begun(client)
        assert (await client.call("jobs__slow", task={})).error == -31429
        assert len(server.jobs.jobs) == 2
        await begun(await stand.legacy("ben"))  # other people have their own
        await got(client, "cancel", first["taskId"])
        await begun(client)
        assert len(stand.house.tasks) == 3


async def test_a_flood_of_finished_tasks_forgets_the_oldest(tmp_path: Path) -> None:
    async with open_stand(tmp_path, ModernTasks(), limits={"max_tasks": 2}) as stand:
        client = await stand.legacy("ann")
        ids = [(await begun(client, "jobs__quick"))["taskId"] for _ in range(3)]
        assert (await client.ask("tasks/result", {"taskId": ids[0]})).error == -32602
        assert (await got(client, "result", ids[2]))["content"][0]["text"] == "at once"
        assert len(stand.house.tasks) == 2


async def test_answers_to_questions_that_nobody_asked_change_nothing(tmp_path: Path) -> None:
    server = LegacyTasks()
    async with open_stand(tmp_path, server) as stand:
        client = ModernClient(stand, capabilities=ASKABLE)
        id = (await client.started())["taskId"]
        server.jobs.last.ask_old("Who?")
        (key,) = (await client.result("get", id))["inputRequests"]
        refused(await client.about("update", id, inputResponses={key: "yes"}), 400, -32602)
        refused(await client.about("update", id), 400, -32602)
        await client.result("update", id, inputResponses={"other": ANN})
        assert (await client.result("get", id))["status"] == "input_required"
        await client.result("update", id, inputResponses={key: ANN})
        await until(lambda: server.jobs.last.answers)
        await client.result("update", id, inputResponses={key: {"action": "decline"}})
        assert len(server.jobs.last.answers) == 1
        server.jobs.last.finish(said("ok"))
        assert (await client.result("get", id))["status"] == "completed"


@pytest.mark.rule("PARK-7")
async def test_a_server_cannot_ask_what_the_client_did_not_declare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_legacy, "AWAITED", 0.1)
    server = LegacyTasks()
    async with open_stand(tmp_path, server) as stand:
        client = ModernClient(stand)
        id = (await client.started())["taskId"]
        server.jobs.last.ask_old("Who?")
        assert (await client.result("get", id))["status"] == "working"
        await until(lambda: server.jobs.last.answers)
        assert server.jobs.last.answers["Who?"]["error"]["code"] == -32601


BROKEN: list[dict[str, Any]] = [
    {"status": "resting"},
    {"status": "input_required", "questions": [1]},
    {"status": "input_required", "questions": {"k": {"params": {}}}},
    {"status": "failed", "outcome": {"error": "no"}},
    {"status": "completed", "outcome": {"result": "no"}},
]


@pytest.mark.parametrize("broken", BROKEN)
async def test_a_task_that_cannot_be_read_is_the_servers_mistake(tmp_path: Path, broken: dict[str, Any]) -> None:
    server = ModernTasks()
    async with open_stand(tmp_path, server) as stand:
        old = await stand.legacy("ann", elicitation={})
        id = (await begun(old))["taskId"]
        for name, value in broken.items():
            setattr(server.jobs.last, name, value)
        assert (await old.ask("tasks/result", {"taskId": id})).error == -31502
        records = await stand.records(2)
        assert records[-1]["outcome"] == "failed"


@pytest.mark.parametrize("era", SERVERS)
@pytest.mark.parametrize("made", ["no", {}, {"taskId": 1, "status": "working"}, {"taskId": "a", "status": 1}])
async def test_a_task_that_is_none_is_the_servers_mistake(tmp_path: Path, era: Any, made: Any) -> None:
    server = era()
    server.makes = made
    async with open_stand(tmp_path, server) as stand:
        assert (await ModernClient(stand).call("jobs__slow")).error == -31502
        assert not len(stand.house.tasks)


@pytest.mark.rule("EXT-1")
async def test_questions_that_the_client_did_not_declare_are_not_shown(tmp_path: Path) -> None:
    server = ModernTasks()
    async with open_stand(tmp_path, server) as stand:
        client = ModernClient(stand)
        id = (await client.started())["taskId"]
        server.jobs.last.ask("k", "Who?")
        assert (await client.result("get", id))["inputRequests"] == {}


async def test_a_forgotten_result_frees_its_memory(tmp_path: Path) -> None:
    async with open_stand(tmp_path, ModernTasks(), limits={"task_ttl": "1s"}) as stand:
        client = await stand.legacy("ann")
        await begun(client, "jobs__quick", ttl=1)
        tasks = stand.house.tasks

        def gone() -> bool:
            tasks.sweep()
            return not len(tasks)

        await until(gone)
        assert tasks.bytes == 0


@pytest.mark.rule("TASK-5")
def test_an_id_is_worth_nothing_after_its_time() -> None:
    ids = TaskIds(lambda: bytes(32))
    ticket = Ticket("ann", "jobs", "slow", "inner", "modern", int(time.time()) + 60, "d")
    assert ids.open(ids.seal(ticket), "ann") == ticket
    late = msgspec.structs.replace(ticket, expires=int(time.time()) - 1)
    with pytest.raises(ProtocolError) as caught:
        ids.open(ids.seal(late), "ann")
    assert caught.value.rpc_code == -32602

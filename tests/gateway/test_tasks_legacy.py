"""Tasks of clients of 2025-11-25, at servers of both eras."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from callgate.gateway import task_own
from tests.fuzz.messages import rpc
from tests.gateway.dialogue import ANN, answer, stream
from tests.gateway.stand import Stand, refused, until
from tests.gateway.tasking import PEOPLE, begun, got, open_stand
from tests.gateway.upstreams import http, serve
from tests.servers.tasks_http import RELATED, LegacyTasks, ModernTasks, said

pytestmark = pytest.mark.anyio

SERVERS = [ModernTasks, LegacyTasks]


@pytest.mark.rule("TASK-9")
@pytest.mark.parametrize("era", SERVERS)
async def test_a_task_runs_to_its_end(tmp_path: Path, era: Any) -> None:
    server = era()
    async with open_stand(tmp_path, server) as stand:
        client = await stand.legacy("ann")
        task = await begun(client, ttl=60000)
        id = task["taskId"]
        assert id != "inner-1" and task["status"] == "working"
        assert (task["ttl"], task["pollInterval"], task["x-vendor"]) == (60000, 20, 1.5)
        looked = await got(client, "get", id)
        assert looked == task
        waiting = asyncio.create_task(got(client, "result", id))
        await until(lambda: len(server.jobs.heard) > 3 or server.jobs.of("tasks/result"))
        server.jobs.last.finish(said("at last", structuredContent={"a": None}))
        result = await waiting
        assert result["content"] == [{"type": "text", "text": "at last"}]
        assert result["structuredContent"] == {"a": None}
        assert result["_meta"][RELATED] == {"taskId": id}
        assert (await got(client, "get", id))["status"] == "completed"
        assert (await got(client, "result", id))["content"] == result["content"]


async def test_the_server_gets_the_wish_and_its_answer_passes(tmp_path: Path) -> None:
    server = LegacyTasks()
    async with open_stand(tmp_path, server) as stand:
        client = await stand.legacy("ann")
        reply = await client.call("jobs__slow", task={"ttl": 7000, "x": 1})
        assert reply.json["result"]["_meta"] == {"x": 1}
        assert server.jobs.heard[0]["params"]["task"] == {"ttl": 7000, "x": 1}


@pytest.mark.key("limits.task_ttl")
async def test_no_task_lives_longer_than_it_may(tmp_path: Path) -> None:
    server = LegacyTasks()
    async with open_stand(tmp_path, server, limits={"task_ttl": "9s"}) as stand:
        client = await stand.legacy("ann")
        assert (await begun(client, ttl=10**9))["ttl"] == 9000  # the server said 60000
        assert server.jobs.heard[0]["params"]["task"] == {"ttl": 9000}


async def test_a_tool_that_is_no_task_answers_at_once(tmp_path: Path) -> None:
    async with open_stand(tmp_path, LegacyTasks()) as stand:
        reply = await (await stand.legacy("ann")).call("jobs__plain", task={})
        assert reply.json["result"]["content"][0]["text"] == "at once"


async def test_a_server_without_tasks_gets_no_wish(tmp_path: Path) -> None:
    server = ModernTasks(offers=False)
    async with open_stand(tmp_path, server) as stand:
        client = await stand.legacy("ann")
        reply = await client.call("jobs__quick", task={"ttl": 1})
        assert reply.json["result"]["content"][0]["text"] == "at once"
        assert "task" not in server.jobs.heard[0]["params"]
        assert (await client.ask("tasks/list")).error == -32601


async def test_a_result_that_is_there_at_once_is_a_task_of_the_gateway(tmp_path: Path) -> None:
    server = ModernTasks()
    async with open_stand(tmp_path, server) as stand:
        client = await stand.legacy("ann")
        task = await begun(client, "jobs__quick", ttl=5000)
        assert (task["status"], task["ttl"]) == ("working", 5000)
        id = task["taskId"]
        assert (await got(client, "get", id))["status"] == "completed"
        result = await got(client, "result", id)
        assert result["content"][0]["text"] == "at once" and result["_meta"][RELATED] == {"taskId": id}
        assert (await client.ask("tasks/cancel", {"taskId": id})).error == -32602
        wrong = await begun(client, "jobs__wrong")
        assert (await got(client, "get", wrong["taskId"]))["status"] == "failed"
        assert len(server.jobs.heard) == 2


@pytest.mark.parametrize("era", SERVERS)
async def test_a_task_is_called_off(tmp_path: Path, era: Any) -> None:
    server = era()
    async with open_stand(tmp_path, server) as stand:
        client = await stand.legacy("ann")
        id = (await begun(client))["taskId"]
        assert (await got(client, "cancel", id))["status"] == "cancelled"
        assert server.jobs.last.status == "cancelled"
        server.jobs.last.status = "completed"  # whatever it still does
        assert (await got(client, "get", id))["status"] == "cancelled"
        assert (await client.ask("tasks/cancel", {"taskId": id})).error == -32602
        assert "error" in (await client.ask("tasks/result", {"taskId": id})).json


@pytest.mark.parametrize("era", SERVERS)
async def test_a_task_that_failed_gives_the_error(tmp_path: Path, era: Any) -> None:
    server = era()
    async with open_stand(tmp_path, server) as stand:
        client = await stand.legacy("ann")
        id = (await begun(client))["taskId"]
        server.jobs.last.finish(error={"code": -32602, "message": "that went wrong"})
        reply = await client.ask("tasks/result", {"taskId": id})
        assert reply.json["error"] == {"code": -32602, "message": "that went wrong"}
        assert (await got(client, "get", id))["status"] == "failed"


@pytest.mark.parametrize("era", SERVERS)
async def test_a_tool_that_failed_has_failed(tmp_path: Path, era: Any) -> None:
    server = era()
    async with open_stand(tmp_path, server) as stand:
        client = await stand.legacy("ann")
        id = (await begun(client))["taskId"]
        server.jobs.last.finish(said("no", isError=True), status="completed" if era is ModernTasks else "failed")
        assert (await got(client, "get", id))["status"] == "failed"
        assert (await got(client, "result", id))["isError"] is True


@pytest.mark.parametrize("era", SERVERS)
async def test_the_client_is_asked_while_it_waits_for_the_result(tmp_path: Path, era: Any) -> None:
    server = era()
    async with open_stand(tmp_path, server) as stand:
        client = await stand.legacy("ann", elicitation={})
        id = (await begun(client))["taskId"]
        if era is ModernTasks:
            server.jobs.last.ask("k1", "Who?")
        else:
            server.jobs.last.ask_old("Who?")
        wire = await stream(client, rpc("tasks/result", {"taskId": id}, 7))
        question = await wire.event()
        assert question["method"] == "elicitation/create" and question["params"]["message"] == "Who?"
        if era is LegacyTasks:
            assert question["params"]["_meta"][RELATED] == {"taskId": id}
        await answer(client, question)
        await until(lambda: server.jobs.last.answers)
        told = next(iter(server.jobs.last.answers.values()))
        assert (told if era is ModernTasks else told["result"])["content"] == ANN["content"]
        server.jobs.last.finish(said("hello Ann"))
        result = (await wire.event())["result"]
        assert result["content"][0]["text"] == "hello Ann" and result["_meta"][RELATED] == {"taskId": id}
        await wire.close()


@pytest.mark.parametrize("era", SERVERS)
async def test_the_result_outlives_the_connection(tmp_path: Path, era: Any) -> None:
    server = era()
    async with open_stand(tmp_path, server) as stand:
        client = await stand.legacy("ann")
        id = (await begun(client))["taskId"]
        wire = await stand.connect()
        wire.send(client.request(rpc("tasks/result", {"taskId": id}, 3)))
        await until(lambda: len(server.jobs.heard) > 1)
        await wire.close()
        server.jobs.last.finish(said("still here"))
        assert (await got(client, "result", id))["content"][0]["text"] == "still here"


async def test_waiting_is_not_ended_by_the_deadline_of_calls(tmp_path: Path) -> None:
    server = LegacyTasks()
    async with serve(server) as upstream:
        jobs = http(upstream, "legacy", call_timeout="100ms")
        async with Stand(tmp_path, {"jobs": jobs}, **PEOPLE) as stand:
            client = await stand.legacy("ann")
            id = (await begun(client))["taskId"]
            waiting = asyncio.create_task(got(client, "result", id))
            await until(lambda: len(server.jobs.of("tasks/result")) > 2)
            server.jobs.last.finish(said("after all"))
            assert (await waiting)["content"][0]["text"] == "after all"


async def test_tasks_are_listed(tmp_path: Path) -> None:
    modern, legacy = ModernTasks(), LegacyTasks()
    async with serve(modern) as one, serve(legacy) as other:
        servers = {"one": http(one), "two": http(other, "legacy")}
        async with Stand(tmp_path, servers, **PEOPLE) as stand:
            client = await stand.legacy("ann")
            ids = [(await begun(client, f"{name}__slow"))["taskId"] for name in ("one", "two")]
            ids.append((await begun(client, "one__quick"))["taskId"])
            await begun(await stand.legacy("ben"), "one__slow")
            modern.jobs.jobs[0].finish()
            listed = (await client.ask("tasks/list")).json["result"]
            assert [task["taskId"] for task in listed["tasks"]] == ids
            assert [task["status"] for task in listed["tasks"]] == ["completed", "working", "completed"]
            own = await stand.legacy("ann", path="/servers/two/mcp")
            assert [task["taskId"] for task in (await own.ask("tasks/list")).json["result"]["tasks"]] == [ids[1]]


async def test_the_list_has_pages(tmp_path: Path) -> None:
    async with open_stand(tmp_path, ModernTasks(), list_page_size=2) as stand:
        client = await stand.legacy("ann")
        ids = [(await begun(client))["taskId"] for _ in range(3)]
        first = (await client.ask("tasks/list")).json["result"]
        rest = (await client.ask("tasks/list", {"cursor": first["nextCursor"]})).json["result"]
        assert [task["taskId"] for task in first["tasks"] + rest["tasks"]] == ids and "nextCursor" not in rest
        other = await stand.legacy("ben")
        assert (await other.ask("tasks/list", {"cursor": first["nextCursor"]})).error == -32602


async def test_what_tools_can_be_tasks(tmp_path: Path) -> None:
    async with open_stand(tmp_path, ModernTasks()) as stand:
        old = (await (await stand.legacy("ann")).ask("tools/list")).json["result"]["tools"]
        assert all(each["execution"] == {"taskSupport": "optional"} for each in old)
        new = (await stand.modern("tools/list", who="ann")).json["result"]["tools"]
        assert all("execution" not in each for each in new)
    async with open_stand(tmp_path, LegacyTasks()) as stand:
        old = (await (await stand.legacy("ann")).ask("tools/list")).json["result"]["tools"]
        assert [each.get("execution") for each in old] == [
            {"taskSupport": "required"},
            None,
            {"taskSupport": "optional"},
        ]


async def test_older_versions_have_no_tasks(tmp_path: Path) -> None:
    server = LegacyTasks()
    async with open_stand(tmp_path, server) as stand:
        client = await stand.legacy("ann", version="2025-06-18")
        assert (await client.ask("tasks/list")).error == -32601
        assert (await client.call("jobs__slow", task={})).json["result"]["content"][0]["text"] == "at once"
        waiting = asyncio.create_task(client.call("jobs__must"))
        await until(lambda: server.jobs.of("tasks/result"))
        server.jobs.last.finish(said("run as one"))
        assert (await waiting).json["result"]["content"][0]["text"] == "run as one"


async def test_methods_of_the_other_era_do_not_exist(tmp_path: Path) -> None:
    async with open_stand(tmp_path, ModernTasks()) as stand:
        client = await stand.legacy("ann")
        id = (await begun(client))["taskId"]
        assert (await client.ask("tasks/update", {"taskId": id, "inputResponses": {}})).error == -32601
        refused(await stand.modern("tasks/result", {"taskId": id}, who="ann"), 404, -32601)
        refused(await stand.modern("tasks/list", who="ann"), 404, -32601)


async def test_a_call_that_takes_its_time_is_a_task_of_the_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_own, "PROMPT", 0.1)
    gate, server = asyncio.Event(), ModernTasks()
    server.gate = gate
    async with open_stand(tmp_path, server) as stand:
        client = await stand.legacy("ann")
        id = (await begun(client, "jobs__long"))["taskId"]
        assert (await got(client, "get", id))["status"] == "working"
        waiting = asyncio.create_task(got(client, "result", id))
        await until(lambda: len(server.jobs.heard) == 1)
        gate.set()
        assert (await waiting)["content"][0]["text"] == "at once"
        assert (await got(client, "get", id))["status"] == "completed"


async def test_a_call_that_takes_its_time_can_be_called_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_own, "PROMPT", 0.1)
    server = ModernTasks()
    server.gate = asyncio.Event()
    async with open_stand(tmp_path, server) as stand:
        client = await stand.legacy("ann")
        id = (await begun(client, "jobs__long"))["taskId"]
        waiting = asyncio.create_task(client.ask("tasks/result", {"taskId": id}, 2))
        assert (await got(client, "cancel", id))["status"] == "cancelled"
        await until(lambda: server.given_up)
        assert "error" in (await waiting).json
        assert (await got(client, "get", id))["status"] == "cancelled"


async def test_a_call_that_asks_is_a_task_that_waits_for_input(tmp_path: Path) -> None:
    server = ModernTasks()
    async with open_stand(tmp_path, server) as stand:
        client = await stand.legacy("ann", elicitation={})
        id = (await begun(client, "jobs__curious"))["taskId"]
        assert (await got(client, "get", id))["status"] == "input_required"
        wire = await stream(client, rpc("tasks/result", {"taskId": id}, 7))
        question = await wire.event()
        assert question["params"]["message"] == "Who?"
        await answer(client, question)
        result = (await wire.event())["result"]
        assert result["content"][0]["text"] == "hello Ann" and result["_meta"][RELATED] == {"taskId": id}
        await wire.close()


async def test_a_call_that_asks_and_then_becomes_a_task_of_the_server(tmp_path: Path) -> None:
    server = ModernTasks()
    async with open_stand(tmp_path, server) as stand:
        client = await stand.legacy("ann", elicitation={})
        id = (await begun(client, "jobs__slowly"))["taskId"]
        wire = await stream(client, rpc("tasks/result", {"taskId": id}, 7))
        await answer(client, await wire.event())
        await until(lambda: server.jobs.jobs)
        server.jobs.last.finish(said("theirs"))
        result = (await wire.event())["result"]
        assert result["content"][0]["text"] == "theirs" and result["_meta"][RELATED] == {"taskId": id}
        assert (await got(client, "get", id))["taskId"] == id
        assert [each["taskId"] for each in (await client.ask("tasks/list")).json["result"]["tasks"]] == [id]
        await wire.close()

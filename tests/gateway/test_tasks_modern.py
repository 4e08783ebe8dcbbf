"""Tasks of clients of the modern era, at servers of both eras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.messages import PREFIX, modern
from tests.gateway.library import ModernLibrary
from tests.gateway.stand import Stand, allow, refused, until
from tests.gateway.tasking import ANN, ASKABLE, KNOWS, PEOPLE, ModernClient, open_stand
from tests.gateway.upstreams import http, serve
from tests.servers.mcp_http import result_of
from tests.servers.raw_http import Peer, Request
from tests.servers.tasks_http import RELATED, TASKS, LegacyTasks, ModernTasks, said, signed

pytestmark = pytest.mark.anyio

SERVERS = [ModernTasks, LegacyTasks]


@pytest.mark.rule("TASK-1")
@pytest.mark.rule("TASK-8")
@pytest.mark.rule("TASK-9")
@pytest.mark.parametrize("era", SERVERS)
async def test_a_task_runs_to_its_end(tmp_path: Path, era: Any) -> None:
    server = era()
    async with open_stand(tmp_path, server) as stand:
        client = ModernClient(stand)
        task = await client.started()
        assert task["taskId"] != "inner-1" and task["status"] == "working" and task["ttlMs"] == 60000
        assert task["x-vendor"] == 1.5
        looked = await client.result("get", task["taskId"])
        assert (looked["status"], looked["resultType"], looked["taskId"]) == ("working", "complete", task["taskId"])
        server.jobs.last.finish(said("at last", structuredContent=None))
        ended = await client.result("get", task["taskId"])
        assert ended["status"] == "completed" and ended["resultType"] == "complete"
        assert ended["result"]["content"] == [{"type": "text", "text": "at last"}]
        assert ended["result"]["structuredContent"] is None
        assert "inner-1" not in str(ended)


@pytest.mark.rule("TASK-9")
async def test_the_server_is_asked_by_its_own_id_in_body_and_header(tmp_path: Path) -> None:
    server = ModernTasks()
    async with open_stand(tmp_path, server) as stand:
        client = ModernClient(stand)
        task = await client.started()
        await client.result("get", task["taskId"])
        await client.result("update", task["taskId"], inputResponses={})
        await client.result("cancel", task["taskId"])
        assert [each["params"]["taskId"] for each in server.jobs.heard[1:]] == ["inner-1"] * 3
        assert server.names == ["inner-1"] * 3


async def test_the_header_must_name_the_task(tmp_path: Path) -> None:
    async with open_stand(tmp_path, ModernTasks()) as stand:
        client = ModernClient(stand)
        task = await client.started()
        message = modern("tasks/get", {"taskId": task["taskId"]})
        refused(await client.send(message, ("Mcp-Name", "inner-1")), 400, -32020)
        refused(await client.send(message), 400, -32020)


@pytest.mark.rule("TASK-3")
@pytest.mark.rule("EXT-1")
@pytest.mark.parametrize("method", ["get", "update", "cancel"])
async def test_a_client_that_does_not_declare_tasks_cannot_ask_about_them(tmp_path: Path, method: str) -> None:
    server = ModernTasks()
    async with open_stand(tmp_path, server) as stand:
        task = await ModernClient(stand).started()
        reply = await ModernClient(stand, capabilities={}).about(method, task["taskId"], inputResponses={})
        refused(reply, 400, -32021)
        assert reply.json["error"]["data"] == {"requiredCapabilities": {"extensions": {TASKS: {}}}}
        assert len(server.jobs.heard) == 1


@pytest.mark.rule("TASK-1")
@pytest.mark.rule("EXT-1")
async def test_a_client_that_does_not_declare_tasks_gets_none(tmp_path: Path) -> None:
    server = ModernTasks()
    async with open_stand(tmp_path, server) as stand:
        client = ModernClient(stand, capabilities={})
        assert (await client.call("jobs__slow")).json["result"]["resultType"] == "complete"
        reply = await client.call("jobs__rude")
        assert "result" not in reply.json and "inner" not in str(reply.json)


@pytest.mark.rule("TASK-1")
@pytest.mark.parametrize(("method", "params"), [("prompts/get", {"name": "review"}), ("odd/one", {})])
async def test_only_calls_of_tools_become_tasks(tmp_path: Path, method: str, params: dict[str, Any]) -> None:
    made = {"resultType": "task", "taskId": "inner", "status": "working", "ttlMs": 60_000, "pollIntervalMs": 10,
            "createdAt": "2026-01-01T00:00:00Z", "lastUpdatedAt": "2026-01-01T00:00:00Z"}  # fmt: skip

    class Eager(ModernLibrary):
        async def __call__(self, request: Request, peer: Peer) -> None:
            if request.message["method"] == method:
                peer.json(result_of(request.message["id"], made))
            else:
                await super().__call__(request, peer)

    async with serve(Eager()) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        message = modern(method, params)
        message["params"]["_meta"][PREFIX + "clientCapabilities"] = KNOWS
        reply = await stand.ask(stand.request(message, path="/servers/u/mcp"))
        assert reply.error == -31502 and "inner" not in reply.body.decode()


@pytest.mark.rule("TASK-6")
@pytest.mark.parametrize("era", SERVERS)
async def test_a_tool_that_fails_has_completed(tmp_path: Path, era: Any) -> None:
    server = era()
    async with open_stand(tmp_path, server) as stand:
        client = ModernClient(stand)
        task = await client.started()
        server.jobs.last.finish(said("no", isError=True), status="completed" if era is ModernTasks else "failed")
        ended = await client.result("get", task["taskId"])
        assert ended["status"] == "completed" and ended["result"]["isError"] is True


@pytest.mark.rule("TASK-6")
@pytest.mark.parametrize("era", SERVERS)
async def test_a_request_that_fails_has_failed(tmp_path: Path, era: Any) -> None:
    server = era()
    async with open_stand(tmp_path, server) as stand:
        client = ModernClient(stand)
        task = await client.started()
        server.jobs.last.finish(error={"code": -32603, "message": "broken"})
        ended = await client.result("get", task["taskId"])
        assert (ended["status"], ended["error"]) == ("failed", {"code": -32603, "message": "broken"})


@pytest.mark.parametrize("era", SERVERS)
async def test_a_task_is_called_off(tmp_path: Path, era: Any) -> None:
    server = era()
    async with open_stand(tmp_path, server) as stand:
        client = ModernClient(stand)
        task = await client.started()
        assert await client.result("cancel", task["taskId"]) == {"resultType": "complete"}
        assert server.jobs.last.status == "cancelled"
        assert (await client.result("get", task["taskId"]))["status"] == "cancelled"
        assert await client.result("cancel", task["taskId"]) == {"resultType": "complete"}


async def test_questions_of_a_modern_server_pass(tmp_path: Path) -> None:
    server = ModernTasks()
    async with open_stand(tmp_path, server) as stand:
        client = ModernClient(stand, capabilities=ASKABLE)
        task = await client.started()
        server.jobs.last.ask("k1", "Who?")
        asked = await client.result("get", task["taskId"])
        assert asked["status"] == "input_required" and asked["inputRequests"] == {"k1": signed("Who?")}
        answer = await client.result("update", task["taskId"], inputResponses={"k1": ANN})
        assert answer == {"resultType": "complete"}
        assert server.jobs.last.answers == {"k1": ANN}


@pytest.mark.rule("TASK-4")
async def test_questions_of_a_legacy_server_are_fetched_and_answered(tmp_path: Path) -> None:
    server = LegacyTasks()
    async with open_stand(tmp_path, server) as stand:
        client = ModernClient(stand, capabilities=ASKABLE)
        id = (await client.started())["taskId"]
        keys: list[str] = []
        for message in ("Who?", "Really?"):
            server.jobs.last.ask_old(message)
            asked = await client.result("get", id)
            assert asked["status"] == "input_required"
            ((key, question),) = asked["inputRequests"].items()
            assert question == signed(message)
            again = await client.result("get", id)
            assert again["inputRequests"] == asked["inputRequests"]  # asked once, shown until it is answered
            assert await client.result("update", id, inputResponses={key: ANN, "other": ANN}) == {
                "resultType": "complete"
            }
            await until(lambda: len(server.jobs.last.answers) > len(keys))
            related = {"_meta": {RELATED: {"taskId": "inner-1"}}}
            assert server.jobs.last.answers[message]["result"] == {**ANN, **related}
            keys.append(key)
        assert len(set(keys)) == 2
        assert (await client.result("get", id))["status"] == "working"
        server.jobs.last.finish(said("hello Ann"))
        ended = await client.result("get", id)
        assert ended["result"]["content"][0]["text"] == "hello Ann"
        assert ended["result"]["_meta"] == {"kept": True}
        assert len(server.jobs.of("tasks/result")) == 1


async def test_all_requests_about_a_task_take_the_same_session(tmp_path: Path) -> None:
    server = LegacyTasks()
    async with open_stand(tmp_path, server) as stand:
        id = (await ModernClient(stand).started())["taskId"]
        await ModernClient(stand, capabilities=ASKABLE).result("get", id)
        await ModernClient(stand).result("cancel", id)
        sessions = {each["session"] for each in server.jobs.heard if "session" in each}
        assert len(sessions) == 1


async def test_a_tool_that_must_be_a_task_is_waited_for(tmp_path: Path) -> None:
    server = LegacyTasks()
    async with open_stand(tmp_path, server) as stand:
        wire = await stand.connect()
        message = modern("tools/call", {"name": "jobs__must", "arguments": {}})
        wire.send(stand.request(message, who="ann"))
        await until(lambda: server.jobs.of("tasks/result"))
        server.jobs.last.finish(said("at last"))
        result = (await wire.reply()).json["result"]
        assert result["content"][0]["text"] == "at last"
        assert result["resultType"] == "complete" and result["_meta"] == {"kept": True}
        await wire.close()


async def test_a_tool_that_must_be_a_task_is_called_off_with_its_call(tmp_path: Path) -> None:
    server = LegacyTasks()
    async with open_stand(tmp_path, server) as stand:
        wire = await stand.connect()
        wire.send(stand.request(modern("tools/call", {"name": "jobs__must", "arguments": {}}), who="ann"))
        await until(lambda: server.jobs.of("tasks/result"))
        await wire.close()
        await until(lambda: server.jobs.last.status == "cancelled")


async def test_a_tool_that_must_be_a_task_may_ask(tmp_path: Path) -> None:
    server = LegacyTasks()
    async with open_stand(tmp_path, server) as stand:
        client = ModernClient(stand, capabilities={"elicitation": {"form": {}}})
        wire = await stand.connect()
        message = modern("tools/call", {"name": "jobs__must", "arguments": {}})
        message["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = client.capabilities
        wire.send(stand.request(message, who="ann"))
        await until(lambda: server.jobs.of("tasks/result"))
        server.jobs.last.ask_old("Who?")
        asked = (await wire.reply()).json["result"]
        assert asked["resultType"] == "input_required"
        ((key, _),) = asked["inputRequests"].items()
        again = {"name": "jobs__must", "arguments": {}, "requestState": asked["requestState"]}
        retry = modern("tools/call", {**again, "inputResponses": {key: ANN}}, 2)
        retry["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = client.capabilities
        wire.send(stand.request(retry, who="ann"))
        await until(lambda: "Who?" in server.jobs.last.answers)
        server.jobs.last.finish(said("hello"))
        assert (await wire.reply()).json["result"]["content"][0]["text"] == "hello"
        await wire.close()


async def test_a_modern_client_cannot_wish_for_a_task(tmp_path: Path) -> None:
    for server in (ModernTasks(), LegacyTasks()):
        async with open_stand(tmp_path, server) as stand:
            reply = await ModernClient(stand, capabilities={}).call("jobs__slow", task={"ttl": 5})
            assert reply.json["result"]["content"][0]["text"] == "at once"
            assert "task" not in server.jobs.heard[0]["params"]


@pytest.mark.rule("TASK-2")
async def test_an_id_works_after_a_restart(tmp_path: Path) -> None:
    server = ModernTasks()
    async with serve(server) as upstream:
        servers = {"jobs": http(upstream)}
        async with Stand(tmp_path, servers, **PEOPLE) as stand:
            id = (await ModernClient(stand).started())["taskId"]
        server.jobs.last.finish(said("meanwhile"))
        async with Stand(tmp_path, servers, **PEOPLE) as stand:
            ended = await ModernClient(stand).result("get", id)
            assert ended["result"]["content"][0]["text"] == "meanwhile"
            refused(await ModernClient(stand, "ben").about("get", id), 400, -32602)


@pytest.mark.rule("TASK-2")
async def test_an_id_is_not_unknown_while_its_server_starts(tmp_path: Path) -> None:
    server = ModernTasks()
    async with serve(server) as upstream:
        stand = Stand(tmp_path, {"jobs": http(upstream, isolation="principal")}, **PEOPLE)
        async with stand:
            id = (await ModernClient(stand).started())["taskId"]
        await stand.start(warm=0.0)
        assert stand.house.catalog.unlisted() == ("jobs",)
        assert (await ModernClient(stand).result("get", id))["status"] == "working"
        await stand.gateway.aclose()


@pytest.mark.parametrize("era", SERVERS)
async def test_what_is_offered(tmp_path: Path, era: Any) -> None:
    async with open_stand(tmp_path, era()) as stand:
        found = (await stand.modern("server/discover", who="ann")).json["result"]["capabilities"]
        assert found["extensions"] == {TASKS: {}} and "tasks" not in found
        opened = (await stand.legacy("ann")).opened["capabilities"]
        assert opened["tasks"] == {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}
        assert TASKS not in opened.get("extensions", {})


async def test_nothing_is_offered_where_no_server_has_tasks(tmp_path: Path) -> None:
    async with open_stand(tmp_path, ModernTasks(offers=False)) as stand:
        found = (await stand.modern("server/discover", who="ann")).json["result"]["capabilities"]
        assert "extensions" not in found
        refused(await ModernClient(stand).about("get", "x" * 60), 404, -32601)


async def test_every_request_is_recorded_under_the_tool(tmp_path: Path) -> None:
    async with open_stand(tmp_path, ModernTasks(), policy={"rules": [allow("jobs/slow")]}) as stand:
        client = ModernClient(stand)
        id = (await client.started())["taskId"]
        await client.result("get", id)
        await client.result("cancel", id)
        records = await stand.records(3)
        assert {(each["server"], each["tool"]) for each in records} == {("jobs", "slow")}
        assert [each["method"] for each in records] == ["tools/call", "tasks/get", "tasks/cancel"]

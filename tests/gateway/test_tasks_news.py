"""What clients hear of tasks without asking: listening streams of the modern era, sessions of the legacy one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.messages import PREFIX, modern
from tests.gateway.stand import Stand, Wire, allow, deny, until
from tests.gateway.tasking import ASKABLE, KNOWS, ModernClient, begun, got, open_stand
from tests.servers.mcp_http import note, result_of
from tests.servers.raw_http import Peer
from tests.servers.tasks_http import RELATED, WHEN, LegacyTasks, ModernTasks, said, signed

pytestmark = pytest.mark.anyio

SERVERS = [ModernTasks, LegacyTasks]


async def listening(stand: Stand, *ids: str, who: str = "ann", capabilities: Any = ASKABLE) -> Wire:
    message = modern("subscriptions/listen", {"notifications": {"taskIds": list(ids)}}, "s1")
    message["params"]["_meta"][PREFIX + "clientCapabilities"] = capabilities
    wire = await stand.connect()
    wire.send(stand.request(message, who=who))
    return wire


async def acknowledged(wire: Wire) -> Any:
    assert (await wire.head())[0] == 200
    message = await wire.event()
    assert message["method"] == "notifications/subscriptions/acknowledged"
    return message["params"]["notifications"]


@pytest.mark.rule("TASK-7")
@pytest.mark.parametrize("era", SERVERS)
async def test_a_stream_tells_how_its_task_goes(tmp_path: Path, era: Any) -> None:
    server = era()
    async with open_stand(tmp_path, server) as stand:
        id = (await ModernClient(stand, capabilities=ASKABLE).started())["taskId"]
        wire = await listening(stand, id)
        assert await acknowledged(wire) == {"taskIds": [id]}
        if era is ModernTasks:
            server.jobs.last.ask("k", "Who?")
        else:
            server.jobs.last.ask_old("Who?")
        asked = await wire.event()
        assert asked["method"] == "notifications/tasks" and asked["params"]["taskId"] == id
        assert asked["params"]["status"] == "input_required"
        assert list(asked["params"]["inputRequests"].values()) == [signed("Who?")]
        assert asked["params"]["_meta"] == {"io.modelcontextprotocol/subscriptionId": "s1"}
        key = next(iter(asked["params"]["inputRequests"]))
        await ModernClient(stand, capabilities=ASKABLE).result("update", id, inputResponses={key: {"action": "cancel"}})
        await until(lambda: server.jobs.last.answers and server.jobs.last.status == "working")
        server.jobs.last.finish(said("done"))
        ended = (await wire.event())["params"]
        while ended["status"] != "completed":
            ended = (await wire.event())["params"]
        assert ended["result"]["content"][0]["text"] == "done" and "resultType" not in ended
        await wire.close()


class Talkative(ModernTasks):
    """Says something whenever it is asked about a task."""

    def _about(self, message: Any, peer: Peer) -> None:
        peer.sse_head()
        peer.event(note("notifications/message", level="error", data="nobody asked"))
        token = message["params"]["_meta"].get("progressToken", 1)
        peer.event(note("notifications/progress", progressToken=token, progress=1))
        job = self.jobs.find(message)
        assert job is not None
        peer.event(result_of(message["id"], {**self._told(job), **job.outcome, "resultType": "complete"}))
        peer.chunk(b"")


@pytest.mark.rule("TASK-7")
async def test_a_stream_of_tasks_carries_neither_progress_nor_log(tmp_path: Path) -> None:
    server = Talkative()
    async with open_stand(tmp_path, server) as stand:
        id = (await ModernClient(stand).started())["taskId"]
        message = modern("subscriptions/listen", {"notifications": {"taskIds": [id]}}, "s1")
        message["params"]["_meta"] |= {
            PREFIX + "clientCapabilities": KNOWS, PREFIX + "logLevel": "debug", "progressToken": "t",
        }  # fmt: skip
        async with await stand.connect() as wire:
            wire.send(stand.request(message, who="ann"))
            assert await acknowledged(wire) == {"taskIds": [id]}
            server.jobs.last.finish()
            assert (await wire.event())["method"] == "notifications/tasks"


@pytest.mark.rule("TASK-7")
async def test_a_task_is_not_cancelled_like_a_request(tmp_path: Path) -> None:
    server = LegacyTasks()
    async with open_stand(tmp_path, server) as stand:
        client = await stand.legacy("ann")
        id = (await begun(client))["taskId"]
        for request in (1, id):
            assert (await client.tell("notifications/cancelled", requestId=request)).status == 202
        assert (await got(client, "get", id))["status"] == "working"
        assert (server.cancelled, server.jobs.of("tasks/cancel")) == ([], [])


async def test_a_task_that_is_over_is_told_at_once(tmp_path: Path) -> None:
    server = ModernTasks()
    async with open_stand(tmp_path, server) as stand:
        id = (await ModernClient(stand).started())["taskId"]
        server.jobs.last.finish()
        wire = await listening(stand, id, capabilities=KNOWS)
        await acknowledged(wire)
        assert (await wire.event())["params"]["status"] == "completed"
        await wire.close()


@pytest.mark.rule("TASK-5")
async def test_nobody_listens_to_other_peoples_tasks(tmp_path: Path) -> None:
    server = ModernTasks()
    async with open_stand(tmp_path, server) as stand:
        id = (await ModernClient(stand).started())["taskId"]
        wire = await listening(stand, id, "x" * 60, who="ben")
        assert await acknowledged(wire) == {"taskIds": []}
        assert len(server.jobs.heard) == 1
        await wire.close()


@pytest.mark.rule("TASK-3")
async def test_listening_to_tasks_needs_the_extension(tmp_path: Path) -> None:
    async with open_stand(tmp_path, ModernTasks()) as stand:
        id = (await ModernClient(stand).started())["taskId"]
        wire = await listening(stand, id, capabilities={})
        assert (await wire.reply()).error == -32021
        await wire.close()


async def test_who_lost_access_hears_nothing_more(tmp_path: Path) -> None:
    server = ModernTasks()
    async with open_stand(tmp_path, server) as stand:
        id = (await ModernClient(stand).started())["taskId"]
        wire = await listening(stand, id)
        await acknowledged(wire)
        await stand.reload(policy={"rules": [deny("jobs/slow"), allow("*/*")]})
        await until(lambda: not stand.house.tasks.watched)
        server.jobs.last.finish()
        await wire.close()


async def test_a_stream_that_closes_is_not_worked_for(tmp_path: Path) -> None:
    async with open_stand(tmp_path, ModernTasks()) as stand:
        id = (await ModernClient(stand).started())["taskId"]
        wire = await listening(stand, id)
        await acknowledged(wire)
        assert stand.house.tasks.watched == 1
        await wire.close()
        await until(lambda: not stand.house.tasks.watched)


async def test_a_session_is_told_what_its_server_says(tmp_path: Path) -> None:
    server = LegacyTasks()
    server.listens = True
    async with open_stand(tmp_path, server) as stand:
        client, other = await stand.legacy("ann"), await stand.legacy("ann")
        id = (await begun(client))["taskId"]
        mine, theirs = await client.listen(), await other.listen()
        await until(lambda: len(server.streams) == len(server.sessions))
        told = {"status": "working", "createdAt": WHEN, "lastUpdatedAt": WHEN, "ttl": 60000, "statusMessage": "half"}
        meta = {RELATED: {"taskId": "inner-1"}}
        for stream in server.streams:
            stream.event(note("notifications/tasks/status", taskId="inner-unknown", **told))
            stream.event(note("notifications/tasks/status", taskId="inner-1", _meta=meta, **told))
            stream.event(note("notifications/tools/list_changed"))
        said = await mine.event()
        assert said["method"] == "notifications/tasks/status" and said["params"] == {"taskId": id, **told}
        server.tools.pop()
        assert (await theirs.event())["method"] == "notifications/tools/list_changed"
        assert (await got(client, "get", id))["status"] == "working"
        await mine.close()
        await theirs.close()

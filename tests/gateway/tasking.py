"""Requests of clients of both eras about tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.fuzz.messages import PREFIX, modern
from tests.fuzz.raw import Reply
from tests.gateway.stand import LegacyClient, Stand, allow, calling, keys
from tests.gateway.upstreams import http, serve
from tests.servers.tasks_http import TASKS, LegacyTasks, ModernTasks

KNOWS: dict[str, Any] = {"extensions": {TASKS: {}}}
ASKABLE: dict[str, Any] = {**KNOWS, "elicitation": {"form": {}}}
ANN = {"action": "accept", "content": {"name": "Ann"}}
PEOPLE = {"identity": {"keys": keys("ann", "ben")}, "policy": {"rules": [allow("*/*")]}}


@asynccontextmanager
async def open_stand(folder: Path, server: LegacyTasks | ModernTasks, **more: Any) -> AsyncIterator[Stand]:
    """A gateway with this server, called ``jobs``."""
    era = "modern" if isinstance(server, ModernTasks) else "legacy"
    async with (
        serve(server) as upstream,
        Stand(folder, {"jobs": http(upstream, era)}, **{**PEOPLE, **more}) as stand,
    ):
        yield stand


class ModernClient:
    """Somebody with a key who speaks the modern era."""

    def __init__(self, stand: Stand, who: str = "ann", capabilities: Mapping[str, Any] = KNOWS) -> None:
        self.stand = stand
        self.who = who
        self.capabilities = dict(capabilities)

    async def send(self, message: dict[str, Any], *more: tuple[str, str]) -> Reply:
        message["params"]["_meta"][PREFIX + "clientCapabilities"] = self.capabilities
        return await self.stand.ask(self.stand.request(message, *more, who=self.who))

    async def call(self, tool: str, **params: Any) -> Reply:
        message = calling(tool, {"n": 1})
        message["params"] |= params
        return await self.send(message)

    async def started(self, tool: str = "jobs__slow") -> dict[str, Any]:
        """A call that has become a task."""
        reply = await self.call(tool)
        assert reply.status == 200 and reply.json["result"]["resultType"] == "task", reply
        task: dict[str, Any] = reply.json["result"]
        return task

    async def about(self, method: str, id: str, **params: Any) -> Reply:
        message = modern(f"tasks/{method}", {"taskId": id, **params})
        return await self.send(message, ("Mcp-Name", id))

    async def result(self, method: str, id: str, **params: Any) -> Any:
        reply = await self.about(method, id, **params)
        assert reply.status == 200 and "result" in reply.json, reply
        return reply.json["result"]


async def begun(client: LegacyClient, tool: str = "jobs__slow", **task: Any) -> dict[str, Any]:
    """A call of a legacy client that has become a task."""
    reply = await client.call(tool, {"n": 1}, task=task)
    assert reply.status == 200 and "result" in reply.json, reply
    found: dict[str, Any] = reply.json["result"]["task"]
    return found


async def got(client: LegacyClient, method: str, id: str) -> Any:
    reply = await client.ask(f"tasks/{method}", {"taskId": id})
    assert reply.status == 200 and "result" in reply.json, reply
    return reply.json["result"]

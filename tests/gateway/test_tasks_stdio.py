"""Tasks of a legacy server that is a process: everything about a task goes to the process that has it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.messages import rpc
from tests.gateway.dialogue import answer, stream
from tests.gateway.stand import Stand
from tests.gateway.tasking import ASKABLE, KNOWS, PEOPLE, ModernClient, begun, got

pytestmark = pytest.mark.anyio

SERVER = Path(__file__).parent.parent / "servers" / "tasks_stdio.py"
JOBS = {"jobs": {"command": sys.executable, "args": [str(SERVER)], "protocol": "legacy"}}


def named(name: str) -> dict[str, Any]:
    return {"action": "accept", "content": {"name": name}}


async def test_a_modern_client(tmp_path: Path) -> None:
    async with Stand(tmp_path, JOBS, **PEOPLE) as stand:
        for who, name in (("ann", "Ann"), ("ben", "Ben")):
            client = ModernClient(stand, who, ASKABLE)
            task = await client.started("jobs__greet")
            assert task["ttlMs"] == 86_400_000  # the server said: for ever
            asked = await client.result("get", task["taskId"])
            ((key, question),) = asked["inputRequests"].items()
            assert question["params"]["message"] == "Name of 1?"  # each has a process of its own
            await client.result("update", task["taskId"], inputResponses={key: named(name)})
            ended = await client.result("get", task["taskId"])
            while ended["status"] != "completed":
                ended = await client.result("get", task["taskId"])
            assert ended["result"]["content"][0]["text"] == f"Hello {name}, 1"


async def test_a_client_that_declares_something_else_meanwhile(tmp_path: Path) -> None:
    async with Stand(tmp_path, JOBS, **PEOPLE) as stand:
        id = (await ModernClient(stand, capabilities=ASKABLE).started("jobs__greet"))["taskId"]
        asked = await ModernClient(stand, capabilities=KNOWS).result("get", id)
        assert (asked["status"], asked["inputRequests"]) == ("input_required", {})
        assert (await ModernClient(stand, capabilities=ASKABLE).result("get", id))["inputRequests"]


async def test_legacy_clients(tmp_path: Path) -> None:
    async with Stand(tmp_path, JOBS, **PEOPLE) as stand:
        for name in ("Ann", "Anna"):
            client = await stand.legacy("ann", elicitation={})
            id = (await begun(client, "jobs__greet"))["taskId"]
            assert (await got(client, "get", id))["status"] == "input_required"
            wire = await stream(client, rpc("tasks/result", {"taskId": id}, 9))
            question = await wire.event()
            await answer(client, question, named(name))
            assert (await wire.event())["result"]["content"][0]["text"] == f"Hello {name}, 1"
            await wire.close()

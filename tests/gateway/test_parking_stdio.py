"""Parked calls at stdio servers, which tell no one which call a question belongs to, and for clients over stdio."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.gateway.askers import NAME, ROOTS, Client, asked, asking_message, elicit, said
from tests.gateway.stand import Stand, refused, until
from tests.gateway.test_stdio import Pipes, started

pytestmark = pytest.mark.anyio

ASKER = str(Path(__file__).parent.parent / "servers" / "stdio_asker.py")


@pytest.fixture
def anyio_backend() -> str:
    """uvloop is tried in ``test_parking.py``."""
    return "asyncio"


def config(folder: Path, **more: Any) -> dict[str, Any]:
    return {"u": {"command": sys.executable, "args": ["-S", ASKER, str(folder / "told")], **more}}


def told(folder: Path) -> list[str]:
    file = folder / "told"
    return file.read_text().split() if file.exists() else []


def questions(*each: dict[str, Any]) -> dict[str, Any]:
    return {"questions": list(each)}


def either(answer: dict[str, Any]) -> dict[str, Any]:
    return {"r1": answer, "r2": answer}


async def test_several_rounds_with_a_process(tmp_path: Path) -> None:
    async with Stand(tmp_path, config(tmp_path)) as stand:
        client, wanted = Client(stand), questions(elicit(), ROOTS)
        first = await client.call("u__ask", wanted)
        assert asked(first) == {"r1": elicit()}
        second = await client.back(first, "u__ask", {"r1": NAME}, wanted)
        assert asked(second) == {"r2": ROOTS}
        assert said(await client.back(second, "u__ask", {"r2": {"roots": []}}, wanted)) == [NAME, {"roots": []}]
    assert told(tmp_path) == ["called"]


@pytest.mark.rule("PARK-9")
async def test_calls_that_may_ask_do_not_share_a_process(tmp_path: Path) -> None:
    async with Stand(tmp_path, config(tmp_path)) as stand:
        client, wanted = Client(stand), questions(elicit(), elicit())
        first = await client.call("u__ask", wanted)
        other = await client.call("u__ask", wanted)  # its questions would be mixed up in the same process
        assert len(stand.house.parking) == 2
        for answer in ("A", "B"):
            first = await client.back(first, "u__ask", either({"is": "1" + answer}), wanted)
            other = await client.back(other, "u__ask", either({"is": "2" + answer}), wanted)
        assert said(first) == [{"is": "1A"}, {"is": "1B"}]
        assert said(other) == [{"is": "2A"}, {"is": "2B"}]
        [[one], [two]] = [said(await client.call("u__pid")) for _ in range(2)]
        assert one == two  # one after the other they do


@pytest.mark.rule("PARK-4")
async def test_a_process_is_told_that_nobody_came_back(tmp_path: Path) -> None:
    async with Stand(tmp_path, config(tmp_path), limits={"parked_ttl": 0.05}) as stand:
        client, wanted = Client(stand), questions(elicit())
        first = await client.call("u__ask", wanted)
        await until(lambda: told(tmp_path) == ["called", "cancelled"])
        refused(await client.back(first, "u__ask", {"r1": NAME}, wanted), 400, -32602)
        assert len(told(tmp_path)) == 2


@pytest.mark.rule("PARK-5")
async def test_a_call_that_dies_with_its_process_is_not_run_again(tmp_path: Path) -> None:
    async with Stand(tmp_path, config(tmp_path)) as stand:
        client, wanted = Client(stand), questions(elicit())
        first = await client.call("u__ask", wanted)
        for child in psutil.Process(os.getpid()).children(recursive=True):
            if ASKER in child.cmdline():
                child.kill()
        await until(lambda: not stand.house.parking._running)
        reply = await client.back(first, "u__ask", {"r1": NAME}, wanted)
        assert reply.error in (-31502, -31503)
    assert told(tmp_path) == ["called"]


def call(id: int, **more: Any) -> dict[str, Any]:
    message = asking_message("tools/call", "u__ask", questions(elicit()), **more)
    return {**message, "id": id}


async def answered(pipes: Pipes, message: dict[str, Any]) -> Any:
    return (await pipes.ask(message))["result"]


async def test_a_client_over_stdio_is_asked_too(tmp_path: Path) -> None:
    async with started(tmp_path, servers=config(tmp_path)) as pipes:
        first = await answered(pipes, call(1))
        assert (first["resultType"], first["inputRequests"]) == (
            "input_required",
            {"r1": elicit(_meta={"callgate/server": "u"})},
        )
        retry = {"inputResponses": {"r1": NAME}, "requestState": first["requestState"]}
        last = await answered(pipes, call(2, **retry))
        assert (last["resultType"], "Ada" in last["content"][0]["text"]) == ("complete", True)
        assert (await pipes.ask(call(3, **retry)))["error"]["code"] == -32602
        assert await pipes.rest() == []
    assert told(tmp_path) == ["called"]


async def test_a_client_over_stdio_that_leaves_gives_its_calls_up(tmp_path: Path) -> None:
    async with started(tmp_path, servers=config(tmp_path)) as pipes:
        first = await answered(pipes, call(1))
        assert first["resultType"] == "input_required"
        assert await pipes.rest() == []
    assert told(tmp_path) in (["called"], ["called", "cancelled"])

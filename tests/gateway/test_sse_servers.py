"""Servers of HTTP+SSE (2024-11-05) behind the gateway, for clients of both eras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.gateway.askers import NAME, Client, asked, said
from tests.gateway.dialogue import ANN, answer, begin
from tests.gateway.stand import Stand, allow, refused
from tests.servers.mcp_sse import FORM, SseServer
from tests.servers.raw_http import RawServer

pytestmark = pytest.mark.anyio

QUESTION = {"method": "elicitation/create", "params": FORM}


@pytest.mark.parametrize("more", [{"type": "sse"}, {}])
async def test_calls_and_questions_of_a_modern_client(tmp_path: Path, more: dict[str, Any]) -> None:
    behaviour = SseServer()
    async with RawServer(behaviour) as server:
        servers = {"u": {"url": server.url, **more}}
        async with Stand(tmp_path, servers, policy={"rules": [allow("u/echo", "u/ask")]}) as stand:
            assert await stand.tools() == ["u__ask", "u__echo"]
            assert (await stand.result("u__echo", {"a": 1}))["params"]["arguments"] == {"a": 1}
            refused(await stand.call("u__log"), 200)
            client = Client(stand, {"elicitation": {}})
            reply = await client.call("u__ask")
            assert list(asked(reply).values()) == [QUESTION]
            assert said(await client.back(reply, "u__ask", {next(iter(asked(reply))): NAME})) == NAME
            records = await stand.records(4)
    assert [each["tool"] for each in records] == ["echo", "log", "ask", "ask"]
    assert not [each for each in behaviour.said("tools/call") if each["params"]["name"] == "log"]


async def test_calls_and_questions_of_a_legacy_client(tmp_path: Path) -> None:
    behaviour = SseServer()
    async with RawServer(behaviour) as server, Stand(tmp_path, {"u": {"url": server.url}}) as stand:
        client = await stand.legacy(elicitation={})
        assert (await client.call("u__echo", {"a": 1})).json["result"]["params"]["arguments"] == {"a": 1}
        async with await begin(client, "u__ask") as wire:
            question = await wire.event()
            assert question["params"]["message"] == "Who?"
            await answer(client, question, ANN)
            assert (await wire.event())["result"]["told"] == ANN
        other = await stand.legacy(elicitation={})
        sessions = [(await each.call("u__echo")).json["result"]["session"] for each in (client, other, client)]
        assert sessions == ["s2", "s3", "s2"]

"""The demo's servers, by themselves."""

from __future__ import annotations

import asyncio
import subprocess
from typing import Any

import msgspec
import pytest

from callgate.demo.servers.http import serving
from callgate.demo.servers.mailer import Mailer
from callgate.demo.servers.notes import Notes
from callgate.demo.servers.protocol import Offer
from callgate.demo.servers.shop import Shop
from callgate.egress import HttpPool, Response, encode_headers
from callgate.types import JSON
from tests.processes import environment, python


def ask(offer: Offer, method: str, **params: Any) -> tuple[JSON, list[JSON]]:
    said: list[JSON] = []

    async def say(message: JSON) -> None:
        said.append(message)

    answer = asyncio.run(offer.answer({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, say))
    assert answer is not None
    return answer, said


def call(offer: Offer, tool: str, **arguments: Any) -> JSON:
    answer, _ = ask(offer, "tools/call", name=tool, arguments=arguments)
    result: JSON = answer["result"]
    return result


def test_each_server_speaks_one_era() -> None:
    shop, notes = Shop(0).offer(), Notes().offer()
    assert ask(shop, "server/discover")[0]["result"]["supportedVersions"] == ["2026-07-28"]
    assert ask(shop, "initialize")[0]["error"]["code"] == -32601
    assert ask(notes, "initialize")[0]["result"]["protocolVersion"] == "2025-11-25"
    assert ask(notes, "server/discover")[0]["error"]["code"] == -32601
    assert ask(notes, "ping")[0]["result"] == {}


@pytest.mark.parametrize("offer", [Shop(0).offer(), Notes().offer(), Mailer().offer()], ids=lambda offer: offer.name)
def test_every_tool_says_whether_it_only_reads(offer: Offer) -> None:
    for tool in ask(offer, "tools/list")[0]["result"]["tools"]:
        reads = tool["name"] not in {"refund", "write", "delete", "send"}
        assert tool["annotations"]["readOnlyHint"] is reads
        assert tool["inputSchema"]["type"] == "object"


def test_money_is_paid_back_once() -> None:
    offer = Shop(0).offer()
    assert call(offer, "refund", order=17, amount=100)["structuredContent"] == {"order": 17, "refunded": 100.0}
    assert call(offer, "refund", order=17, amount=21)["isError"] is True
    assert call(offer, "refund", order=17, amount=-5)["isError"] is True


def test_wrong_arguments_are_an_error_of_the_tool() -> None:
    offer = Shop(0).offer()
    assert "takes order" in call(offer, "get_order")["content"][0]["text"]
    assert call(offer, "get_order", order="x")["isError"] is True
    assert call(offer, "get_order", order=17, more=1)["isError"] is True


def test_the_report_tells_of_its_progress_when_asked() -> None:
    offer = Shop(0).offer()
    _, said = ask(offer, "tools/call", name="sales_report", arguments={}, _meta={"progressToken": 7})
    assert [note["params"]["progress"] for note in said] == [1, 2, 3, 4]
    assert {note["params"]["progressToken"] for note in said} == {7}
    assert ask(offer, "tools/call", name="sales_report", arguments={})[1] == []


def test_notes_and_mails_are_kept() -> None:
    notes, mailer = Notes().offer(), Mailer().offer()
    call(notes, "write", name="a", text="b")
    assert call(notes, "read", name="a")["structuredContent"] == {"text": "b"}
    call(notes, "delete", name="a")
    assert call(notes, "read", name="a")["isError"] is True
    call(mailer, "send", to="kim", text="hi")
    assert call(mailer, "outbox")["structuredContent"] == {"mails": [{"to": "kim", "text": "hi"}]}


def test_the_notes_are_a_program_on_stdio() -> None:
    lines = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "list", "arguments": {}}},
    ]
    sent = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    command = python("-m", "callgate.demo.servers.notes")
    ran = subprocess.run(command, input=sent, capture_output=True, timeout=30, env=environment(), check=True)
    first, second = (msgspec.json.decode(line) for line in ran.stdout.splitlines())
    assert (first["id"], second["id"]) == (1, 2)
    assert second["result"]["structuredContent"] == {"names": ["private/pay", "welcome"]}
    assert ran.stderr == b""


def test_the_program_starts_without_the_gateway() -> None:
    """It starts beside the gateway on a laptop: nothing heavy may be imported for it."""
    code = "import sys, callgate.demo.servers.notes as n; print(*sys.modules)"
    ran = subprocess.run(python("-c", code), capture_output=True, text=True, timeout=30, env=environment(), check=True)
    assert {"rich", "uvicorn", "starlette", "sqlite3", "callgate.gateway", "callgate.config"} & set(
        ran.stdout.split()
    ) == set()


@pytest.mark.parametrize("credential", [None, "Bearer guessed"])
def test_an_agent_cannot_go_around_the_gateway(credential: str | None) -> None:
    """The attack: call the shop at its own port, where no policy is asked."""
    assert asyncio.run(_post(credential)).status == 401


def test_the_gateway_can_reach_it() -> None:
    response = asyncio.run(_post("Bearer right"))
    assert response.status == 200
    assert len(msgspec.json.decode(response.body)["result"]["tools"]) == 4


async def _post(credential: str | None) -> Response:
    pool = HttpPool(proxy="")
    async with serving(Shop(0).offer(), "Bearer right") as url:
        origin = pool.origin(url)
        body = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}})
        headers = {"content-type": "application/json", "content-length": str(len(body))}
        if credential is not None:
            headers["authorization"] = credential
        data = origin.start_line("POST") + encode_headers(headers) + b"\r\n" + body
        try:
            return await origin.request(data, asyncio.get_running_loop().time() + 10)
        finally:
            await pool.aclose()

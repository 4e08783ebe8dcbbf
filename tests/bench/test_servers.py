"""The benchmark's own MCP servers answer both eras over both transports."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from bench import loads
from bench.backend import Backend
from bench.plan import Step
from bench.upstream_replies import Replies, read_request
from bench.wire import Door, request


def answer(replies: Replies, method: str, **params: Any) -> dict[str, Any]:
    body = json.dumps({"jsonrpc": "2.0", "id": "a-1", "method": method, "params": params}).encode()
    found: dict[str, Any] = json.loads(replies.answer(read_request(body)) or b"null")
    assert found["id"] == "a-1"
    return found


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    running = Backend(servers=2, tools=3)
    yield running
    running.stop()


def ask(port: int, method: str, **params: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(loads.ask(Door(port), request(Door(port), method, params, 7)))
    return found


def test_discover_and_initialize() -> None:
    replies = Replies()
    discovered = answer(replies, "server/discover")["result"]
    assert discovered["supportedVersions"] == ["2026-07-28"]
    assert {"ttlMs", "cacheScope", "resultType"} < set(discovered)
    assert answer(replies, "initialize", protocolVersion="2025-06-18")["result"]["protocolVersion"] == "2025-06-18"
    assert answer(replies, "ping")["result"] == {}


def test_a_call_sends_the_message_back() -> None:
    result = answer(Replies(), "tools/call", name="echo", arguments={"message": 'häh "quoted"'})["result"]
    assert result["content"] == [{"type": "text", "text": 'häh "quoted"'}]


def test_lists_are_paged() -> None:
    replies = Replies(1500)
    first = answer(replies, "tools/list")["result"]
    second = answer(replies, "tools/list", cursor=first["nextCursor"])["result"]
    names = [tool["name"] for page in (first, second) for tool in page["tools"]]
    assert len(set(names)) == 1500
    assert names[0] == "echo"
    assert "nextCursor" not in second


def test_an_unknown_method_and_a_notification() -> None:
    replies = Replies()
    assert answer(replies, "nonsense")["error"]["code"] == -32601
    assert replies.answer(read_request(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')) is None
    assert replies.counts == {"nonsense": 1, "notifications/initialized": 1}


def test_servers_of_one_process_count_apart(backend: Backend) -> None:
    first, second = backend.ports
    before = backend.counts(first), backend.counts(second)
    assert ask(first, "tools/call", name="echo", arguments={"message": "x"})["result"]["content"][0]["text"] == "x"
    assert (backend.counts(first), backend.counts(second)) == (before[0] + 1, before[1])


def test_an_unknown_page_is_not_there(backend: Backend) -> None:
    data = b"GET /other HTTP/1.1\r\nhost: x\r\n\r\n"
    assert loads.ask(Door(backend.ports[0]), data) == b""


def test_the_stdio_server_answers_lines() -> None:
    lines = [
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"arguments": {"message": "hi"}}},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "bench/stats"},
    ]
    said = subprocess.run(
        [sys.executable, "-m", "bench.upstream_stdio"],
        input="".join(json.dumps(line) + "\n" for line in lines).encode(),
        capture_output=True,
        timeout=20,
        check=True,
    ).stdout
    first, second = (json.loads(line) for line in said.splitlines())
    assert first["result"]["content"][0]["text"] == "hi"
    assert second["result"] == {"tools/call": 1, "notifications/initialized": 1}


def test_every_connection_sends_a_text_of_its_own() -> None:
    texts = [loads.call(Door(1), "echo", number, 100)[0].expected.text for number in range(1, 5)]
    assert len(set(texts)) == 4
    assert {len(text) for text in texts} == {100}
    assert isinstance(loads.call(Door(1), "echo", 1)[0], Step)

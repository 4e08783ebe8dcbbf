"""Answers are framed however they arrive, and judged by what they hold."""

from __future__ import annotations

import msgspec
import pytest

from bench.wire import Door, Expected, Framing, call_params, fault, request

BODY = b'{"jsonrpc":"2.0","id":4,"result":{"content":[{"type":"text","text":"hi"}],"isError":false}}'
PLAIN = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNKS = HEAD + b"a\r\n%b\r\n%x;note=1\r\n%b\r\n0\r\n\r\n" % (BODY[:10], len(BODY) - 10, BODY[10:])
RIGHT = Expected(4, "hi")


@pytest.mark.parametrize("whole", [PLAIN, CHUNKS], ids=["length", "chunks"])
def test_an_answer_may_be_cut_anywhere(whole: bytes) -> None:
    for cut in range(1, len(whole)):
        framing = Framing()
        assert not framing.feed(whole[:cut])
        assert framing.feed(whole[cut:])
        assert (framing.status, framing.body) == (200, BODY)


@pytest.mark.parametrize("whole", [PLAIN, CHUNKS], ids=["length", "chunks"])
def test_a_shorter_answer_may_follow_a_longer_one(whole: bytes) -> None:
    framing = Framing()
    long = b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n" + b"x" * 5000
    for answer in (long, whole, long, whole, whole):
        assert not framing.feed(answer[:70])
        assert framing.feed(answer[70:])
    assert framing.body == BODY


def test_bytes_after_the_end_are_the_servers_fault() -> None:
    with pytest.raises(ValueError, match="after the end"):
        Framing().feed(PLAIN + b"HTTP")


def test_an_answer_must_say_how_long_it_is() -> None:
    with pytest.raises(ValueError, match="without a length"):
        Framing().feed(b"HTTP/1.1 200 OK\r\n\r\n")


def test_the_session_id_is_found() -> None:
    framing = Framing()
    framing.feed(b"HTTP/1.1 202 Accepted\r\nMcp-Session-Id: abc\r\ncontent-length: 0\r\n\r\n")
    assert (framing.status, framing.session) == (202, b"abc")


def test_a_right_answer_has_no_fault() -> None:
    assert fault(200, BODY, RIGHT) == ""
    assert fault(200, b"event: message\ndata: " + BODY + b"\n\n", RIGHT) == ""
    assert fault(202, b"", Expected()) == ""


@pytest.mark.parametrize(
    ("status", "body", "expected", "reason"),
    [
        (500, BODY, RIGHT, "HTTP 500"),
        (200, b"", Expected(), "HTTP 200"),
        (200, BODY[:-1], RIGHT, "not a JSON-RPC answer"),
        (200, BODY, Expected(5, "hi"), "answer to 4 instead of 5"),
        (200, BODY, Expected(4, "ho"), "text did not come back"),
        (200, BODY.replace(b"false", b"true"), RIGHT, "tool error"),
        (200, b'{"jsonrpc":"2.0","id":4,"error":{"code":-32603,"message":"x"}}', RIGHT, "error: "),
        (200, b'{"jsonrpc":"2.0","id":4,"result":{"tools":[{},{}]}}', Expected(4, tools=3), "2 tools listed"),
    ],
)
def test_a_wrong_answer_has_one(status: int, body: bytes, expected: Expected, reason: str) -> None:
    assert reason in fault(status, body, expected)


def test_a_modern_request_repeats_its_body_in_headers() -> None:
    data = request(Door(80, token="t"), "tools/call", call_params("echo", "hi"), 4)
    head, body = data.split(b"\r\n\r\n", 1)
    lines = head.decode().split("\r\n")
    params = msgspec.json.decode(body)["params"]
    assert {"mcp-protocol-version: 2026-07-28", "mcp-method: tools/call", "mcp-name: echo"} < set(lines)
    assert {"authorization: Bearer t", f"content-length: {len(body)}"} < set(lines)
    assert params["_meta"]["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"


def test_a_legacy_request_names_its_session_instead() -> None:
    data = request(Door(80, era="legacy", session="s"), "tools/list", {}, 1)
    assert b"mcp-session-id: s" in data
    assert b"mcp-method" not in data
    assert b"_meta" not in data

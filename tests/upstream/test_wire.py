from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.inbound import decode_header_value

from callgate.errors import UpstreamError
from callgate.types import Tool
from callgate.upstream.headers import header_value, param_headers
from callgate.upstream.wire import Stamp, answer, read
from tests.upstream.house import permitted

INFO = {"name": "callgate", "version": "1"}


@pytest.mark.rule("HDR-2")
@pytest.mark.parametrize("text", ["git_status", "with space", "a=b;c", ""])
def test_plain_header_values_travel_as_they_are(text: str) -> None:
    assert header_value(text) == text.encode()


@pytest.mark.rule("HDR-2")
@pytest.mark.parametrize("text", ["naïve", " lead", "trail ", "tab\t", "a\r\nx-injected: 1", "=?base64?YQ==?=", "\x7f"])
def test_other_header_values_travel_encoded(text: str) -> None:
    assert header_value(text) == b"=?base64?" + base64.b64encode(text.encode()) + b"?="


@pytest.mark.rule("HDR-2")
@given(st.text(st.characters(codec="utf-8")))
def test_the_official_decoder_reads_every_header_value(text: str) -> None:
    sent = header_value(text).decode("ascii")
    assert decode_header_value(sent) == text
    assert sent.isprintable()


@pytest.mark.rule("HDR-6", "HDR-10")
def test_parameter_headers_follow_the_arguments() -> None:
    tool = Tool(
        "s",
        "t",
        "s__t",
        b"{}",
        header_arguments=(
            ("Region", ("region",)),
            ("Count", ("count",)),
            ("Dry", ("options", "dry")),
            ("Absent", ("absent",)),
            ("Null", ("null",)),
            ("Deep", ("region", "deeper")),
            ("Whole", ("whole",)),
            ("Odd", ("odd",)),
            ("Bad\r\nName", ("region",)),
        ),
    )
    arguments = {"region": "Zürich", "count": 42, "options": {"dry": True}, "null": None, "whole": 7.0, "odd": 1.5}
    assert param_headers(tool, arguments).decode().split("\r\n") == [
        "mcp-param-region: =?base64?WsO8cmljaA==?=",
        "mcp-param-count: 42",
        "mcp-param-dry: true",
        "mcp-param-whole: 7",
        "",
    ]


def call_params(era: Any, **more: Any) -> dict[str, Any]:
    sent = permitted("s", "t", {"a": 1}, **more)
    message: dict[str, Any] = msgspec.json.decode(Stamp(era, INFO).call(sent.call, 17, True))
    assert message["id"] == 17
    assert message["params"]["arguments"] == {"a": 1}
    meta: dict[str, Any] = message["params"]["_meta"]
    return meta


CLIENT_META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "the client"},
    "io.modelcontextprotocol/clientCapabilities": {"sampling": {}},
    "io.modelcontextprotocol/logLevel": "debug",
    "progressToken": "client's",
    "traceparent": "00-11111111111111111111111111111111-2222222222222222-00",
    "tracestate": "vendor=1",
    "org.example/key": {"kept": True},
}


def test_metadata_of_the_clients_hop_stays_behind() -> None:
    meta = call_params("modern", meta=CLIENT_META, log_level="info", trace_id="a" * 32)
    trace = meta.pop("traceparent").split("-")
    assert meta == {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": INFO,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/logLevel": "info",
        "progressToken": 17,
        "tracestate": "vendor=1",
        "org.example/key": {"kept": True},
    }
    assert trace[0] == "00"
    assert trace[1] == "a" * 32
    assert trace[2] != "2" * 16
    assert len(trace[2]) == 16
    assert trace[3] == "00"


def test_legacy_servers_get_no_modern_metadata() -> None:
    meta = call_params("legacy", meta=CLIENT_META, log_level="info")
    assert set(meta) == {"progressToken", "traceparent", "tracestate", "org.example/key"}


def test_a_result_becomes_one_line_and_keeps_every_field() -> None:
    raw = b'{"id":1,"result":{\n  "structuredContent": null,\r\n "isError" : true, "x": [1.0,\n2e5], "t":"\xc3\xa9"}}'
    said = answer(read(raw), "legacy")
    assert said.result == b'{"structuredContent":null,"isError":true,"x":[1.0,2e5],"t":"\xc3\xa9"}'
    assert said.is_error
    assert said.result_type is None


@pytest.mark.parametrize(
    "attack",
    [
        b'{"id":1,"result":[1]}',
        b'{"id":1,"result":"text"}',
        b'{"id":1,"result":null}',
        b'{"id":1,"result":{"text":"\xff\xfe"}}',
        b'{"id":1,"result":{"a":"line\nbreak"}}',
        b'{"id":1,"result":{"a":1,}}',
        b'{"id":1,"result":{"resultType":7}}',
        b'{"id":1,"result":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b'{"id":1}',
        b'{"id":1,"error":"text"}',
        b'{"id":1,"error":{"code":"x","message":"y"}}',
        b'{"id":1.5,"result":{}}',
        b"[]",
        b"",
        b"<html>",
    ],
)
def test_answers_that_are_none_are_refused(attack: bytes) -> None:
    with pytest.raises(UpstreamError):
        answer(read(attack), "modern")


def test_an_error_is_passed_on_as_it_is() -> None:
    said = answer(read(b'{"id":1,"result":null,"error":{"code":-32002,"message":"m","data":{"a":[1]}}}'), "legacy")
    assert said.error is not None
    assert (said.error.code, said.error.message, said.error.data) == (-32002, "m", {"a": [1]})


def test_members_beside_the_judged_ones_go_along() -> None:
    """Answers to questions and wishes for tasks go on; nothing replaces what was judged."""
    beside = {"inputResponses": {"a": 1}, "requestState": "é", "name": "other", "arguments": {"x": 1}, "_meta": {}}
    for stamp in (Stamp("modern", INFO), Stamp("legacy", INFO)):
        call = permitted("s", "t", {"n": 1}, params=beside).call
        params = msgspec.json.decode(stamp.call(call, 1, False))["params"]
        params.pop("_meta", None)
        assert params == {"name": "t", "arguments": {"n": 1}, "inputResponses": {"a": 1}, "requestState": "é"}

"""The envelope and the headers of a modern request, and the order in which mistakes are named."""

from __future__ import annotations

from typing import Any

import pytest

from callgate.errors import ProtocolError
from callgate.gateway.ladder import check_parameters, envelope, is_modern
from callgate.types import Front, Tool

VERSION = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
META = {VERSION: "2026-07-28", CAPABILITIES: {}}


def call(name: str = "echo", **meta: Any) -> dict[str, Any]:
    params = {"name": name, "arguments": {}, "_meta": {**META, **meta}}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


def headers(**changed: bytes | None) -> dict[bytes, bytes]:
    plain = {b"mcp-protocol-version": b"2026-07-28", b"mcp-method": b"tools/call", b"mcp-name": b"echo"}
    for key, value in changed.items():
        name = key.replace("_", "-").encode()
        if value is None:
            plain.pop(name, None)
        else:
            plain[name] = value
    return plain


def refusal(message: dict[str, Any], sent: dict[bytes, bytes] | None) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        envelope(message, sent, "")
    return caught.value


def test_a_right_request_is_let_through_with_what_the_client_said() -> None:
    front = envelope(call(), headers(), "virtual:x")
    assert front == Front("virtual:x", "2026-07-28", "modern", "http", {}, None)


@pytest.mark.rule("HTTP-10")
@pytest.mark.parametrize("key", [VERSION, CAPABILITIES])
@pytest.mark.parametrize("value", [None, 7, "", [], "absent"])
def test_a_missing_or_malformed_meta_key_is_invalid_params(key: str, value: Any) -> None:
    message = call()
    if value == "absent":
        del message["params"]["_meta"][key]
    else:
        message["params"]["_meta"][key] = value
    if key == VERSION and value == "":
        return  # a string, if an unsupported one: the headers disagree
    error = refusal(message, headers())
    assert (error.rpc_code, error.http_status) == (-32602, 400)


@pytest.mark.rule("HTTP-12", "HDR-1")
@pytest.mark.parametrize(
    "changed",
    [
        {"mcp_method": None}, {"mcp_name": None}, {"mcp_protocol_version": None},
        {"mcp_method": b"Tools/Call"}, {"mcp_method": b"tools/list"}, {"mcp_name": b"other"}, {"mcp_name": b"ECHO"},
        {"mcp_protocol_version": b"2025-11-25"}, {"mcp_name": b"ec\x01ho"}, {"mcp_name": "ächo".encode()},
    ],
)  # fmt: skip
def test_a_header_that_is_missing_or_says_something_else_is_a_mismatch(changed: dict[str, bytes | None]) -> None:
    error = refusal(call(), headers(**changed))
    assert (error.rpc_code, error.http_status) == (-32020, 400)


@pytest.mark.rule("HDR-2", "HDR-3")
def test_a_name_outside_ascii_travels_in_base64() -> None:
    assert envelope(call("größe"), headers(mcp_name=b"=?base64?Z3LDtsOfZQ==?="), "").era == "modern"
    for broken in (b"=?base64?***?=", b"=?base64?Z3LDtsOfZQ?=", b"=?base64?/w==?=", "größe".encode()):
        assert refusal(call("größe"), headers(mcp_name=broken)).rpc_code == -32020


@pytest.mark.rule("HDR-3")
def test_a_value_has_one_spelling_in_base64() -> None:
    """The bits that the last character leaves unused are no second one: whoever routes by the header sees one name."""
    assert envelope(call("ä"), headers(mcp_name=b"=?base64?w6Q=?="), "").era == "modern"
    for other in (b"=?base64?w6R=?=", b"=?base64?w6Q?=", b"=?base64?w6Q==?=", b"=?BASE64?w6Q=?="):
        assert refusal(call("ä"), headers(mcp_name=other)).rpc_code == -32020


@pytest.mark.rule("HDR-2", "HDR-3")
def test_a_plain_name_that_looks_like_the_sentinel_must_be_wrapped_itself() -> None:
    name = "=?base64?Zm9v?="
    assert refusal(call(name), headers(mcp_name=name.encode())).rpc_code == -32020
    wrapped = b"=?base64?PT9iYXNlNjQ/Wm05dj89?="
    assert envelope(call(name), headers(mcp_name=wrapped), "").era == "modern"


@pytest.mark.rule("HTTP-8")
def test_an_unknown_version_is_named_with_the_supported_ones() -> None:
    message = call()
    message["params"]["_meta"][VERSION] = "2099-01-01"
    error = refusal(message, headers(mcp_protocol_version=b"2099-01-01"))
    assert (error.rpc_code, error.http_status) == (-32022, 400)
    assert error.data == {"supported": ["2026-07-28"], "requested": "2099-01-01"}


def test_the_first_mistake_wins_meta_then_headers_then_version() -> None:
    message = call()
    message["params"]["_meta"] = {VERSION: "2099-01-01"}
    assert refusal(message, {}).rpc_code == -32602
    message["params"]["_meta"][CAPABILITIES] = {}
    assert refusal(message, {}).rpc_code == -32020
    assert refusal(message, headers(mcp_protocol_version=b"2099-01-01")).rpc_code == -32022


def test_the_body_decides_the_era_and_the_header_only_where_the_body_is_silent() -> None:
    plain = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    assert is_modern(call(), {})
    assert is_modern(plain, {b"mcp-protocol-version": b"2026-07-28"})
    assert is_modern(plain, {b"mcp-protocol-version": b"2099-01-01"})
    assert not is_modern(plain, {b"mcp-protocol-version": b"2025-11-25"})
    assert not is_modern(plain, {})
    assert not is_modern({**plain, "method": "initialize"}, {b"mcp-protocol-version": b"2026-07-28"})


TOOL = Tool("s", "t", "s__t", b"{}", header_arguments=(("City", ("place", "city")), ("Count", ("n",)), ("Ok", ("ok",))))


@pytest.mark.rule("HDR-7")
@pytest.mark.parametrize(
    ("arguments", "sent", "right"),
    [
        ({"place": {"city": "Oslo"}}, {b"mcp-param-city": b"Oslo"}, True),
        ({"place": {"city": "Oslo"}}, {}, False),
        ({"place": {"city": "Oslo"}}, {b"mcp-param-city": b"oslo"}, False),
        ({"place": {"city": None}}, {}, True),
        ({}, {}, True),
        ({"n": 42}, {b"mcp-param-count": b"42.0"}, True),
        ({"n": 42}, {b"mcp-param-count": b"43"}, False),
        ({"n": 42}, {b"mcp-param-count": b"many"}, False),
        ({"ok": True}, {b"mcp-param-ok": b"true"}, True),
        ({"ok": True}, {b"mcp-param-ok": b"True"}, False),
        ({"place": {"city": "Tromsø"}}, {b"mcp-param-city": b"=?base64?VHJvbXPDuA==?="}, True),
    ],
)
def test_mirrored_arguments_agree_with_their_headers(
    arguments: dict[str, Any], sent: dict[bytes, bytes], right: bool
) -> None:
    if right:
        check_parameters(TOOL, arguments, sent)
    else:
        with pytest.raises(ProtocolError) as caught:
            check_parameters(TOOL, arguments, sent)
        assert caught.value.rpc_code == -32020

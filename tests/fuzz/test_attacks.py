"""Named attacks on meaning and identity, one test each; those on the bounds are in ``test_bounds.py``.

After every test the ``gateway`` fixture checks that the process lives, wrote no traceback and still serves others.
"""

from __future__ import annotations

import pytest

from tests.fuzz.conftest import Gateway
from tests.fuzz.messages import (
    DENIED,
    ECHO,
    KEY,
    MODERN,
    SECRET,
    dump,
    echo,
    head,
    initialize,
    modern,
    post,
    routing,
    send,
    usual,
)
from tests.fuzz.refusals import only_refusals, refused

PARSE_ERROR = -32700
HEADER_MISMATCH = -32020


# What two readers could read differently


@pytest.mark.parametrize("names", [(ECHO, DENIED), (DENIED, ECHO)])
@pytest.mark.parametrize("claimed", [ECHO, DENIED])
def test_a_duplicate_json_key_cannot_swap_the_tool(gateway: Gateway, names: tuple[str, str], claimed: str) -> None:
    body = dump(modern("tools/call", {"name": "NAME", "arguments": {"text": "x"}}))
    body = body.replace(b'"name": "NAME"', b'"name": "%b", "name": "%b"' % (names[0].encode(), names[1].encode()))
    headers = [("MCP-Protocol-Version", MODERN), ("Mcp-Method", "tools/call"), ("Mcp-Name", claimed)]
    reply = refused(gateway.ask(post(gateway.port, body, headers)), 400)
    assert reply.error == PARSE_ERROR


@pytest.mark.parametrize("where", ['"id": 1', '"jsonrpc": "2.0"', '"method": "tools/call"', '"text": "x"'])
def test_duplicate_json_keys_are_refused_at_every_level(gateway: Gateway, where: str) -> None:
    message = echo("x")
    body = dump(message).replace(where.encode(), f"{where}, {where}".encode())
    assert refused(gateway.ask(post(gateway.port, body, routing(message))), 400).error == PARSE_ERROR


def test_a_key_written_in_two_ways_is_still_the_same_key(gateway: Gateway) -> None:
    message = echo("x")
    body = dump(message).replace(b'"name": "pipe', b'"n\\u0061me": "x", "name": "pipe')
    assert refused(gateway.ask(post(gateway.port, body, routing(message))), 400).error == PARSE_ERROR


@pytest.mark.rule("HTTP-12", "HDR-9")
def test_the_routing_header_cannot_name_another_tool_than_the_body(gateway: Gateway) -> None:
    message = modern("tools/call", {"name": DENIED, "arguments": {}})
    headers = [("MCP-Protocol-Version", MODERN), ("Mcp-Method", "tools/call"), ("Mcp-Name", ECHO)]
    assert refused(gateway.ask(post(gateway.port, dump(message), headers)), 400).error == HEADER_MISMATCH


@pytest.mark.rule("HTTP-13")
@pytest.mark.parametrize("name", ["Mcp-Name", "MCP-NAME", "Mcp-Method", "MCP-Protocol-Version"])
def test_a_routing_header_sent_twice_is_refused(gateway: Gateway, name: str) -> None:
    message = echo("x")
    again = next(value for header, value in routing(message) if header.lower() == name.lower())
    assert refused(gateway.ask(send(gateway.port, message, [(name, again)])), 400).error == HEADER_MISMATCH


@pytest.mark.parametrize("name", ["Authorization", "Content-Type", "Mcp-Session-Id"])
def test_a_header_that_decides_is_not_taken_twice(gateway: Gateway, name: str) -> None:
    refused(gateway.ask(send(gateway.port, echo("x"), [(name, "one"), (name, "two")])), 400)


# JSON that is more, or less, than it should be


@pytest.mark.parametrize("brackets", ["[]", "{}"])
@pytest.mark.parametrize("depth", [40, 10_000])
def test_deep_nesting_is_refused(gateway: Gateway, brackets: str, depth: int) -> None:
    opening = "[" if brackets == "[]" else '{"a":'
    nested = opening * depth + "1" + brackets[1] * depth
    message = echo("x")
    body = dump(message).replace(b'"x"', nested.encode())
    assert refused(gateway.ask(post(gateway.port, body, routing(message))), 400).error == PARSE_ERROR


def test_deep_nesting_that_never_closes_is_refused(gateway: Gateway) -> None:
    for opening in (b"[" * 60_000, b'{"a":' * 12_000):
        assert refused(gateway.ask(post(gateway.port, opening)), 400).error == PARSE_ERROR


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "Infinity", "-Infinity", "1" * 5000, "0x10", "01"])
def test_numbers_that_no_reader_agrees_on_are_refused(gateway: Gateway, number: str) -> None:
    message = echo("x")
    body = dump(message).replace(b'"text": "x"', f'"text": "x", "n": {number}'.encode())
    assert refused(gateway.ask(post(gateway.port, body, routing(message))), 400).error == PARSE_ERROR


@pytest.mark.parametrize("id", [2**53 + 1, 2**63, 2**64 + 1, -(2**63) - 1, 10**40])
def test_a_huge_id_comes_back_as_it_was_or_is_refused(gateway: Gateway, id: int) -> None:
    reply = gateway.ask(send(gateway.port, echo("x", id)))
    assert reply.status == 400 or reply.json["id"] == id


@pytest.mark.parametrize("number", [2**70, -(2**70), 1e300])
def test_a_huge_number_in_the_capabilities_opens_a_session_or_none(gateway: Gateway, number: float) -> None:
    """Capabilities are kept in the session id, in a format with narrower numbers than JSON has."""
    message = initialize()
    message["params"]["capabilities"] = {"sampling": {"n": number}}
    assert gateway.ask(post(gateway.port, dump(message))).status in (200, 400)


@pytest.mark.parametrize("broken", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82"])
def test_bad_utf8_is_refused(gateway: Gateway, broken: bytes) -> None:
    message = echo("PLACE")
    body = dump(message).replace(b"PLACE", broken)
    assert refused(gateway.ask(post(gateway.port, body, routing(message))), 400).error == PARSE_ERROR


@pytest.mark.parametrize("escape", ["\\ud800", "\\udc00\\ud800"])
def test_half_a_character_is_refused_or_answered_but_breaks_nothing(gateway: Gateway, escape: str) -> None:
    message = echo("PLACE")
    for place in (b"PLACE", b"2.0", b"tools/call"):
        body = dump(message).replace(place, escape.encode(), 1)
        assert gateway.ask(post(gateway.port, body, routing(message))).status in (200, 400, 404)


def test_nul_in_a_json_string_is_data(gateway: Gateway) -> None:
    reply = gateway.ask(send(gateway.port, echo("a\0b")))
    assert reply.status == 200
    assert reply.json["result"]["structuredContent"] == {"text": "a\0b"}


@pytest.mark.rule("HTTP-4")
@pytest.mark.parametrize(
    "body", [b"", b" ", b"null", b"1", b'"x"', b"[]", b"{}", b'{"jsonrpc":"2.0"}', b"{} {}", b"\0"]
)
def test_a_body_that_is_no_message_is_refused(gateway: Gateway, body: bytes) -> None:
    refused(gateway.ask(post(gateway.port, body)), 400)


@pytest.mark.rule("HTTP-4")
def test_a_batch_is_refused_outside_the_version_that_has_them(gateway: Gateway) -> None:
    refused(gateway.ask(post(gateway.port, dump([echo("a"), echo("b")]), routing(echo("a")))), 400)


# Requests with two meanings

SMUGGLED = "smuggled"


def smuggled(gateway: Gateway) -> bytes:
    return send(gateway.port, echo(SMUGGLED))


def test_content_length_beside_transfer_encoding_is_refused(gateway: Gateway) -> None:
    for sizes in ([("Content-Length", "4"), ("Transfer-Encoding", "chunked")], [("Transfer-Encoding", "chunked")]):
        for order in (sizes, sizes[::-1]):
            if len(sizes) == 1:
                order = [*sizes, ("Content-Length", "5")]
            begin = head("POST /mcp HTTP/1.1", [*usual(gateway.port), *order])
            only_refusals(gateway, begin + b"0\r\n\r\n" + smuggled(gateway), 400)


@pytest.mark.parametrize(
    "values", [("5", "6"), ("6", "5"), ("5, 6",), ("5,5",), ("+5",), ("-5",), ("0x5",), ("5 5",), ("",)]
)
def test_content_lengths_with_two_readings_are_refused(gateway: Gateway, values: tuple[str, ...]) -> None:
    sizes = [("Content-Length", value) for value in values]
    only_refusals(gateway, head("POST /mcp HTTP/1.1", [*usual(gateway.port), *sizes]) + smuggled(gateway), 400)


@pytest.mark.parametrize(
    "value", ["xchunked", "chunked, identity", "identity, chunked, x", "chunked, chunked", "\x0bchunked"]
)
def test_transfer_encodings_that_are_not_plainly_chunked_are_refused(gateway: Gateway, value: str) -> None:
    begin = head("POST /mcp HTTP/1.1", [*usual(gateway.port), ("Transfer-Encoding", value)])
    only_refusals(gateway, begin + b"0\r\n\r\n" + smuggled(gateway), 400, 501)


def test_a_space_before_the_colon_is_refused(gateway: Gateway) -> None:
    whole = send(gateway.port, echo("x"))
    for name in (b"Content-Length", b"Mcp-Name", b"Host"):
        only_refusals(gateway, whole.replace(name + b":", name + b" :"), 400)


def test_a_folded_header_is_refused(gateway: Gateway) -> None:
    whole = send(gateway.port, echo("x"), [("X-Folded", "a\r\n b")])
    only_refusals(gateway, whole, 400)


def test_a_bare_line_feed_does_not_end_a_header(gateway: Gateway) -> None:
    only_refusals(gateway, send(gateway.port, echo("x"), [("X-A", "b\nMcp-Extra: c")]), 400)
    only_refusals(gateway, send(gateway.port, echo("x")).replace(b"\r\n", b"\n"), 400)


def test_a_bare_carriage_return_does_not_end_a_header(gateway: Gateway) -> None:
    only_refusals(gateway, send(gateway.port, echo("x"), [("X-A", "b\rMcp-Extra: c")]), 400)


@pytest.mark.parametrize("place", ["name", "value", "target"])
def test_nul_bytes_in_the_head_are_refused(gateway: Gateway, place: str) -> None:
    name, value = ("X-\0A" if place == "name" else "X-A"), ("b\0c" if place == "value" else "b")
    path = "/mcp\0" if place == "target" else "/mcp"
    only_refusals(gateway, send(gateway.port, echo("x"), [(name, value)], path=path), 400)


@pytest.mark.parametrize("size", [b"-1", b"0x5", b"fffffffffffffffff", b"5 5", b"", b"g"])
def test_a_chunk_size_with_two_readings_is_refused(gateway: Gateway, size: bytes) -> None:
    begin = head("POST /mcp HTTP/1.1", [*usual(gateway.port), ("Transfer-Encoding", "chunked")])
    only_refusals(gateway, begin + size + b"\r\nhello\r\n0\r\n\r\n" + smuggled(gateway), 400)


def test_trailers_are_not_headers(gateway: Gateway) -> None:
    message = modern("tools/call", {"name": DENIED, "arguments": {}})
    body = dump(message)
    begin = head("POST /mcp HTTP/1.1", [*usual(gateway.port), ("Transfer-Encoding", "chunked"), *routing(message)])
    trailer = f"Authorization: Bearer {KEY}\r\n".encode()
    reply = gateway.ask(begin + b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(body), body, trailer))
    assert SECRET.encode() not in reply.body


# Who is asked, and from where


def test_a_missing_host_is_refused(gateway: Gateway) -> None:
    body = dump(echo("x"))
    refused(gateway.ask(post(gateway.port, body, routing(echo("x")), without=["Host"])), 400, 421)


def test_two_hosts_are_refused(gateway: Gateway) -> None:
    refused(gateway.ask(send(gateway.port, echo("x"), [("Host", f"127.0.0.1:{gateway.port}")])), 400)


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "127.0.0.1@evil.example", "", "[", "*"]
)
def test_a_foreign_host_is_refused(gateway: Gateway, host: str) -> None:
    body = dump(echo("x"))
    request = post(gateway.port, body, [("Host", host), *routing(echo("x"))], without=["Host"])
    refused(gateway.ask(request), 400, 403, 421)


@pytest.mark.rule("HTTP-3")
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE", "OPTIONS", "PUT"])
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1.evil.example", "file://"])
def test_a_foreign_origin_is_refused_whatever_the_method(gateway: Gateway, method: str, origin: str) -> None:
    request = send(gateway.port, echo("x"), [("Origin", origin)])
    refused(gateway.ask(request.replace(b"POST", method.encode(), 1)), 403)


def test_a_token_in_the_query_string_is_ignored(gateway: Gateway) -> None:
    message = modern("tools/call", {"name": DENIED, "arguments": {}})
    for name in ("access_token", "token", "api_key", "key", "authorization"):
        reply = gateway.ask(send(gateway.port, message, path=f"/mcp?{name}={KEY}"))
        assert SECRET.encode() not in reply.body
    known = gateway.ask(send(gateway.port, message, [("Authorization", f"Bearer {KEY}")]))
    assert SECRET.encode() in known.body


@pytest.mark.parametrize(
    "token", ["", "x", "Bearer", "Bearer ", "Basic eDp5", "Bearer a.b.c", "Bearer \xff", "Bearer " + "x" * 4000]
)
def test_a_credential_that_does_not_hold_is_never_anonymous(gateway: Gateway, token: str) -> None:
    refused(gateway.ask(send(gateway.port, echo("x"), [("Authorization", token)])), 400, 401)


@pytest.mark.parametrize("session", ["x", "A" * 60, "../../etc", "\xff" * 50, "=" * 80])
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
def test_a_session_that_was_never_opened_is_not_found(gateway: Gateway, session: str, method: str) -> None:
    request = post(gateway.port, dump({"jsonrpc": "2.0", "id": 1, "method": "ping"}), [("Mcp-Session-Id", session)])
    refused(gateway.ask(request.replace(b"POST", method.encode(), 1)), 400, 404)


def test_somebody_elses_session_is_not_found(gateway: Gateway) -> None:
    opened = gateway.ask(post(gateway.port, dump(initialize()), [("Authorization", f"Bearer {KEY}")]))
    stolen = ("Mcp-Session-Id", opened.headers["mcp-session-id"])
    ping = dump({"jsonrpc": "2.0", "id": 1, "method": "ping"})
    refused(gateway.ask(post(gateway.port, ping, [stolen])), 404)
    assert gateway.ask(post(gateway.port, ping, [stolen, ("Authorization", f"Bearer {KEY}")])).status == 200

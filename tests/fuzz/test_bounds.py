"""Named attacks on the bounds, one test each: too much, too slow, unusual.

After every test the ``gateway`` fixture checks that the process lives, wrote no traceback and still serves others.
"""

from __future__ import annotations

import pytest

from tests.fuzz.conftest import Gateway
from tests.fuzz.messages import dump, echo, head, modern, post, routing, send, usual
from tests.fuzz.raw import Connection, Hang, Reply
from tests.fuzz.refusals import only_refusals, refused

# Too much, and too slow


def test_an_oversized_body_is_refused_before_it_is_sent(gateway: Gateway) -> None:
    headers = [*usual(gateway.port), ("Content-Length", "100000000")]
    with Connection(gateway.address) as connection:
        connection.send(head("POST /mcp HTTP/1.1", headers) + b"x" * 70_000)
        reply = connection.reply()
    assert reply is not None
    refused(reply, 413)


@pytest.mark.parametrize("chunk", [1, 64, 40_000])
def test_an_oversized_chunked_body_is_refused(gateway: Gateway, chunk: int) -> None:
    begin = head("POST /mcp HTTP/1.1", [*usual(gateway.port), ("Transfer-Encoding", "chunked")])
    pieces = (b"%x\r\n%b\r\n" % (chunk, b"x" * chunk)) * (80_000 // chunk)
    only_refusals(gateway, begin + pieces, 413)


def test_a_chunk_that_promises_too_much_is_refused(gateway: Gateway) -> None:
    begin = head("POST /mcp HTTP/1.1", [*usual(gateway.port), ("Transfer-Encoding", "chunked")])
    only_refusals(gateway, begin + b"7fffffff\r\n" + b"x" * 70_000, 413)


def test_chunk_extensions_and_trailers_without_end_are_cut_off(gateway: Gateway) -> None:
    begin = head("POST /mcp HTTP/1.1", [*usual(gateway.port), ("Transfer-Encoding", "chunked")])
    for flood in (b"5;" + b"x" * 1_000_000, b"0\r\n" + b"X-Trailer: y\r\n" * 60_000):
        only_refusals(gateway, begin + flood, 400, 408, 413, 431)


@pytest.mark.parametrize("size", [9_000, 200_000])
def test_oversized_headers_are_refused(gateway: Gateway, size: int) -> None:
    refused(gateway.ask(send(gateway.port, echo("x"), [("X-Big", "y" * size)])), 431)


def test_an_oversized_request_target_is_refused(gateway: Gateway) -> None:
    refused(gateway.ask(send(gateway.port, echo("x"), path="/mcp?" + "y" * 9_000)), 414, 431)


def test_too_many_headers_are_refused(gateway: Gateway) -> None:
    refused(gateway.ask(send(gateway.port, echo("x"), [(f"X-{number}", "y") for number in range(60)])), 431)


def test_headers_without_end_are_refused(gateway: Gateway) -> None:
    endless = head("POST /mcp HTTP/1.1", usual(gateway.port)).removesuffix(b"\r\n") + b"X-A: b\r\n" * 20_000
    only_refusals(gateway, endless, 400, 431)


def drip(gateway: Gateway, at_once: bytes, data: bytes) -> Reply | None:
    """Send byte by byte, slower than the limits allow, until the other side answers or closes."""
    with Connection(gateway.address) as connection:
        connection.send(at_once)
        for byte in data:
            connection.send(bytes([byte]))
            gateway.healthy()
            if connection.speaks(0.05):
                return connection.reply()
    raise Hang("all of it was taken, however slowly it came")


def test_headers_that_drip_in_are_cut_off(gateway: Gateway) -> None:
    reply = drip(gateway, b"", head("POST /mcp HTTP/1.1", usual(gateway.port)))
    assert reply is None or refused(reply, 408)


def test_a_body_that_drips_in_is_cut_off(gateway: Gateway) -> None:
    begin, end, body = send(gateway.port, echo("x" * 200)).partition(b"\r\n\r\n")
    reply = drip(gateway, begin + end, body)
    assert reply is None or refused(reply, 408)


def test_many_connections_that_say_nothing_disturb_nobody(gateway: Gateway) -> None:
    silent = [Connection(gateway.address) for _ in range(200)]
    for connection in silent:
        connection.send(b"POST /mcp HTT")
    gateway.healthy()
    for connection in silent:
        reply = connection.reply()
        assert reply is None or refused(reply, 408)
        connection.__exit__()


def test_a_body_shorter_than_its_length_is_not_answered_as_if_it_were_whole(gateway: Gateway) -> None:
    body = dump(echo("cut short"))
    promised = post(
        gateway.port,
        body,
        [*routing(echo("cut short")), ("Content-Length", str(len(body) + 10))],
        without=["Content-Length"],
    )
    with Connection(gateway.address) as connection:
        connection.send(promised)
        connection.finish()
        replies = connection.replies()
    assert all(refused(reply, 400, 408) for reply in replies)
    only = gateway.ask(promised)
    refused(only, 408)


def test_what_follows_the_body_is_the_next_request(gateway: Gateway) -> None:
    with Connection(gateway.address) as connection:
        connection.send(send(gateway.port, echo("first", 1)) + b"not http at all\r\n\r\n")
        replies = connection.replies()
    assert [reply.status for reply in replies] in ([200, 400], [400])


# Unusual, and allowed


def test_pipelined_requests_are_answered_in_order(gateway: Gateway) -> None:
    slow = modern("tools/call", {"name": "pipe__test_tool_with_progress", "arguments": {}}, "slow")
    ids: list[str | int] = ["slow", *range(20)]
    sent = send(gateway.port, slow) + b"".join(send(gateway.port, echo(f"n{number}", number)) for number in range(20))
    with Connection(gateway.address) as connection:
        connection.send(sent)
        found = [connection.reply() for _ in ids]
    assert [reply.json["id"] for reply in found if reply is not None] == ids


@pytest.mark.parametrize("good", [1, 2, 3])
def test_garbage_behind_good_requests_ends_the_connection(gateway: Gateway, good: int) -> None:
    """Those in front may be answered or not, in order; nothing is written once the connection is closed."""
    sent = b"".join(send(gateway.port, echo("good", number)) for number in range(good))
    for garbage in (b"garbage\r\n\r\n", send(gateway.port, echo("x"), [("Origin", "http://evil.example")])):
        with Connection(gateway.address) as connection:
            connection.send(sent + garbage)
            replies = connection.replies()
        assert [reply.json["id"] for reply in replies[:-1]] == list(range(len(replies) - 1))
        refused(replies[-1], 400, 403)


def test_garbage_behind_a_page_ends_the_connection(gateway: Gateway) -> None:
    """The same for what is not an MCP endpoint, which another part of the server answers."""
    page = head("GET /readyz HTTP/1.1", [("Host", f"127.0.0.1:{gateway.port}")])
    for _ in range(5):
        with Connection(gateway.address) as connection:
            connection.send(page + page + b"garbage\r\n\r\n")
            replies = connection.replies()
        assert [reply.status for reply in replies][-1:] == [400]


def test_a_refusal_in_a_pipeline_does_not_hide_what_came_before(gateway: Gateway) -> None:
    with Connection(gateway.address) as connection:
        connection.send(send(gateway.port, echo("x"), path="/nowhere") + send(gateway.port, echo("good", 2)))
        first, second = connection.reply(), connection.reply()
    assert first is not None
    assert second is not None
    assert (first.status, second.status) == (404, 200)
    assert second.json["id"] == 2


def test_http_1_0_is_answered_and_closed(gateway: Gateway) -> None:
    request = send(gateway.port, echo("old")).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    with Connection(gateway.address) as connection:
        connection.send(request)
        replies = connection.replies()
    assert [reply.status for reply in replies] in ([200], [505])
    assert all("transfer-encoding" not in reply.headers for reply in replies)


@pytest.mark.parametrize("version", ["HTTP/0.9", "HTTP/2.0", "HTTP/3.0", "HTTP/11", "HTCPCP/1.0", ""])
def test_other_versions_of_http_are_refused(gateway: Gateway, version: str) -> None:
    request = send(gateway.port, echo("x")).replace(b" HTTP/1.1", f" {version}".rstrip().encode(), 1)
    only_refusals(gateway, request, 400, 505)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "TRACE", "HEAD", "PROPFIND", "BREW", "post", "P OST"])
def test_unknown_methods_are_refused(gateway: Gateway, method: str) -> None:
    request = send(gateway.port, echo("x")).replace(b"POST", method.encode(), 1)
    with Connection(gateway.address) as connection:
        connection.send(request)
        connection.finish()
        reply = connection.reply() if method != "HEAD" else None
    assert reply is None or refused(reply, 400, 404, 405, 501)


def test_connect_and_upgrade_are_refused(gateway: Gateway) -> None:
    tunnel = head("CONNECT 127.0.0.1:22 HTTP/1.1", [("Host", f"127.0.0.1:{gateway.port}")])
    only_refusals(gateway, tunnel, 400, 404, 405, 501)
    upgrade = send(gateway.port, echo("x"), [("Connection", "Upgrade"), ("Upgrade", "websocket")])
    assert gateway.ask(upgrade).status in (200, 400, 426)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "application/json5"]
)
def test_another_content_type_is_refused(gateway: Gateway, kind: str) -> None:
    message = echo("x")
    request = post(gateway.port, dump(message), [("Content-Type", kind), *routing(message)], without=["Content-Type"])
    refused(gateway.ask(request), 400, 415)


def test_a_missing_content_type_is_refused(gateway: Gateway) -> None:
    message = echo("x")
    refused(gateway.ask(post(gateway.port, dump(message), routing(message), without=["Content-Type"])), 400, 415)


@pytest.mark.rule("HDR-1")
def test_spaces_around_a_header_value_are_not_part_of_it(gateway: Gateway) -> None:
    message = echo("x")
    headers = [(name.upper(), f"  {value} \t ") for name, value in routing(message)]
    assert gateway.ask(post(gateway.port, dump(message), headers)).status == 200

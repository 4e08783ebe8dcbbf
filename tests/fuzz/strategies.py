"""What hypothesis draws from: JSON-RPC shapes of both eras, headers, and ways to break a request's bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.messages import (
    DENIED,
    ECHO,
    LEGACY,
    MODERN,
    dump,
    echo,
    envelope,
    initialize,
    modern,
    post,
    routing,
    rpc,
    send,
)

PORT = 0
"""Requests are drawn before the gateway's port is known; Host is accepted with any port."""

SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from(
        ["", "2.0", ECHO, DENIED, MODERN, LEGACY, "tools/call", "\0", "\ud800", "é" * 9, "=?base64?w6Q=?="]
    ),
)
JSON: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)

METHODS = st.sampled_from(
    [
        "initialize",
        "notifications/initialized",
        "notifications/cancelled",
        "ping",
        "server/discover",
        "tools/list",
        "tools/call",
        "logging/setLevel",
        "prompts/list",
        "resources/read",
        "subscriptions/listen",
        "completion/complete",
        "no/such",
    ]
)
KNOWN_PARAMS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from([ECHO, "echo", "nothing"]) | JSON,
        "arguments": st.fixed_dictionaries({"text": JSON}) | JSON,
        "cursor": JSON,
        "level": st.sampled_from(["info", "debug"]) | JSON,
        "protocolVersion": st.sampled_from([MODERN, LEGACY, "2025-03-26", "1999-01-01"]) | JSON,
        "capabilities": JSON,
        "clientInfo": JSON,
        "requestId": JSON,
        "inputResponses": JSON,
        "requestState": JSON,
        "uri": JSON,
    },
)
META = st.fixed_dictionaries(
    {},
    optional={
        "io.modelcontextprotocol/protocolVersion": st.sampled_from([MODERN, LEGACY]) | JSON,
        "io.modelcontextprotocol/clientCapabilities": st.just({}) | JSON,
        "io.modelcontextprotocol/clientInfo": JSON,
        "io.modelcontextprotocol/logLevel": st.sampled_from(["debug", "error"]) | JSON,
        "progressToken": JSON,
        "traceparent": st.just("00-" + "a" * 32 + "-" + "b" * 16 + "-01") | JSON,
        "tracestate": JSON,
        "baggage": JSON,
    },
)


@st.composite
def params(draw: st.DrawFn) -> Any:
    """Mostly objects with the members that the protocol knows, sometimes with a proper envelope, sometimes anything."""
    if draw(st.integers(0, 9)) == 0:
        return draw(JSON)
    known = dict(draw(KNOWN_PARAMS))
    kind = draw(st.sampled_from(["modern", "modern", "odd", "none", "any"]))
    if kind == "modern":
        known["_meta"] = {**envelope(), **draw(st.dictionaries(st.text(max_size=6), JSON, max_size=2))}
    elif kind == "odd":
        known["_meta"] = draw(META)
    elif kind == "any":
        known["_meta"] = draw(JSON)
    return known


@st.composite
def messages(draw: st.DrawFn) -> Any:
    """Something that looks like a JSON-RPC message, or nearly."""
    message: dict[str, Any] = {
        "jsonrpc": draw(st.just("2.0") | JSON),
        "id": draw(st.integers(0, 99) | st.text(max_size=8) | JSON),
        "method": draw(METHODS | JSON),
        "params": draw(params()),
    }
    for key in draw(st.sets(st.sampled_from(sorted(message)), max_size=2)):
        del message[key]
    message.update(draw(st.dictionaries(st.sampled_from(["result", "error", "extra", ""]), JSON, max_size=1)))
    return message


BODIES = messages() | JSON | st.lists(messages(), max_size=4)

HEADER_NAMES = st.sampled_from(
    [
        "Host",
        "Content-Length",
        "Content-Type",
        "Transfer-Encoding",
        "Connection",
        "Expect",
        "Upgrade",
        "Accept",
        "Origin",
        "Authorization",
        "Mcp-Session-Id",
        "Mcp-Method",
        "Mcp-Name",
        "MCP-Protocol-Version",
        "Mcp-Param-Region",
        "Last-Event-ID",
        "Forwarded",
        "X-Forwarded-Host",
        "",
        " ",
        "X A",
    ]
)
HEADER_VALUES = st.one_of(
    st.sampled_from(
        [
            "",
            "0",
            "5",
            "99999999999999999999",
            "-1",
            "chunked",
            "close",
            "keep-alive",
            "upgrade",
            "100-continue",
            "application/json",
            "text/event-stream",
            "*/*",
            "127.0.0.1",
            "[::1]:",
            "http://[",
            MODERN,
            LEGACY,
            "tools/call",
            ECHO,
            "=?base64?!!?=",
            "=?base64?gA==?=",
            "Bearer x",
        ]
    ),
    st.text(st.characters(max_codepoint=255), max_size=30),
)
HEADERS = st.lists(st.tuples(HEADER_NAMES, HEADER_VALUES), max_size=5)
ENDPOINTS = ["/mcp", "/mcp/", "/servers/pipe/mcp", "/servers/none/mcp", "/mcp/none", "/mcp?x=%ff", "/%6dcp", "//mcp"]
ELSEWHERE = ["/healthz", "/readyz", "*", "http://a/mcp", "/mcp/../mcp", "/\xff"]
PATHS = st.sampled_from([*ENDPOINTS, *ELSEWHERE])
VERBS = st.sampled_from(["POST", "POST", "POST", "GET", "DELETE", "OPTIONS", "PUT", "X"])


def whole(body: Any, more: list[tuple[str, str]], path: str, verb: str) -> bytes:
    """A request whose routing headers fit its body, with these headers besides."""
    try:
        request = send(PORT, body, more, path=path)
    except (UnicodeEncodeError, ValueError):
        request = post(PORT, dump(body), more, path=path)
    return request.replace(b"POST", verb.encode(), 1)


REQUESTS: st.SearchStrategy[bytes] = st.builds(whole, BODIES, HEADERS, PATHS, VERBS)

GOOD = [
    send(PORT, echo("good")),
    send(PORT, modern("tools/list")),
    send(PORT, modern("server/discover")),
    post(PORT, dump(initialize())),
    post(PORT, dump(rpc("ping")), [("Mcp-Session-Id", "x")]),
    post(PORT, dump({"jsonrpc": "2.0", "method": "notifications/initialized"})),
    send(PORT, echo("good"))[:-1],
    send(PORT, echo("one")) + send(PORT, echo("two")),
]
TOKENS = [
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"\t", b"\xff", b"\r\n\r\n", b"HTTP/1.1", b"0\r\n\r\n"),
    *(b"Content-Length: 1\r\n", b"Host: a\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b",", b"1e9", b"\\u0000"),
]

Break = Callable[[bytes], bytes]


@st.composite
def breaks(draw: st.DrawFn) -> Break:
    """One way to change some bytes: remove a piece, repeat it, replace a byte, or put something in."""
    kind = draw(st.sampled_from(["cut", "repeat", "flip", "insert", "truncate"]))
    where, size = draw(st.floats(0, 1)), draw(st.integers(1, 40))
    token = draw(st.sampled_from(TOKENS) | st.binary(min_size=1, max_size=4))

    def change(data: bytes) -> bytes:
        at = int(where * len(data))
        before, piece, after = data[:at], data[at : at + size], data[at + size :]
        match kind:
            case "cut":
                return before + after
            case "repeat":
                return before + piece + piece + after
            case "flip":
                return before + token[:1] + data[at + 1 :]
            case "insert":
                return before + token + data[at:]
        return before

    return change


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A good request, or two of them, with a few bytes changed."""
    data = draw(st.sampled_from(GOOD) | REQUESTS)
    for change in draw(st.lists(breaks(), min_size=1, max_size=4)):
        data = change(data)
    return data


@st.composite
def chunked(draw: st.DrawFn) -> bytes:
    """A chunked request: sizes that fit, or do not, with extensions and trailers of any kind."""
    body = dump(echo("chunked"))
    headers = [("Transfer-Encoding", "chunked"), *routing(echo("chunked"))]
    begin = post(PORT, b"", headers, without=["Content-Length"])
    pieces = []
    while body:
        size = draw(st.integers(1, len(body)))
        piece, body = body[:size], body[size:]
        line = draw(
            st.just(f"{size:x}")
            | st.sampled_from([f"{size:X};a=b", f"0{size:x}", f"{size + 1:x}", "0", "", "g", "ffffffffffffffffff"])
        )
        pieces.append(
            line.encode() + b"\r\n" + piece + draw(st.just(b"\r\n") | st.sampled_from([b"", b"\n", b"\r\n\r\n"]))
        )
    end = draw(
        st.sampled_from([b"0\r\n\r\n", b"0\r\n", b"", b"0\r\nX: y\r\n\r\n", b"0\r\nHost: z\r\n\r\n", b"00\r\n\r\n"])
    )
    return begin + b"".join(pieces) + end

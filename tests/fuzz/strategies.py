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


def mostly(good: st.SearchStrategy[Any], odd: st.SearchStrategy[Any] = JSON) -> st.SearchStrategy[Any]:
    """Nine times out of ten what is expected: one oddity at a time gets further than many."""
    return st.integers(0, 9).flatmap(lambda number: odd if number == 9 else good)


KNOWN_PARAMS = st.fixed_dictionaries(
    {},
    optional={
        "cursor": JSON,
        "level": mostly(st.sampled_from(["info", "debug"])),
        "protocolVersion": mostly(st.sampled_from([LEGACY, MODERN, "2025-03-26", "1999-01-01"])),
        "capabilities": mostly(st.dictionaries(st.sampled_from(["roots", "sampling", "x"]), JSON, max_size=2)),
        "clientInfo": mostly(st.fixed_dictionaries({"name": JSON, "version": JSON})),
        "requestId": JSON,
        "inputResponses": JSON,
        "requestState": JSON,
        "uri": JSON,
    },
)
CALLED = st.fixed_dictionaries(
    {
        "name": mostly(st.sampled_from([ECHO, DENIED, "echo", "pipe__test_logging_tool", "nothing"])),
        "arguments": mostly(st.fixed_dictionaries({"text": mostly(st.text(max_size=20))})),
    }
)
PLAIN_META = st.fixed_dictionaries({"progressToken": JSON})
META = st.fixed_dictionaries(
    {},
    optional={
        "io.modelcontextprotocol/protocolVersion": mostly(st.sampled_from([MODERN, LEGACY])),
        "io.modelcontextprotocol/clientCapabilities": mostly(st.just({})),
        "io.modelcontextprotocol/clientInfo": JSON,
        "io.modelcontextprotocol/logLevel": mostly(st.sampled_from(["debug", "error"])),
        "progressToken": JSON,
        "traceparent": mostly(st.just("00-" + "a" * 32 + "-" + "b" * 16 + "-01")),
        "tracestate": JSON,
        "baggage": JSON,
    },
)


@st.composite
def messages(draw: st.DrawFn, *, modern: bool = True) -> Any:
    """A JSON-RPC message of one era, with the members that its method knows, and now and then an oddity."""
    method = draw(mostly(METHODS if modern else METHODS | st.sampled_from(["tools/call", "logging/setLevel"])))
    known = draw(CALLED) if method == "tools/call" else draw(KNOWN_PARAMS)
    if modern:
        known["_meta"] = draw(mostly(META.map(lambda odd: {**envelope(), **odd}), META | JSON))
    else:
        known.update(draw(mostly(st.just({}), st.fixed_dictionaries({"_meta": PLAIN_META | JSON}))))
    message: dict[str, Any] = {
        "jsonrpc": draw(mostly(st.just("2.0"))),
        "id": draw(mostly(st.integers(0, 99) | st.text(max_size=8))),
        "method": method,
        "params": draw(mostly(st.just(known))),
    }
    dropped = draw(mostly(st.just(""), st.sampled_from(sorted(message))))
    message.pop(dropped, None)
    return {**message, **draw(mostly(st.just({}), st.dictionaries(st.sampled_from(["result", "error", "x"]), JSON)))}


BODIES = mostly(messages(), JSON | st.lists(messages(), max_size=4))
LEGACY_BODIES = mostly(messages(modern=False), BODIES)

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
HEADERS = st.lists(st.tuples(HEADER_NAMES, HEADER_VALUES), max_size=2)
ENDPOINTS = ["/mcp", "/mcp/", "/servers/pipe/mcp", "/servers/none/mcp", "/mcp/none", "/mcp?x=%ff", "/%6dcp", "//mcp"]
ELSEWHERE = ["/healthz", "/readyz", "*", "http://a/mcp", "/mcp/../mcp", "/\xff"]
PATHS = mostly(st.sampled_from(ENDPOINTS), st.sampled_from(ELSEWHERE))
VERBS = mostly(st.just("POST"), st.sampled_from(["GET", "DELETE", "OPTIONS", "PUT", "X"]))


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
    data: bytes = draw(st.sampled_from(GOOD) | REQUESTS)
    for change in draw(st.lists(breaks(), min_size=1, max_size=2)):
        data = change(data)
    return data


@st.composite
def broken_bodies(draw: st.DrawFn) -> bytes:
    """A good request around a body with a few bytes changed, with the right length."""
    message = draw(st.sampled_from([echo("broken"), modern("tools/list"), initialize()]))
    body = dump(message)
    for change in draw(st.lists(breaks(), min_size=1, max_size=2)):
        body = change(body)
    return post(PORT, body, routing(message) if message["method"] != "initialize" else [])


ENDINGS = [b"", b"\n", b"\r\n\r\n", b"0\r\n", b"0\r\nHost: z\r\n\r\n", b"00\r\n\r\n"]


@st.composite
def chunked(draw: st.DrawFn) -> bytes:
    """A chunked request: sizes that fit, or do not, with extensions and trailers of any kind."""
    body = dump(echo("chunked"))
    headers = [("Transfer-Encoding", "chunked"), *routing(echo("chunked"))]
    begin = post(PORT, b"", headers, without=["Content-Length"])
    pieces: list[bytes] = []
    while body:
        size = draw(st.integers(min(40, len(body)), len(body)))
        piece, body = body[:size], body[size:]
        fitting = st.sampled_from([f"{size:x}", f"{size:X};a=b", f"0{size:x}"])
        line = draw(mostly(fitting, st.sampled_from([f"{size + 1:x}", "0", "", "g", "f" * 18])))
        pieces.append(line.encode() + b"\r\n" + piece + draw(mostly(st.just(b"\r\n"), st.sampled_from(ENDINGS))))
    end: bytes = draw(mostly(st.sampled_from([b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n"]), st.sampled_from(ENDINGS)))
    return begin + b"".join(pieces) + end

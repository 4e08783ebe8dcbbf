from __future__ import annotations

import pytest

from callgate.egress import HttpPool, encode_headers, parse_url
from callgate.errors import ConfigError, UpstreamError
from tests.servers.raw_http import Peer, RawServer, Request

pytestmark = pytest.mark.anyio


async def serve(request: Request, peer: Peer) -> None:
    where = {
        "/to-keys": "/keys",
        "/to-elsewhere": "https://127.0.0.1:1/keys",
        "/to-file": "file:///etc/passwd",
        "/round": "/round",
    }.get(request.target)
    if where is not None:
        peer.body(b"", 302, more=f"location: {where}\r\n")
    elif request.target == "/keys":
        peer.body(b'{"keys":[]}')
    elif request.target == "/large":
        peer.body(b"x" * 2000)
    else:
        peer.body(b"no", 404)


async def test_fetch_gets_a_small_document() -> None:
    async with RawServer(serve) as server:
        pool = HttpPool()
        base = server.url.removesuffix("/mcp")
        assert await pool.fetch(f"{base}/keys", headers={"X-A": "b"}) == b'{"keys":[]}'
        assert server.requests[0].headers["x-a"] == "b"
        assert await pool.fetch(f"{base}/to-keys") == b'{"keys":[]}'
        await pool.aclose()


@pytest.mark.parametrize(
    ("path", "reason"),
    [("/none", "answered 404"), ("/large", "larger than 1000"), ("/round", "too often"), ("/to-elsewhere", "scheme")],
)
async def test_fetch_refuses(path: str, reason: str) -> None:
    async with RawServer(serve) as server:
        pool = HttpPool()
        with pytest.raises(UpstreamError, match=reason):
            await pool.fetch(server.url.removesuffix("/mcp") + path, limit=1000)
        await pool.aclose()


async def test_fetch_does_not_follow_to_files() -> None:
    async with RawServer(serve) as server:
        pool = HttpPool()
        with pytest.raises(ConfigError, match="not an http"):
            await pool.fetch(server.url.removesuffix("/mcp") + "/to-file")
        await pool.aclose()


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/",
        "example.org",
        "http://",
        "http://user:password@example.org/",
        "http://example.org:99999/",
        "http://example.org/a b",
        "http://example.org/a\r\nx-injected: 1",
        "http://example.org/é",
    ],
)
async def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        parse_url(url)


async def test_urls_that_are_understood() -> None:
    assert parse_url("https://EXAMPLE.org").authority == "example.org"
    assert parse_url("http://[::1]:8080/mcp?a=b").authority == "[::1]:8080"
    assert parse_url("http://[::1]:8080/mcp?a=b").target == "/mcp?a=b"
    assert parse_url("https://bücher.example/x").host == "xn--bcher-kva.example"


@pytest.mark.parametrize("headers", [{"x-a": "b\r\nx-injected: 1"}, {"x a": "b"}, {"x\n": "b"}, {"x-a": "snow ☃"}])
async def test_headers_that_would_break_out_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="cannot be sent"):
        encode_headers(headers)

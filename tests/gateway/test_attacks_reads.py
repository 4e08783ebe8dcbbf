"""Attacks through prompts and resources: what is judged is what is read, whatever else a client writes beside it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.messages import dump, modern, post, routing
from tests.gateway.stand import Stand, allow, deny, refused
from tests.gateway.upstreams import Modern, http, serve
from tests.servers.mcp_http import result_of
from tests.servers.raw_http import Peer, Request

pytestmark = pytest.mark.anyio

DOOR = "/servers/u/mcp"
LISTED = "file:///pub/../odd name"
PUBLIC = "file:///pub/a.txt"


class Library(Modern):
    """Offers a prompt, two resources and a template; remembers every read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[tuple[str | None, dict[str, Any]]] = []

    async def __call__(self, request: Request, peer: Peer) -> None:
        message = request.message
        lists: dict[str, Any] = {
            "prompts/list": {"prompts": [{"name": "review"}]},
            "resources/list": {"resources": [{"uri": PUBLIC, "name": "a"}, {"uri": LISTED, "name": "odd"}]},
            "resources/templates/list": {"resourceTemplates": [{"uriTemplate": "file:///{path}", "name": "any"}]},
            "server/discover": {
                "supportedVersions": ["2026-07-28"],
                "capabilities": {"tools": {}, "prompts": {}, "resources": {}},
            },
        }
        method = message["method"]
        if method in lists:
            peer.json(result_of(message["id"], {**lists[method], "resultType": "complete"}))
        elif method in ("resources/read", "prompts/get"):
            params = {key: value for key, value in message["params"].items() if key != "_meta"}
            self.read.append((request.headers.get("mcp-name"), params))
            peer.json(result_of(message["id"], {"contents": [], "messages": [], "resultType": "complete"}))
        else:
            await super().__call__(request, peer)


async def read(stand: Stand, uri: str, **more: Any) -> Any:
    return await stand.ask(reading(stand, uri, uri, **more))


def reading(stand: Stand, uri: str, named: str, **more: Any) -> bytes:
    """A read of ``uri`` whose header names ``named``."""
    message = modern("resources/read", {"uri": uri, **more})
    encoded = f"=?base64?{base64.b64encode(named.encode()).decode()}?="
    headers = [each for each in routing(message) if each[0] != "Mcp-Name"]
    return post(stand.port, dump(message), [*headers, ("Mcp-Name", encoded)], path=DOOR)


@pytest.mark.rule("HTTP-12")
async def test_what_stands_beside_the_name_is_not_sent(tmp_path: Path) -> None:
    """A second name beside the one that was judged would even have become the header that a server routes by."""
    library = Library()
    async with serve(library) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        assert (await read(stand, PUBLIC, name="file:///secret", arguments={"a": "b"})).status == 200
        assert (await read(stand, PUBLIC)).status == 200
        message = modern("prompts/get", {"name": "review", "arguments": {"a": "b"}, "uri": "file:///secret"})
        assert (await stand.ask(stand.request(message, path=DOOR))).status == 200
    assert library.read == [
        (PUBLIC, {"uri": PUBLIC}),
        (PUBLIC, {"uri": PUBLIC}),
        ("review", {"name": "review", "arguments": {"a": "b"}}),
    ]


DISGUISED = [
    "file:///pub/../secret/key",
    "file:///pub/%2e%2e/secret/key",
    "file:///pub/.%2E/secret/key",
    "file:///pub/..%2Fsecret/key",
    "file:///pub/..%5csecret/key",
    "file:///pub/..\\secret\\key",
    "file:///pub/./a.txt",
    "file:///pub/..",
    "file:///pub/%252e%252e/secret/key",
    "file:///%73ecret/key",
    "FILE:///secret/key",
    "file:///secret\t/key",
    "file:///sec\nret/key",
    "file:///secret/key ",
    "file:///secr\u0435t/key",
    "file:///secret%2",
    "file:///pub/%zz",
    "file://LOCALHOST/secret/key",
    "file:////secret/key",
    "file:///pub/%c3%bc/%2f..%2f/x",
    "no-scheme",
    "",
]


@pytest.mark.parametrize("uri", DISGUISED)
async def test_a_uri_that_a_server_may_read_in_another_way_is_not_judged_by_its_looks(tmp_path: Path, uri: str) -> None:
    policy = {"rules": [allow("u/*"), deny("u/resource:file:///secret/*"), deny("u/resource:file:///secr?t*", id="x")]}
    library = Library()
    async with serve(library) as server, Stand(tmp_path, {"u": http(server)}, policy=policy) as stand:
        refused(await read(stand, uri), 400, -32602)
        session = await stand.legacy(path=DOOR)
        assert (await session.ask("resources/read", {"uri": uri})).error == -32602
        assert library.read == []
        [one, other] = await stand.records(2)
        assert one["outcome"] == other["outcome"] == "refused"


@pytest.mark.parametrize(
    "uri",
    [
        PUBLIC, LISTED, "file:///pub/%C3%BC.txt", "file:///pub/a%20b?x=..&y=%2F#..", "db://Host/T/1", "note:a.b..c",
        "test://template/123/data", "file:///pub/...", "https://u@h:1/a;b=c/@x/~y/!$&'()*+,=[1]",
    ],
)  # fmt: skip
async def test_a_plain_uri_and_a_listed_one_are_read(tmp_path: Path, uri: str) -> None:
    library = Library()
    async with serve(library) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        assert (await read(stand, uri)).status == 200


async def test_long_uris_and_many_different_ones_do_not_fill_the_memory(tmp_path: Path) -> None:
    policy = {"rules": [allow("u/resource:*")]}
    library = Library()
    async with serve(library) as server, Stand(tmp_path, {"u": http(server)}, policy=policy) as stand:
        refused(await read(stand, "file:///" + "a" * 3000), 400, -32602)
        before = len(stand.house.policy._first._masks._tools)
        for number in range(5):
            assert (await read(stand, f"file:///pub/{number}")).status == 200
        assert len(stand.house.policy._first._masks._tools) <= before + 1
        # The refused one is not kept whole in the record either.
        assert all(len(each["tool"]) < 2100 for each in await stand.records(6))


async def test_the_header_of_a_read_is_that_of_the_body_also_over_many_reads(tmp_path: Path) -> None:
    library = Library()
    async with serve(library) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        refused(await stand.ask(reading(stand, "a:b", "a:c")), 400, -32020)
        for uri in ("a:b", "a:c", "a:b"):
            assert (await read(stand, uri)).status == 200
    assert [(name, params["uri"]) for name, params in library.read] == [("a:b", "a:b"), ("a:c", "a:c"), ("a:b", "a:b")]

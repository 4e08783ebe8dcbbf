"""Lists: paged, filtered, cached, and never waiting for a server."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.library import ModernLibrary
from tests.gateway.stand import Stand, allow, deny, keys, refused
from tests.gateway.upstreams import Modern, http, serve, tool

pytestmark = pytest.mark.anyio


def numbered(count: int, **more: Any) -> Modern:
    server = Modern()
    server.tools = [tool(f"t{n:03}", **more) for n in range(count)]
    return server


async def pages(stand: Stand, **more: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while not found or cursor is not None:
        reply = await stand.modern("tools/list", {} if cursor is None else {"cursor": cursor}, **more)
        assert reply.status == 200, reply
        found.append(reply.json["result"])
        cursor = found[-1].get("nextCursor")
    return found


def names(found: list[dict[str, Any]]) -> list[str]:
    return [each["name"] for page in found for each in page["tools"]]


@pytest.mark.key("list_page_size")
@pytest.mark.rule("CACHE-5", "CACHE-11")
@pytest.mark.parametrize(("size", "count"), [(1, 7), (3, 3), (6, 2), (7, 1), (1000, 1)])
async def test_a_list_comes_in_pages_of_the_configured_size(tmp_path: Path, size: int, count: int) -> None:
    async with serve(numbered(4)) as one, serve(numbered(3)) as two:
        servers = {"b": http(one), "a": http(two)}
        async with Stand(tmp_path, servers, list_page_size=size) as stand:
            found = await pages(stand)
            assert len(found) == count
            # In the order of the configuration, then by name; the same every time.
            assert names(found) == [f"b__t00{n}" for n in range(4)] + [f"a__t00{n}" for n in range(3)]
            assert {(page["cacheScope"], page["ttlMs"]) for page in found} == {("private", 0)}
            session = await stand.legacy()
            listed = (await session.ask("tools/list")).json["result"]
            assert [each["name"] for each in listed["tools"]] == names(found[:1])
            assert ("nextCursor" in listed) == (count > 1)


@pytest.mark.rule("CACHE-11")
async def test_a_cursor_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    async with serve(numbered(3)) as server, Stand(tmp_path, {"u": http(server)}, list_page_size=1) as stand:
        good = (await pages(stand))[0]["nextCursor"]
        raw = bytearray(base64.urlsafe_b64decode(good))
        raw[-1] ^= 1
        forged = base64.urlsafe_b64encode(raw).decode()
        cursors: list[Any] = ["", "0", "page-2", forged, good[:-4], good + "AAAA", 5, [], {}, True, "\U0001f600"]
        for cursor in cursors:
            refused(await stand.modern("tools/list", {"cursor": cursor}), 400, -32602)
        assert (await stand.modern("tools/list", {"cursor": good})).status == 200
        assert (await stand.modern("tools/list", {"cursor": None})).status == 200


@pytest.mark.rule("CACHE-2", "RS-13")
async def test_a_cursor_belongs_to_its_caller_and_its_door(tmp_path: Path) -> None:
    identity = {"keys": keys("ann", "bob")}
    async with (
        serve(numbered(3)) as server,
        Stand(tmp_path, {"u": http(server)}, identity=identity, list_page_size=1) as stand,
    ):
        cursor = (await pages(stand, who="ann"))[0]["nextCursor"]
        refused(await stand.modern("tools/list", {"cursor": cursor}, who="bob"), 400, -32602)
        refused(await stand.modern("tools/list", {"cursor": cursor}, who="ann", path="/servers/u/mcp"), 400, -32602)
        assert (await stand.modern("tools/list", {"cursor": cursor}, who="ann")).status == 200


@pytest.mark.rule("CACHE-11")
async def test_a_cursor_survives_changes_of_the_list_and_a_restart(tmp_path: Path) -> None:
    async with serve(numbered(6)) as server:
        folder, servers = tmp_path, {"u": http(server)}
        async with Stand(folder, servers, list_page_size=2) as stand:
            cursor = (await pages(stand))[0]["nextCursor"]  # behind t001
            await stand.reload(policy={"rules": [allow("u/*"), deny("u/t001", "u/t002")]})
            page = (await stand.modern("tools/list", {"cursor": cursor})).json["result"]
            assert names([page]) == ["u__t003", "u__t004"]
        async with Stand(folder, servers, list_page_size=2) as again:
            page = (await again.modern("tools/list", {"cursor": cursor})).json["result"]
            assert names([page]) == ["u__t002", "u__t003"]


@pytest.mark.rule("CACHE-11")
async def test_an_upstream_whose_cursor_is_empty_has_a_next_page(tmp_path: Path) -> None:
    class Paged(Modern):
        async def __call__(self, request: Any, peer: Any) -> None:
            if request.message["method"] != "tools/list":
                return await super().__call__(request, peer)
            first = "cursor" not in request.message["params"]
            result = {"tools": [tool("one" if first else "two")], "resultType": "complete"}
            peer.json(
                {
                    "jsonrpc": "2.0",
                    "id": request.message["id"],
                    "result": result | ({"nextCursor": ""} if first else {}),
                }
            )

    async with serve(Paged()) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        assert await stand.tools() == ["u__one", "u__two"]


@pytest.mark.rule("RS-10", "CACHE-2", "CACHE-10")
async def test_a_list_varies_with_the_caller_and_never_with_the_connection(tmp_path: Path) -> None:
    identity = {"keys": [*keys("ann", "amy", roles=["a"]), *keys("bob")], "anonymous": True}
    policy = {"rules": [allow("u/t000", id="all"), allow("u/t001", id="role", to={"roles": ["a"]})]}
    async with (
        serve(numbered(3)) as server,
        Stand(tmp_path, {"u": http(server)}, identity=identity, policy=policy) as stand,
    ):
        expected = {
            "ann": ["u__t000", "u__t001"],
            "bob": ["u__t000"],
            "amy": ["u__t000", "u__t001"],
            None: ["u__t000"],
        }
        for _ in range(2):  # made, then from the cache
            for who, seen in expected.items():
                assert await stand.tools(who=who) == seen
        async with await stand.connect() as wire:
            from tests.fuzz.messages import modern

            for who, seen in [*expected.items(), *expected.items()]:
                wire.send(stand.request(modern("tools/list"), who=who))
                listed = (await wire.reply()).json["result"]
                assert [each["name"] for each in listed["tools"]] == seen
                assert listed["cacheScope"] == "private"


@pytest.mark.rule("POL-5")
async def test_what_a_list_hides_is_denied_and_what_it_shows_is_not_surely_denied(tmp_path: Path) -> None:
    identity = {"keys": [*keys("ann", roles=["a"]), *keys("bob")], "anonymous": True}
    policy = {"rules": [
        allow("u/t000", "u/t001", id="base"), deny("u/t001", id="not-ann", to={"subjects": ["ann"]}),
        allow("u/t002", id="args", when="args.n > 5"), allow("u/t003", id="role", to={"roles": ["a"]}),
        deny("u/t004", id="never"), allow("u/t004", id="always"), allow("u/t005", id="ro", when="tool.readOnly"),
    ]}  # fmt: skip
    async with (
        serve(numbered(7)) as server,
        Stand(tmp_path, {"u": http(server)}, identity=identity, policy=policy) as stand,
    ):
        for who in ("ann", "bob", None):
            shown = set(await stand.tools(who=who))
            for n in range(7):
                name = f"u__t00{n}"
                allowed = any([(await stand.call(name, {"n": k}, who=who)).error is None for k in (1, 9)])
                assert allowed == (name in shown), (who, name)


async def test_another_era_gets_a_list_of_its_own(tmp_path: Path) -> None:
    async with serve(numbered(1)) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        session = await stand.legacy()
        for _ in range(2):
            assert "ttlMs" in (await stand.modern("tools/list")).json["result"]
            assert "ttlMs" not in (await session.ask("tools/list")).json["result"]


@pytest.mark.rule("SCH-6")
async def test_a_definition_passes_through_untouched_but_for_its_name(tmp_path: Path) -> None:
    schema = {
        "$defs": {"a": {"$anchor": "x", "type": ["string", "null"]}},
        "$ref": "#/$defs/a",
        "x-unknown": [1.50, {}],
    }
    definition = tool("t", inputSchema=schema, outputSchema=False, annotations={"x": 1}, icons=[], _meta={"a/b": None})
    server_ = Modern()
    server_.tools = [definition]
    async with serve(server_) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        [listed] = (await stand.modern("tools/list")).json["result"]["tools"]
        assert listed == {**definition, "name": "u__t"}
        [own] = (await stand.modern("tools/list", path="/servers/u/mcp")).json["result"]["tools"]
        assert own == definition


@pytest.mark.rule("HDR-5")
async def test_a_tool_that_must_not_be_listed_takes_no_other_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = tool("bad", inputSchema={"properties": {"a": {"type": "number", "x-mcp-header": "A"}}})
    server_ = Modern()
    server_.tools = [bad, tool("good"), tool("good"), tool("prompt:x")]
    async with serve(server_) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        assert await stand.tools() == ["u__good"]
        assert "'bad'" in caplog.text


@pytest.mark.key("virtual_servers", "virtual_servers.tools", "virtual_servers.description")
async def test_a_virtual_server_is_a_selection(tmp_path: Path) -> None:
    doors = {"v": {"tools": ["a/t00[01]", "b/*2"], "description": "some"}}
    async with (
        serve(numbered(3)) as one,
        serve(numbered(3)) as two,
        Stand(tmp_path, {"a": http(one), "b": http(two)}, virtual_servers=doors) as stand,
    ):
        assert await stand.tools(path="/mcp/v") == ["a__t000", "a__t001", "b__t002"]
        opened = (await stand.legacy(path="/mcp/v")).opened
        assert opened["instructions"].startswith("some\n\n")
        await stand.reload(virtual_servers={"v": {"tools": ["a/*"], "description": "else"}})
        assert len(await stand.tools(path="/mcp/v")) == 3


@pytest.mark.rule("CACHE-11")
@pytest.mark.parametrize(
    ("method", "member", "key"),
    [
        ("prompts/list", "prompts", "name"), ("resources/list", "resources", "uri"),
        ("resources/templates/list", "resourceTemplates", "uriTemplate"),
    ],
)  # fmt: skip
async def test_prompts_and_resources_come_in_pages_too(tmp_path: Path, method: str, member: str, key: str) -> None:
    one, two = ModernLibrary(), ModernLibrary()
    for count, shelf in ((4, one), (3, two)):
        shelf.prompts = [{"name": f"n{n}"} for n in reversed(range(count))]
        shelf.resources = [{"uri": f"a:{n}", "name": "x"} for n in reversed(range(count))]
        shelf.templates = [{"uriTemplate": f"a:{n}/{{x}}", "name": "x"} for n in reversed(range(count))]
    identity = {"keys": keys("ann", "bob")}
    async with serve(one) as a, serve(two) as b:
        servers = {"b": http(b), "a": http(a)}
        async with Stand(tmp_path, servers, identity=identity, list_page_size=2) as stand:
            found: list[str] = []
            cursor: dict[str, Any] = {}
            while True:
                page = (await stand.modern(method, cursor, who="ann")).json["result"]
                found += [each[key] for each in page[member]]
                if "nextCursor" not in page:
                    break
                cursor = {"cursor": page["nextCursor"]}
                # Somebody else's, another door's, another list's.
                refused(await stand.modern(method, cursor, who="bob"), 400, -32602)
                refused(await stand.modern(method, cursor, who="ann", path="/servers/a/mcp"), 400, -32602)
                refused(await stand.modern("tools/list", cursor, who="ann"), 400, -32602)
            assert len(found) == len(set(found)) == 7
            assert [name[0] for name in found] == ["b"] * 3 + ["a"] * 4
            refused(await stand.modern(method, {"cursor": ""}, who="ann"), 400, -32602)


@pytest.mark.rule("CACHE-11")
async def test_a_thousand_tools_page_through(tmp_path: Path) -> None:
    server_ = Modern()
    server_.tools = [tool(f"t{n:04}") for n in range(1234)]
    async with serve(server_) as server, Stand(tmp_path, {"u": http(server)}, list_page_size=100) as stand:
        found = await pages(stand)
        assert len(found) == 13
        assert names(found) == [f"u__t{n:04}" for n in range(1234)]

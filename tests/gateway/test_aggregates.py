"""Prompts, resources and templates of several servers behind one door."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest

from callgate.errors import ConfigError
from tests.fuzz.messages import dump, modern, post, routing
from tests.gateway.library import LegacyLibrary, ModernLibrary, library
from tests.gateway.stand import Stand, allow, bearer, deny, keys, refused, until
from tests.gateway.upstreams import http, serve, tool
from tests.servers.mcp_http import note

pytestmark = pytest.mark.anyio

LISTS = {"prompts/list": ("prompts", "name"), "resources/list": ("resources", "uri"),
         "resources/templates/list": ("resourceTemplates", "uriTemplate")}  # fmt: skip


async def listed(stand: Stand, method: str, **more: Any) -> list[str]:
    member, key = LISTS[method]
    return [each[key] for each in (await stand.modern(method, **more)).json["result"][member]]


async def read(stand: Stand, uri: str, who: str | None = None, path: str = "/mcp") -> Any:
    message = modern("resources/read", {"uri": uri})
    encoded = f"=?base64?{base64.b64encode(uri.encode()).decode()}?="
    headers = [*routing(message), ("Mcp-Name", encoded), *bearer(who)]
    return await stand.ask(post(stand.port, dump(message), headers, path=path))


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_two_servers_with_the_same_names_stand_beside_each_other(tmp_path: Path, era: str) -> None:
    one, two = library(era), library(era)
    async with serve(one) as a, serve(two) as b, Stand(tmp_path, {"docs": http(a, era), "Wiki": http(b, era)}) as stand:
        assert await listed(stand, "prompts/list") == ["docs__review", "Wiki__review"]
        uris = ["docs+file:///pub/a.txt", "x.k5uww2i+file:///pub/a.txt"]
        assert await listed(stand, "resources/list") == uris
        assert await listed(stand, "resources/templates/list") == [
            "docs+file:///{path}",
            "x.k5uww2i+file:///{path}",
        ]
        session = await stand.legacy()
        said = (await session.ask("resources/list")).json["result"]["resources"]
        assert [each["uri"] for each in said] == uris

        assert (await read(stand, uris[1])).status == 200
        assert (await read(stand, "docs+file:///not/listed")).status == 200
        assert "result" in (await session.ask("resources/read", {"uri": uris[0]})).json
        assert "result" in (await session.ask("prompts/get", {"name": "Wiki__review"})).json
        assert [f"{each['server']}/{each['tool']}" for each in await stand.records(4)] == [
            "Wiki/resource:file:///pub/a.txt", "docs/resource:file:///not/listed",
            "docs/resource:file:///pub/a.txt", "Wiki/prompt:review",
        ]  # fmt: skip
    assert one.asked == [
        ("resources/read", {"uri": "file:///not/listed"}), ("resources/read", {"uri": "file:///pub/a.txt"}),
    ]  # fmt: skip
    assert two.asked == [("resources/read", {"uri": "file:///pub/a.txt"}), ("prompts/get", {"name": "review"})]


@pytest.mark.rule("HDR-9")
async def test_the_server_is_told_its_own_names_in_header_and_body(tmp_path: Path) -> None:
    shelf = ModernLibrary()
    async with serve(shelf) as server, Stand(tmp_path, {"docs": http(server)}) as stand:
        await read(stand, "docs+file:///a")
        await stand.modern("prompts/get", {"name": "docs__review", "arguments": {"a": "b"}})
        # A header that says the native name while the body says the exposed one.
        message = modern("prompts/get", {"name": "docs__review"})
        headers = [(name, "review" if name == "Mcp-Name" else value) for name, value in routing(message)]
        refused(await stand.ask(post(stand.port, dump(message), headers)), 400, -32020)
    assert shelf.named == ["file:///a", "review"]
    assert shelf.asked == [
        ("resources/read", {"uri": "file:///a"}), ("prompts/get", {"name": "review", "arguments": {"a": "b"}}),
    ]  # fmt: skip


async def test_a_server_that_still_starts_is_waited_for(tmp_path: Path) -> None:
    shelf = ModernLibrary()
    shelf.open.clear()
    async with serve(shelf) as server:
        stand = Stand(tmp_path, {"docs": http(server)})
        await stand.start(warm=0)
        try:
            asked = [
                asyncio.create_task(each)
                for each in (
                    read(stand, "docs+file:///pub/a.txt"),
                    stand.modern("prompts/get", {"name": "docs__review"}),
                    stand.modern("prompts/get", {"name": "review"}, path="/servers/docs/mcp"),
                )
            ]
            await until(lambda: len(stand.house.places) == 3)
            shelf.open.set()
            assert [(await each).status for each in asked] == [200, 200, 200]
        finally:
            await stand.gateway.aclose()


async def test_a_server_that_cannot_start_is_told_of_to_those_who_may_see_it(tmp_path: Path) -> None:
    identity = {"keys": [*keys("ann", roles=["a"]), *keys("bob")]}
    gone = {"url": "http://127.0.0.1:1/mcp", "protocol": "modern"}
    doors = {"v": {"tools": ["gone/*"], "resources": ["gone/file:///pub/*"]}}
    policy = {"rules": [allow("gone/*", to={"roles": ["a"]})]}
    settings: dict[str, Any] = {"identity": identity, "policy": policy, "virtual_servers": doors}
    async with Stand(tmp_path, {"gone": gone}, **settings) as stand:
        for path in ("/mcp", "/mcp/v"):
            told = refused(await read(stand, "gone+file:///pub/a", who="ann", path=path), 200, -31503)
            assert "Server `gone` is not available" in told.json["error"]["message"]
            refused(await read(stand, "gone+file:///pub/a", who="bob", path=path), 400, -32602)
        refused(await read(stand, "gone+file:///other", who="ann", path="/mcp/v"), 400, -32602)
        refused(await stand.modern("prompts/get", {"name": "gone__p"}, who="ann"), 200, -31503)
        refused(await stand.modern("prompts/get", {"name": "gone__p"}, who="ann", path="/mcp/v"), 400, -32602)


@pytest.mark.rule("SCH-6")
async def test_a_definition_passes_through_but_for_its_name(tmp_path: Path) -> None:
    shelf = ModernLibrary()
    shelf.prompts = [
        {"name": "p", "title": "P", "icons": [{"src": "a:b"}], "arguments": [{"name": "x"}], "x-new": 1.50}
    ]
    shelf.resources = [
        {"uri": "a:b", "name": "a:b", "annotations": {"x": None}, "_meta": {"ui": {"csp": {}}}, "size": 1}
    ]
    shelf.templates = [{"uriTemplate": "a:{b}", "name": "n", "x-new": []}]
    shelf.tools = [
        tool(
            "t",
            _meta={
                "ui": {"resourceUri": "ui://t/face", "visibility": ["model", "app"]},
                "ui/resourceUri": "ui://t/face",
                "k": 1,
            },
        )
    ]
    async with serve(shelf) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        for method, key, name in [
            ("prompts/list", "name", "u__p"), ("resources/list", "uri", "u+a:b"),
            ("resources/templates/list", "uriTemplate", "u+a:{b}"),
        ]:  # fmt: skip
            member = LISTS[method][0]
            [own] = (await stand.modern(method, path="/servers/u/mcp")).json["result"][member]
            [shown] = (await stand.modern(method)).json["result"][member]
            assert shown == {**own, key: name}
            assert [own] == {"prompts": shelf.prompts, "resources": shelf.resources}.get(member, shelf.templates)
        [shown] = (await stand.modern("tools/list")).json["result"]["tools"]
        face = "ui://u/t/face"
        assert shown["_meta"] == {
            "ui": {"resourceUri": face, "visibility": ["model", "app"]},
            "ui/resourceUri": face,
            "k": 1,
        }
        [own] = (await stand.modern("tools/list", path="/servers/u/mcp")).json["result"]["tools"]
        assert own == shelf.tools[0]


@pytest.mark.rule("APP-2")
@pytest.mark.parametrize("visibility", [["app"], [], ["x"]])
async def test_a_tool_for_apps_only_is_not_there_for_apps_of_other_servers(tmp_path: Path, visibility: Any) -> None:
    shelf = ModernLibrary()
    shelf.tools = [tool("hidden", _meta={"ui": {"visibility": visibility}}), tool("both", _meta={"ui": {}})]
    async with serve(shelf) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        assert await stand.tools() == ["u__both"]
        refused(await stand.call("u__hidden"), 400, -32602)
        assert await stand.tools(path="/servers/u/mcp") == ["both", "hidden"]
        assert (await stand.call("hidden", path="/servers/u/mcp")).status == 200


async def test_a_prompt_cannot_imitate_the_hashed_name_of_another(tmp_path: Path) -> None:
    from callgate.catalog.names import hashed_name

    victim, imitator = ModernLibrary(), ModernLibrary()
    name = hashed_name("a.b", "pay")
    server, _, prompt = name.partition("__")
    victim.prompts, imitator.prompts = [{"name": "pay"}], [{"name": prompt}]
    async with serve(victim) as a, serve(imitator) as b, Stand(tmp_path, {"a.b": http(a), server: http(b)}) as stand:
        names = await listed(stand, "prompts/list")
        assert names[0] == name
        assert len(set(names)) == 2
        for each in names:
            assert (await stand.modern("prompts/get", {"name": each})).status == 200
    assert victim.asked == [("prompts/get", {"name": "pay"})]
    assert imitator.asked == [("prompts/get", {"name": prompt})]


@pytest.mark.key("virtual_servers.prompts", "virtual_servers.resources")
async def test_a_virtual_server_shows_the_prompts_and_resources_that_it_names(tmp_path: Path) -> None:
    one, two = ModernLibrary(), ModernLibrary()
    doors = {
        "v": {"tools": ["docs/*"], "prompts": ["wiki/rev*"], "resources": ["docs/file:///pub/*"]},
        "bare": {"tools": ["docs/*", "wiki/*"]},
    }
    async with (
        serve(one) as a,
        serve(two) as b,
        Stand(tmp_path, {"docs": http(a), "wiki": http(b)}, virtual_servers=doors) as stand,
    ):
        assert await listed(stand, "prompts/list", path="/mcp/v") == ["wiki__review"]
        assert await listed(stand, "resources/list", path="/mcp/v") == ["docs+file:///pub/a.txt"]
        assert await listed(stand, "resources/templates/list", path="/mcp/v") == []
        assert (await read(stand, "docs+file:///pub/b.txt", path="/mcp/v")).status == 200
        # What stands outside the selection is as unknown as what does not exist.
        for uri in (
            "docs+file:///secret",
            "wiki+file:///pub/a.txt",
            "docs+file:///pub/../secret",
            "nobody+file:///pub/a.txt",
        ):
            refused(await read(stand, uri, path="/mcp/v"), 400, -32602)
        refused(await stand.modern("prompts/get", {"name": "docs__review"}, path="/mcp/v"), 400, -32602)
        # Without a selection there are no prompts and no resources, and no such methods.
        for method in LISTS:
            refused(await stand.modern(method, path="/mcp/bare"), 404, -32601)
        capabilities = (await stand.modern("server/discover", path="/mcp/bare")).json["result"]["capabilities"]
        assert not {"prompts", "resources"} & capabilities.keys()
    assert one.asked == [("resources/read", {"uri": "file:///pub/b.txt"})]
    assert two.asked == []


@pytest.mark.parametrize(
    ("key", "glob", "said"),
    [
        ("prompts", "review", "`review` is not of the form `server/prompt`"),
        ("resources", "docs", "`docs` is not of the form `server/uri`"),
        ("resources", "dox/file:///*", "no server matches `dox/file:///*`"),
    ],
)
def test_a_selection_that_can_choose_nothing_is_a_mistake(tmp_path: Path, key: str, glob: str, said: str) -> None:
    doors = {"v": {"tools": ["docs/*"], key: [glob]}}
    stand = Stand(tmp_path, {"docs": {"url": "http://127.0.0.1:1/mcp"}}, virtual_servers=doors)
    with pytest.raises(ConfigError) as caught:
        stand.read()
    assert said in " ".join(each.message for each in (caught.value, *caught.value.problems))


@pytest.mark.rule("POL-5")
async def test_policy_filters_prompts_and_resources_by_their_native_names(tmp_path: Path) -> None:
    one, two = ModernLibrary(), ModernLibrary()
    rules = [
        allow("docs/*"), deny("docs/resource:file:///{path}", id="no-template"),
        deny("docs/resource:file:///secret/*", id="secret"), allow("wiki/prompt:*", id="prompts"),
    ]  # fmt: skip
    async with (
        serve(one) as a,
        serve(two) as b,
        Stand(tmp_path, {"docs": http(a), "wiki": http(b)}, policy={"rules": rules}) as stand,
    ):
        assert await listed(stand, "prompts/list") == ["docs__review", "wiki__review"]
        assert await listed(stand, "resources/list") == ["docs+file:///pub/a.txt"]
        assert await listed(stand, "resources/templates/list") == []
        refused(await read(stand, "docs+file:///secret/key"), 200, -31403)
        refused(await read(stand, "wiki+file:///pub/a.txt"), 200, -31403)
        assert [each["outcome"] for each in await stand.records(2)] == ["denied", "denied"]
    assert one.asked == two.asked == []


async def test_a_resource_in_its_servers_own_words_is_told_its_name_here(tmp_path: Path) -> None:
    """Only to callers that may see it: a hint must not tell what stands behind a policy."""
    identity = {"keys": [*keys("ann", roles=["a"]), *keys("bob")]}
    rules = [allow("docs/*", to={"roles": ["a"]})]
    async with (
        serve(ModernLibrary()) as server,
        Stand(tmp_path, {"docs": http(server)}, identity=identity, policy={"rules": rules}) as stand,
    ):

        async def told(uri: str, who: str, path: str = "/mcp") -> str:
            return str(refused(await read(stand, uri, who, path), 400, -32602).json["error"]["message"])

        here = "docs+file:///pub/a.txt"
        own = "Unknown resource: file:///pub/a.txt."
        assert await told("file:///pub/a.txt", "ann") == f"{own} At this endpoint it is called {here}."
        assert (await told("dosc+file:///pub/a.txt", "ann")).endswith(f" Did you mean {here}?")
        assert await told("file:///pub/a.txt", "bob") == own
        assert await told("dosc+file:///pub/a.txt", "bob") == "Unknown resource: dosc+file:///pub/a.txt."


@pytest.mark.parametrize("uri", ["file:///pub/a.txt", "file:///other", "file:///pub/../key", "file:///%2561", "note:ü"])
async def test_a_hidden_server_is_as_unknown_as_none(tmp_path: Path, uri: str) -> None:
    """Guessing labels must not tell which servers exist behind a policy."""
    shelf = ModernLibrary()
    identity = {"keys": [*keys("ann", roles=["a"]), *keys("bob")]}
    rules = [allow("docs/*", to={"roles": ["a"]})]
    async with (
        serve(shelf) as server,
        Stand(tmp_path, {"docs": http(server)}, identity=identity, policy={"rules": rules}) as stand,
    ):
        hidden = refused(await read(stand, f"docs+{uri}", who="bob"), 400, -32602).json["error"]
        absent = refused(await read(stand, f"nope+{uri}", who="bob"), 400, -32602).json["error"]
        assert hidden["message"].replace("docs+", "nope+") == absent["message"]
        assert hidden["data"].keys() == absent["data"].keys() == {"callId"}
        session = await stand.legacy(who="bob")
        told = [
            (await session.ask("resources/read", {"uri": f"{label}+{uri}"})).json["error"] for label in ("docs", "nope")
        ]
        assert told[0]["code"] == told[1]["code"] == -32602
        hidden = refused(await stand.modern("prompts/get", {"name": "docs__review"}, who="bob"), 400, -32602)
        absent = refused(await stand.modern("prompts/get", {"name": "nope__review"}, who="bob"), 400, -32602)
        assert hidden.json["error"]["message"].replace("docs", "nope") == absent.json["error"]["message"]
        assert "denied" in {each["outcome"] for each in await stand.records(6)}  # the record knows better
    assert shelf.asked == []


@pytest.mark.parametrize(
    "uri",
    [
        "file:///pub/a.txt", "docs%2Bfile:///pub/a.txt", "docs+docs+file:///pub/a.txt", "DOCS+file:///pub/a.txt",
        "docs+file:///pub/%2e%2e/key", "docs+file:///pub/%252e%252e/key", "docs+FILE:///key", "x.mrxwg4y+file:///pub/a.txt",
        "docs+", "+file:///pub/a.txt", "ui://docs", "docs +file:///a", "tools+file:///pub/a.txt", "",
    ],
)  # fmt: skip
async def test_a_uri_in_another_spelling_reaches_nobody(tmp_path: Path, uri: str) -> None:
    docs, bare = ModernLibrary(), ModernLibrary()
    bare.capabilities = {"tools": {}}
    policy = {"rules": [allow("*/*"), deny("docs/resource:file:///key")]}
    async with (
        serve(docs) as a,
        serve(bare) as b,
        Stand(tmp_path, {"docs": http(a), "tools": http(b)}, policy=policy) as stand,
    ):
        if uri == "docs+docs+file:///pub/a.txt":  # a URI of the server's that merely looks like one of ours
            assert (await read(stand, uri)).status == 200
            assert docs.asked == [("resources/read", {"uri": "docs+file:///pub/a.txt"})]
            return
        refused(await read(stand, uri), 400, -32602)
        session = await stand.legacy()
        assert (await session.ask("resources/read", {"uri": uri})).error == -32602
    assert docs.asked == bare.asked == []


@pytest.mark.rule("ERR-3", "ERR-1")
@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_resource_that_does_not_exist(tmp_path: Path, era: str) -> None:
    """A modern client is told -32602, a legacy one -32002, whatever the era of the server."""
    shelf = library(era)
    code = -32602 if era == "modern" else -32002
    shelf.fails["resources/read"] = (code, {"uri": "file:///gone"})
    async with serve(shelf) as server, Stand(tmp_path, {"docs": http(server, era)}) as stand:
        error = refused(await read(stand, "docs+file:///gone"), 400, -32602).json["error"]
        assert error["data"]["uri"] == "docs+file:///gone"
        session = await stand.legacy()
        said = (await session.ask("resources/read", {"uri": "docs+file:///gone"})).json["error"]
        assert (said["code"], said["data"]["uri"]) == (-32002, "docs+file:///gone")


async def test_a_prompt_that_does_not_exist_is_told_the_nearest_one(tmp_path: Path) -> None:
    async with serve(ModernLibrary()) as server, Stand(tmp_path, {"docs": http(server)}) as stand:
        error = refused(await stand.modern("prompts/get", {"name": "docs__reviw"}), 400, -32602).json["error"]
        assert error["message"] == "Unknown prompt: docs__reviw. Did you mean docs__review?"


async def test_a_changed_list_is_told_by_kind_and_only_where_it_changed(tmp_path: Path) -> None:
    one, two = LegacyLibrary(listens=True), ModernLibrary()
    doors = {"v": {"tools": ["wiki/*"]}}
    async with serve(one) as a, serve(two) as b:
        servers = {"docs": http(a, "legacy"), "wiki": http(b)}
        async with Stand(tmp_path, servers, virtual_servers=doors) as stand:
            everything, own, other = [await stand.legacy(path=path) for path in ("/mcp", "/servers/docs/mcp", "/mcp/v")]
            streams = [await each.listen() for each in (everything, own, other)]
            await one.listening.wait()
            one.prompts = [{"name": "another"}]
            one.templates = [{"uriTemplate": "b:{c}", "name": "b"}]
            one.streams[0].event(note("notifications/prompts/list_changed"))
            for stream in streams[:2]:
                told = {(await stream.event())["method"], (await stream.event())["method"]}
                assert told == {"notifications/prompts/list_changed", "notifications/resources/list_changed"}
            for stream, door in zip(streams, ("", "server:docs", "virtual:v"), strict=True):
                stand.house.sessions.push(b'{"mark":1}', door)
                assert await stream.event() == {"mark": 1}  # nothing stood before it
                await stream.close()

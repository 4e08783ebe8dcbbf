"""What a door says that it can do: what the servers behind it offer, as far as callgate can relay it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.gateway.library import EVERYTHING, LegacyLibrary, ModernLibrary
from tests.gateway.stand import Stand, allow, keys
from tests.gateway.upstreams import Modern, http, serve

pytestmark = pytest.mark.anyio

UI, TASKS, SKILLS = (f"io.modelcontextprotocol/{name}" for name in ("ui", "tasks", "skills"))
CHANGES = {"listChanged": True}


async def modern(stand: Stand, path: str = "/mcp", **more: Any) -> Any:
    return (await stand.modern("server/discover", path=path, **more)).json["result"]["capabilities"]


async def legacy(stand: Stand, path: str = "/mcp", **more: Any) -> Any:
    return (await stand.legacy(path=path, **more)).opened["capabilities"]


@pytest.mark.parametrize("say", [modern, legacy])
async def test_a_door_offers_what_its_servers_offer(tmp_path: Path, say: Any) -> None:
    plain, shelf = ModernLibrary(), ModernLibrary()
    plain.capabilities = {"tools": {}, "resources": {}, "logging": {}}
    async with serve(plain) as a, serve(shelf) as b:
        doors = {"v": {"tools": ["plain/*"]}}
        async with Stand(tmp_path, {"plain": http(a), "docs": http(b)}, virtual_servers=doors) as stand:
            full = {"tools": CHANGES, "prompts": CHANGES, "resources": CHANGES | {"subscribe": True}, "completions": {}}
            assert await say(stand) == full | {"logging": {}}
            assert await say(stand, "/servers/docs/mcp") == full
            assert await say(stand, "/servers/plain/mcp") == {"tools": CHANGES, "resources": CHANGES, "logging": {}}
            assert await say(stand, "/mcp/v") == {"tools": CHANGES, "logging": {}}


@pytest.mark.rule("EXT-2", "APP-1")
@pytest.mark.parametrize("say", [modern, legacy])
async def test_an_aggregate_offers_only_extensions_that_it_can_route(tmp_path: Path, say: Any) -> None:
    one, two = ModernLibrary(), ModernLibrary()
    one.capabilities = EVERYTHING | {
        "extensions": {UI: {"mimeTypes": ["text/html"]}, TASKS: {"a": 1}, SKILLS: {}, "com.example/x": {"deep": [1.5]}},
        "experimental": {"e": {"x": None}},
    }
    two.capabilities = EVERYTHING | {"extensions": {TASKS: {"b": 2}}}
    async with serve(one) as a, serve(two) as b, Stand(tmp_path, {"one": http(a), "two": http(b)}) as stand:
        said = await say(stand)
        # Tasks are callgate's own, in the words of the client's era.
        assert said.get("extensions", {}) == ({TASKS: {}} if say is modern else {})
        assert ("tasks" in said) == (say is legacy)
        assert "experimental" not in said
        own = await say(stand, "/servers/one/mcp")
        expected = one.capabilities["extensions"] | {TASKS: {}}
        assert own["extensions"] | {TASKS: {}} == expected
        assert own["experimental"] == one.capabilities["experimental"]


async def test_tasks_are_offered_where_a_server_has_them_in_either_era(tmp_path: Path) -> None:
    one, two = LegacyLibrary(), LegacyLibrary()
    one.capabilities = EVERYTHING | {"tasks": {"list": {}, "requests": {"tools": {"call": {}}}}}
    async with (
        serve(one) as a,
        serve(two) as b,
        Stand(tmp_path, {"one": http(a, "legacy"), "two": http(b, "legacy")}) as stand,
    ):
        for path, offered in (("/mcp", True), ("/servers/one/mcp", True), ("/servers/two/mcp", False)):
            assert ("tasks" in await legacy(stand, path)) == offered
            assert (TASKS in (await modern(stand, path)).get("extensions", {})) == offered


@pytest.mark.parametrize("strange", [1, [], None, "x"])
async def test_capabilities_of_a_strange_form_take_nothing_away(tmp_path: Path, strange: Any) -> None:
    one = ModernLibrary()
    one.capabilities = EVERYTHING | {"resources": strange, "extensions": strange, "tasks": strange}
    async with serve(one) as a, Stand(tmp_path, {"one": http(a)}) as stand:
        for path in ("/mcp", "/servers/one/mcp"):
            said = await modern(stand, path)
            assert (said["prompts"], said["resources"]) == (CHANGES, CHANGES)
            assert "extensions" not in said


async def test_nothing_is_said_of_the_extensions_of_a_hidden_server(tmp_path: Path) -> None:
    one = ModernLibrary()
    one.capabilities = EVERYTHING | {"extensions": {TASKS: {}, "com.example/x": {}}, "experimental": {"e": {}}}
    identity = {"keys": [*keys("ann", roles=["a"]), *keys("bob")]}
    policy = {"rules": [allow("one/*", to={"roles": ["a"]}), allow("two/*", id="two", to={"subjects": ["*"]})]}
    async with serve(one) as a, serve(Modern()) as b:
        servers = {"one": http(a), "two": http(b)}
        async with Stand(tmp_path, servers, identity=identity, policy=policy) as stand:
            for say in (modern, legacy):
                for path in ("/mcp", "/servers/one/mcp"):
                    assert {"extensions", "tasks"} & (await say(stand, path, who="ann")).keys()
                    assert not {"extensions", "experimental", "tasks"} & (await say(stand, path, who="bob")).keys()


async def test_instructions_are_cut(tmp_path: Path) -> None:
    class Talking(ModernLibrary):
        async def __call__(self, request: Any, peer: Any) -> Any:
            from tests.servers.mcp_http import result_of

            if request.message["method"] != "server/discover":
                return await super().__call__(request, peer)
            hello = {"supportedVersions": ["2026-07-28"], "capabilities": self.capabilities, "instructions": "x" * 9000}
            return peer.json(result_of(request.message["id"], hello))

    async with serve(Talking()) as a, Stand(tmp_path, {"one": http(a)}) as stand:
        assert len((await stand.modern("server/discover")).json["result"]["instructions"]) == 8192

"""Caching hints: what a client may keep, how long, and for whom."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.messages import dump, modern, post, routing
from tests.gateway.library import LegacyLibrary, ModernLibrary
from tests.gateway.stand import Stand, allow, bearer, keys, until
from tests.gateway.upstreams import http, serve, tool
from tests.servers.mcp_http import note

pytestmark = pytest.mark.anyio

LISTS = ("tools/list", "prompts/list", "resources/list", "resources/templates/list")
URI = "file:///pub/a.txt"


def hinted(ttl: Any = None, scope: Any = None) -> ModernLibrary:
    shelf = ModernLibrary()
    shelf.hints = {name: value for name, value in (("ttlMs", ttl), ("cacheScope", scope)) if value is not None}
    shelf.says["resources/read"] = {"contents": [], "resultType": "complete", **shelf.hints}
    return shelf


async def hints(stand: Stand, method: str, params: dict[str, Any] | None = None, **more: Any) -> tuple[int, str]:
    result = (await stand.modern(method, params, **more)).json["result"]
    return result["ttlMs"], result["cacheScope"]


async def read(stand: Stand, who: str | None = None, **more: Any) -> Any:
    message = modern("resources/read", {"uri": f"a+{URI}", **more})
    encoded = f"=?base64?{base64.b64encode(f'a+{URI}'.encode()).decode()}?="
    headers = [*routing(message), ("Mcp-Name", encoded), *bearer(who)]
    return (await stand.ask(post(stand.port, dump(message), headers))).json["result"]


@pytest.mark.rule("CACHE-1", "CACHE-3", "CACHE-10")
@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ((5000, "public"), (9000, "public"), (5000, "public")),
        ((5000, "public"), (9000, "private"), (5000, "private")),
        ((5000, "public"), (None, None), (0, "private")),
        ((5000, "public"), (-1, "public"), (0, "public")),
        ((10**9, "public"), (10**9, "public"), (60_000, "public")),
    ],
)
async def test_a_merged_list_is_kept_as_all_its_parts_allow(
    tmp_path: Path, one: tuple[Any, Any], other: tuple[Any, Any], together: tuple[int, str]
) -> None:
    async with (
        serve(hinted(*one)) as a,
        serve(hinted(*other)) as b,
        Stand(tmp_path, {"a": http(a), "b": http(b)}) as stand,
    ):
        for method in LISTS:
            assert await hints(stand, method) == together
            assert await hints(stand, method, path="/servers/a/mcp") == (min(one[0], 60_000), "public")


@pytest.mark.rule("CACHE-2", "CACHE-10")
async def test_behind_a_policy_or_credentials_nothing_is_public(tmp_path: Path) -> None:
    async with serve(hinted(5000, "public")) as a:
        identity, policy = {"keys": keys("ann")}, {"rules": [allow("a/*")]}
        for folder in ("one", "two"):
            (tmp_path / folder).mkdir()
        async with Stand(tmp_path / "one", {"a": http(a)}, identity=identity) as stand:
            assert await hints(stand, "resources/list", who="ann") == (5000, "private")
            assert (await read(stand, who="ann"))["cacheScope"] == "private"
        async with Stand(tmp_path / "two", {"a": http(a)}, policy=policy) as stand:
            assert await hints(stand, "tools/list") == (5000, "private")
            said = await read(stand)
            assert (said["ttlMs"], said["cacheScope"]) == (5000, "private")


async def test_what_depends_on_the_time_is_not_kept(tmp_path: Path) -> None:
    policy = {"rules": [allow("a/*", when="now > timestamp('2020-01-01T00:00:00Z')")]}
    async with serve(hinted(5000, "public")) as a, Stand(tmp_path, {"a": http(a)}, policy=policy) as stand:
        assert await hints(stand, "tools/list") == (0, "private")


@pytest.mark.rule("CACHE-5")
async def test_a_list_of_several_pages_is_its_callers_own(tmp_path: Path) -> None:
    """Its cursors are: a page of somebody else's would lead nowhere."""
    shelf = hinted(5000, "public")
    shelf.tools = [tool(f"t{n}") for n in range(3)]
    async with serve(shelf) as a, Stand(tmp_path, {"a": http(a)}, list_page_size=2) as stand:
        first = (await stand.modern("tools/list")).json["result"]
        assert (first["ttlMs"], first["cacheScope"]) == (5000, "private")
        assert await hints(stand, "tools/list", {"cursor": first["nextCursor"]}) == (5000, "private")
        assert await hints(stand, "prompts/list") == (5000, "public")


async def test_a_list_without_a_server_that_has_yet_to_come_is_not_kept(tmp_path: Path) -> None:
    gone = {"url": "http://127.0.0.1:1/mcp", "protocol": "modern"}
    async with serve(hinted(5000, "public")) as a, Stand(tmp_path, {"a": http(a), "b": gone}) as stand:
        assert await hints(stand, "tools/list") == (0, "private")


@pytest.mark.rule("CACHE-1", "CACHE-6")
@pytest.mark.parametrize(
    ("ttl", "scope", "said"),
    [
        (5000, "public", (5000, "public")), (0, "private", (0, "private")), (7, None, (7, "private")),
        (-5, "public", (0, "public")), ("x", 5, (0, "private")), (1.5, "PUBLIC", (0, "private")),
        (True, None, (0, "private")),
    ],
)  # fmt: skip
async def test_a_read_keeps_its_servers_hints(tmp_path: Path, ttl: Any, scope: Any, said: tuple[int, str]) -> None:
    async with serve(hinted(ttl, scope)) as a, Stand(tmp_path, {"a": http(a)}) as stand:
        result = await read(stand)
        assert (result["ttlMs"], result["cacheScope"]) == said


@pytest.mark.rule("CACHE-1")
async def test_a_legacy_servers_read_gets_hints_and_a_legacy_client_none(tmp_path: Path) -> None:
    shelf = LegacyLibrary()
    async with serve(shelf) as a, Stand(tmp_path, {"a": http(a, "legacy")}) as stand:
        result = await read(stand)
        assert (result["ttlMs"], result["cacheScope"]) == (0, "private")
        session = await stand.legacy()
        assert "ttlMs" not in (await session.ask("resources/read", {"uri": f"a+{URI}"})).json["result"]


@pytest.mark.rule("CACHE-7", "MRTR-10")
@pytest.mark.parametrize("retry", [{"inputResponses": {"a": {}}}, {"requestState": "s"}])
async def test_what_comes_of_a_retry_is_not_kept(tmp_path: Path, retry: dict[str, Any]) -> None:
    async with serve(hinted(5000, "public")) as a, Stand(tmp_path, {"a": http(a)}) as stand:
        from callgate.gateway.caching import of_read
        from callgate.gateway.pipeline import Asked
        from callgate.types import Answer, Front, Principal

        asked = Asked(1, Principal("x", "x"), Front(), "resource:a:b", {}, {}, 0, 0, "", params={"uri": "a:b", **retry})
        answer = of_read(Answer(b'{"ttlMs":5000,"cacheScope":"public"}'), asked, stand.house)
        assert answer.result == b'{"ttlMs":0,"cacheScope":"private"}'


@pytest.mark.rule("CACHE-4")
async def test_answers_of_reads_are_not_kept_here(tmp_path: Path) -> None:
    shelf = hinted(60_000, "public")
    async with serve(shelf) as a, Stand(tmp_path, {"a": http(a)}) as stand:
        for _ in range(3):
            await read(stand)
        assert len(shelf.asked) == 3
        assert len(await stand.records(3)) == 3


@pytest.mark.rule("CACHE-4")
async def test_a_kept_list_answers_only_what_was_asked(tmp_path: Path) -> None:
    """Every question twice, so that the second time the page is there: for each method, door, era and cursor."""
    shelf = hinted(60_000, "public")
    shelf.tools = [tool(name, outputSchema={"type": "array"}) for name in ("one", "two", "three")]
    shelf.prompts = [{"name": name} for name in ("four", "five")]
    async with serve(shelf) as a, Stand(tmp_path, {"a": http(a)}, list_page_size=1) as stand:
        for _ in range(2):
            for path, prefix in (("/mcp", "a__"), ("/servers/a/mcp", "")):
                for member, names in (("tools", ["one", "three", "two"]), ("prompts", ["five", "four"])):
                    session = await stand.legacy(path=path)
                    new = await pages(partial(stand.modern, path=path), member)
                    old = await pages(session.ask, member)
                    assert sorted(each["name"] for each in new) == [prefix + name for name in names]
                    assert [each["name"] for each in old] == [each["name"] for each in new]
                    assert {"outputSchema" in each for each in new} == {member == "tools"}
                    assert not any("outputSchema" in each for each in old)


async def pages(ask: Callable[..., Awaitable[Any]], member: str) -> list[Any]:
    """All entries of a list, one page after the other."""
    found, more = [], dict[str, Any]()
    while True:
        result = (await ask(f"{member}/list", more)).json["result"]
        assert len(result[member]) == 1
        found += result[member]
        assert len(found) < 9
        if "nextCursor" not in result:
            return found
        more = {"cursor": result["nextCursor"]}


@pytest.mark.rule("CACHE-8")
async def test_a_change_makes_a_kept_list_stale_at_once(tmp_path: Path) -> None:
    shelf = LegacyLibrary(listens=True)
    async with serve(shelf) as a, Stand(tmp_path, {"a": http(a, "legacy")}) as stand:
        await shelf.listening.wait()
        for _ in range(2):
            assert len((await stand.modern("resources/list")).json["result"]["resources"]) == 1
        shelf.resources = []
        before = stand.house.catalog.version
        shelf.streams[0].event(note("notifications/resources/list_changed"))
        await until(lambda: stand.house.catalog.version > before)
        assert (await stand.modern("resources/list")).json["result"]["resources"] == []


@pytest.mark.rule("CACHE-9")
async def test_a_list_that_cannot_be_read_again_is_served_as_it_was(tmp_path: Path) -> None:
    shelf = LegacyLibrary(listens=True)
    shelf.tools = [tool("kept")]
    async with serve(shelf) as a, Stand(tmp_path, {"a": http(a, "legacy")}) as stand:
        await shelf.listening.wait()
        assert await stand.tools() == ["a__kept"]
        shelf.tools = [{"nameless": True}]
        shelf.streams[0].event(note("notifications/tools/list_changed"))
        await until(lambda: "could not be listed" in stand.house.statuses()[0].reason)
        assert await stand.tools() == ["a__kept"]

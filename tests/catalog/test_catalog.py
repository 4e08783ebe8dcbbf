"""The catalog: listings in, views out; nothing waits, nothing depends on who came first."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import msgspec
import pytest

from callgate.catalog import EVERYTHING, Catalog, server_door, virtual_door
from callgate.catalog.names import hashed_name
from callgate.catalog.screening import Open, Screened
from callgate.config import Server, VirtualServer
from callgate.types import Listing


def listing(server: str, *names: str, **more: Any) -> Listing:
    tools = tuple({"name": name, "inputSchema": {"type": "object"}, **more} for name in names)
    return Listing(server=server, tools=tools, era="legacy", version="2025-11-25")


def catalog_of(*servers: str, virtual: dict[str, VirtualServer] | None = None) -> Catalog:
    catalog = Catalog()
    catalog.configure({name: Server(command="x") for name in servers}, virtual or {})
    return catalog


def names(catalog: Catalog, door: str = EVERYTHING) -> list[str]:
    view = catalog.view(door)
    assert view is not None
    return [view.by_native[tool.native] for tool in view.tools]


async def fill(catalog: Catalog, *listings: Listing) -> Catalog:
    for each in listings:
        catalog.arrived(each)
        await catalog.idle()
    return catalog


@pytest.mark.parametrize("order", [("b", "a"), ("a", "b")])
def test_the_list_does_not_depend_on_who_came_first(order: tuple[str, str]) -> None:
    async def story() -> None:
        catalog = await fill(catalog_of("a", "b"), *[listing(name, "two", "one") for name in order])
        assert names(catalog) == ["a__one", "a__two", "b__one", "b__two"]

    asyncio.run(story())


def test_a_servers_own_door_shows_native_names_and_untouched_definitions() -> None:
    async def story() -> None:
        catalog = await fill(catalog_of("a"), listing("a", "one", **{"x-vendor": {"deep": [1.0, None]}}))
        view = catalog.view(server_door("a"))
        assert view is not None
        assert names(catalog, server_door("a")) == ["one"]
        assert msgspec.json.decode(view.definitions["one"])["x-vendor"] == {"deep": [1.0, None]}

    asyncio.run(story())


def test_a_virtual_server_shows_what_its_globs_choose() -> None:
    async def story() -> None:
        chosen = VirtualServer(tools=("a/get_*", "b/put"), description="For coders.")
        catalog = catalog_of("a", "b", virtual={"coder": chosen})
        await fill(catalog, listing("a", "get_x", "del_x"), listing("b", "put", "get_y"))
        assert names(catalog, virtual_door("coder")) == ["a__get_x", "b__put"]

    asyncio.run(story())


def test_a_server_that_is_down_takes_only_its_own_tools_out_of_the_lists() -> None:
    async def story() -> None:
        catalog = await fill(catalog_of("a", "b"), listing("a", "one"), listing("b", "two"))
        catalog.withdraw("a")
        view = catalog.view(EVERYTHING)
        assert view is not None
        assert names(catalog) == ["b__two"]
        assert "a__one" in view.names  # still resolved, so that a call is told why
        await fill(catalog, listing("a", "one"))
        assert names(catalog) == ["a__one", "b__two"]

    asyncio.run(story())


def test_a_removed_server_disappears_at_once() -> None:
    async def story() -> None:
        catalog = await fill(catalog_of("a", "b"), listing("a", "one"), listing("b", "two"))
        before = catalog.version
        catalog.configure({"b": Server(command="x")}, {})
        assert names(catalog) == ["b__two"]
        assert catalog.view(server_door("a")) is None
        assert catalog.version > before

    asyncio.run(story())


def test_a_configuration_change_during_a_compilation_is_not_lost() -> None:
    async def story() -> None:
        catalog = catalog_of("a", "b")
        catalog.arrived(listing("a", *[f"t{n}" for n in range(500)]))
        await asyncio.sleep(0)
        catalog.configure({"b": Server(command="x")}, {})
        await catalog.idle()
        assert names(catalog) == []
        assert catalog.view(server_door("a")) is None

    asyncio.run(story())


def test_a_server_cannot_imitate_the_hashed_name_of_another() -> None:
    async def story() -> None:
        victim = hashed_name("a.b", "pay")
        server, _, tool = victim.partition("__")
        catalog = await fill(catalog_of("a.b", server), listing("a.b", "pay"), listing(server, tool))
        view = catalog.view(EVERYTHING)
        assert view is not None
        assert view.names[victim].server == "a.b"
        assert len(set(names(catalog))) == 2

    asyncio.run(story())


@pytest.mark.rule("HDR-5")
def test_a_tool_with_a_forbidden_header_annotation_is_left_out_and_the_others_stay() -> None:
    async def story() -> None:
        bad = {"properties": {"price": {"type": "number", "x-mcp-header": "Price"}}}
        good = {"properties": {"city": {"type": "string", "x-mcp-header": "City"}}}
        tools = ({"name": "bad", "inputSchema": bad}, {"name": "good", "inputSchema": good})
        catalog = await fill(catalog_of("a"), Listing("a", tools, "modern", "2026-07-28"))
        assert names(catalog) == ["a__good"]

    asyncio.run(story())


def test_a_name_listed_twice_and_one_without_a_name_are_left_out() -> None:
    async def story() -> None:
        tools = ({"name": "one", "title": "first"}, {"name": "one", "title": "second"}, {"title": "nameless"})
        catalog = await fill(catalog_of("a"), Listing("a", tools, "legacy", "2025-11-25"))
        view = catalog.view(EVERYTHING)
        assert view is not None
        assert msgspec.json.decode(view.definitions["a__one"])["title"] == "first"
        assert names(catalog) == ["a__one"]

    asyncio.run(story())


def library(server: str, **lists: Any) -> Listing:
    more = {"capabilities": {"tools": {}, "prompts": {}, "resources": {}}, **lists}
    return msgspec.structs.replace(listing(server, "one"), **more)


def test_what_changed_is_told_by_door_and_kind() -> None:
    async def story() -> None:
        told: list[Any] = []
        catalog = Catalog(told.append)
        virtual = {"v": VirtualServer(tools=("b/*",), resources=("a/*",))}
        catalog.configure({name: Server(command="x") for name in ("a", "b")}, virtual)

        async def after(*listings: Listing) -> Any:
            told.clear()
            await fill(catalog, *listings)
            return {door: kinds for each in told for door, kinds in each.items()}

        first = await after(library("a"))
        assert first == {"": {"tools"}, "server:a": {"tools"}}
        assert await after(library("a")) == {}
        prompts = ({"name": "p"},)
        assert await after(library("a", prompts=prompts)) == {"": {"prompts"}, "server:a": {"prompts"}}
        templates = ({"uriTemplate": "a:{b}", "name": "t"},)
        changed = await after(library("a", prompts=prompts, templates=templates))
        assert changed == {"": {"resources"}, "server:a": {"resources"}, "virtual:v": {"resources"}}
        retitled = ({"name": "p", "title": "P"},)
        changed = await after(library("a", prompts=retitled, templates=templates))
        assert changed == {"": {"prompts"}, "server:a": {"prompts"}}
        told.clear()
        catalog.withdraw("a")
        everything = {"tools", "prompts", "resources"}
        assert told == [{"": everything, "server:a": everything, "virtual:v": {"resources"}}]

    asyncio.run(story())


def test_a_session_with_a_link_of_its_own_sees_what_its_server_lists_there() -> None:
    async def story() -> None:
        virtual = {"v": VirtualServer(tools=("a/one",))}
        catalog = await fill(catalog_of("a", "b", virtual=virtual), library("a"), library("b"))
        granted = {"tools/list": (1000, "public")}
        own = {
            "a": library("a", tools=({"name": "one"}, {"name": "two"}), prompts=({"name": "p"},), hints=granted),
            "gone": library("gone"),
        }
        views = catalog.overlaid([EVERYTHING, virtual_door("v"), virtual_door("nobody")], own)
        assert views.keys() == {EVERYTHING, virtual_door("v")}
        view = views[EVERYTHING]
        assert list(view.names) == ["a__one", "a__two", "b__one"]
        assert list(view.prompts) == ["a__p"]
        assert names(catalog) == ["a__one", "b__one"]  # nobody else sees it
        assert list(views[virtual_door("v")].names) == ["a__one"]  # the door is no wider
        alone = catalog.overlaid([server_door("a")], own)[server_door("a")]
        assert alone.hints["tools/list"] == (1000, "private")  # whoever the server lets have it
        catalog.withdraw("a")
        down = catalog.overlaid([EVERYTHING], own)[EVERYTHING]
        assert [tool.native for tool in down.tools] == ["b/one"]

    asyncio.run(story())


def test_an_entry_listed_twice_is_shown_once() -> None:
    async def story() -> None:
        twice = ({"uri": "a:b", "name": "first"}, {"uri": "a:b", "name": "second"})
        catalog = await fill(catalog_of("a"), library("a", resources=twice))
        view = catalog.view(EVERYTHING)
        assert view is not None
        [entry] = view.entries("resources/list")
        assert msgspec.json.decode(view.definition("resources/list", entry))["name"] == "first"

    asyncio.run(story())


class Slow(Open):
    """A guard that takes its time with what is listed."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

    def listing(self, listing: Listing) -> Screened:
        self.begun.set()
        self.go.wait(10)
        return super().listing(listing)


@pytest.mark.parametrize("moved", [False, True])
def test_judging_once_more_does_not_bring_back_an_older_list(moved: bool) -> None:
    """Else the old definitions would be shown and trusted, and the calls would go to the new tools."""

    async def story() -> None:
        screen = Slow()
        catalog = Catalog(screen=screen)
        catalog.configure({"a": Server(command="x")}, {})
        screen.go.set()
        await fill(catalog, listing("a", "old"))
        screen.go.clear()
        screen.begun.clear()
        catalog.arrived(listing("a", "new"))
        await asyncio.to_thread(screen.begun.wait, 10)
        if moved:  # another program under the same name: neither list is its own
            catalog.configure({"a": Server(command="y")}, {})
        catalog.screened_anew()
        screen.go.set()
        await catalog.idle()
        assert names(catalog) == ([] if moved else ["a__new"])

    asyncio.run(story())


def test_a_remembered_list_that_cannot_be_used_does_not_stop_the_start() -> None:
    deep: dict[str, Any] = {}
    for _ in range(3000):
        deep = {"a": deep}
    catalog = catalog_of("a", "b")
    catalog.restore({"a": listing("a", "one", annotations=deep), "b": listing("b", "two")})
    assert names(catalog) == ["b__two"]


@pytest.mark.parametrize("uri", ["mem://host/a", "mem://HOST/a"])
def test_other_letters_are_no_way_around_a_template_that_is_held_back(uri: str) -> None:
    class Held(Open):
        def listing(self, listing: Listing) -> Screened:
            shown = super().listing(listing)
            return msgspec.structs.replace(shown, templates=tuple((each, "held") for each, _ in shown.templates))

    catalog = Catalog(screen=Held())
    catalog.configure({"a": Server(command="x")}, {})
    listed = msgspec.structs.replace(
        listing("a"), capabilities={"resources": {}}, templates=({"name": "m", "uriTemplate": "mem://Host/{x}"},)
    )
    catalog.restore({"a": listed})
    view = catalog.view(server_door("a"))
    assert view is not None
    found = view.readable(f"resource:{uri}")
    assert found is not None
    assert found.withheld == "held"

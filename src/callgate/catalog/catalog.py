"""The catalog: listings come in from the upstreams, are compiled off the event loop, and are swapped in whole."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from callgate.catalog.classes import BELIEVED, Classes
from callgate.catalog.names import SEPARATOR
from callgate.catalog.parts import Part, compile_part, held_back
from callgate.catalog.screening import OPEN, Screen
from callgate.catalog.snapshot import EVERYTHING, changes, compile_view, compile_views
from callgate.catalog.uri_form import native
from callgate.catalog.view import View
from callgate.config import Server, VirtualServer
from callgate.types import PROMPT, RESOURCE, Listing, Tool

log = logging.getLogger("callgate.catalog")

PRIVATE: Literal["private"] = "private"
Source = tuple[Any, ...]
#: The doors whose lists are other ones now, and which: ``tools``, ``prompts``, ``resources`` (templates included).
Changes = Mapping[str, frozenset[str]]


class Catalog:
    """What exists. ``view(door)`` is what a door shows now; ``changed`` is called after every swap with what became
    different (nothing, when a server listed the same again).

    One task compiles, in a thread; while it works, further changes gather and are compiled together (single
    flight). ``prepare`` is given the new tools in that thread, before anybody sees them.
    """

    def __init__(
        self,
        changed: Callable[[Changes], None] = lambda changes: None,
        prepare: Callable[[Sequence[Tool]], None] = lambda tools: None,
        screen: Screen = OPEN,
    ) -> None:
        self.version = 0
        self.views: Mapping[str, View] = compile_views({}, (), {})
        self.parts: Mapping[str, Part] = {}
        self._order: tuple[str, ...] = ()
        self._virtual: Mapping[str, VirtualServer] = {}
        self._down: frozenset[str] = frozenset()
        self._arrived: dict[str, Listing] = {}
        self._compiling: Mapping[str, Listing] = {}
        self._sources: Mapping[str, Source] = {}
        self._classes: Mapping[str, Classes] = {}
        self._changed = changed
        self._prepare = prepare
        self._screen = screen
        self._held: Mapping[str, str] = {}
        self._work: asyncio.Task[None] | None = None

    def configure(
        self, servers: Mapping[str, Server], virtual: Mapping[str, VirtualServer], *, believed: bool = True
    ) -> None:
        """Take over the configured servers and virtual servers; tools of servers that are gone disappear at once, and
        so do those of another program or URL under the old name: what the old one claimed must not judge the new one.
        ``believed`` is for servers whose ``annotations`` are ``auto``.
        """
        self._order = tuple(name for name, server in servers.items() if not server.disabled)
        self._virtual = dict(virtual)
        before, self._sources = self._sources, {name: _source(servers[name]) for name in self._order}
        self.parts = {name: part for name, part in self.parts.items() if self._still(name, before)}
        self._arrived = {name: listing for name, listing in self._arrived.items() if self._still(name, before)}
        self._compiling = {name: listing for name, listing in self._compiling.items() if self._still(name, before)}
        classes, self._classes = self._classes, {n: Classes(servers[n], believed=believed) for n in self._order}
        stale = [name for name in self.parts if self._classes[name] != classes.get(name, BELIEVED)]
        self.parts = {**self.parts, **{name: self._part(self.parts[name].listing) for name in stale}}
        self._down &= frozenset(self._order)
        self._swap()

    def restore(self, listings: Mapping[str, Listing]) -> None:
        """Take over listings of an earlier run, so that the first list is complete before any server answers."""
        mine = tuple(each for name, each in listings.items() if name in self._order)
        known = _compile_all(mine, self._classes, self._screen)
        self.parts = {**self.parts, **known}
        self._held = self._screen.across(self.parts, self._order)
        self._swap()

    def arrived(self, listing: Listing) -> None:
        """A server listed its tools."""
        self._arrived[listing.server] = listing
        self._begin()

    def screened_anew(self, servers: Iterable[str] = ()) -> None:
        """What servers listed (all of them, if none is named) is judged by the guard once more."""
        newest = {**{name: part.listing for name, part in self.parts.items()}, **self._compiling}
        names = set(servers) or set(newest)
        again = {name: listing for name, listing in newest.items() if name in names}
        self._arrived = {**again, **self._arrived}
        if self._arrived:
            self._begin()

    def _begin(self) -> None:
        if self._work is None or self._work.done():
            self._work = asyncio.get_running_loop().create_task(self._compile(), name="catalog")

    def withdraw(self, server: str) -> None:
        """A server is down: its tools leave the lists (a call to them is told why), and nothing else does."""
        if server in self._order and server not in self._down:
            self._down |= {server}
            self._swap()

    def view(self, door: str) -> View | None:
        return self.views.get(door)

    def overlaid(self, doors: Iterable[str], listings: Mapping[str, Listing]) -> dict[str, View]:
        """What doors show to somebody for whom these servers list something else: a client session, or a principal,
        with a link of its own to a server whose lists depend on the link. Not kept, and shown to nobody else.
        """
        own = {name: self._part(each) for name, each in listings.items() if name in self._order}
        parts = {**self.parts, **own}
        held = self._screen.across(parts, self._order) if self._screen.strict else {}
        present = {name: held_back(parts[name], held) for name in self._order if name in parts}
        views = {}
        for door in doors:
            if door in self.views:
                view = compile_view(door, present, self._virtual, self._down)
                private = {method: (ttl, PRIVATE) for method, (ttl, _) in view.hints.items()}
                views[door] = msgspec.structs.replace(view, hints=private)
        return views

    def server_of(self, door: str, name: str) -> str | None:
        """The configured server that a name at a door points to, whether or not it has listed anything yet."""
        if door.startswith("server:"):
            server = door.removeprefix("server:")
        elif name.startswith(RESOURCE):
            server = (native(name.removeprefix(RESOURCE)) or ("",))[0]
        else:
            server = name.removeprefix(PROMPT).partition(SEPARATOR)[0]
        return server if server in self._order else None

    def unlisted(self) -> tuple[str, ...]:
        """Configured servers that have never listed their tools."""
        return tuple(name for name in self._order if name not in self.parts)

    def awaited(self, view: View) -> bool:
        """Whether a server that may stand behind the door has never listed what it offers."""
        return any(name not in self.parts for name in (self._order if view.aggregate else view.servers))

    @property
    def complete(self) -> bool:
        """Whether every configured server has listed what it offers, and none is down."""
        return not self._down and all(name in self.parts for name in self._order)

    def offers(self, server: str, capability: str) -> bool:
        """Whether a server declared a capability when it was last listed."""
        part = self.parts.get(server)
        return part is not None and capability in part.listing.capabilities

    async def _compile(self) -> None:
        while self._arrived:
            batch, self._arrived, sources, classes = self._arrived, {}, self._sources, self._classes
            self._compiling = batch
            try:
                fresh = await asyncio.to_thread(_compile_all, tuple(batch.values()), classes, self._screen)
                await self._swap_off_loop(fresh, sources, classes)
            finally:
                self._compiling = {}

    def _part(self, listing: Listing) -> Part:
        classes = self._classes.get(listing.server, BELIEVED)
        return compile_part(listing, classes, self._screen.listing(listing))

    def _still(self, name: str, sources: Mapping[str, Source]) -> bool:
        """Whether the server is configured and still comes from where ``sources`` say."""
        return name in self._sources and self._sources[name] == sources.get(name)

    async def _swap_off_loop(
        self, fresh: Mapping[str, Part], sources: Mapping[str, Source], classes: Mapping[str, Classes]
    ) -> None:
        """Compile in a thread; start again when the configuration changed meanwhile. Nothing of ``fresh`` is shown
        before it was compared with what other servers list.
        """
        while True:
            before = self.version
            known = {name: part for name, part in fresh.items() if self._still(name, sources)}
            for name in known:
                if self._classes.get(name) != classes.get(name):  # the operator said something else meanwhile
                    known[name] = self._part(known[name].listing)
            parts, down = {**self.parts, **known}, self._down - frozenset(known)
            held, views, changed = await asyncio.to_thread(self._compiled, parts, down)
            if before == self.version:
                self.parts, self._down, self._held = parts, down, held
                return self._take(views, changed)

    def _compiled(
        self, parts: Mapping[str, Part], down: frozenset[str]
    ) -> tuple[Mapping[str, str], Mapping[str, View], Changes]:
        held = self._screen.across(parts, self._order)
        views = self._views(parts, held, down)
        self._prepare(views[EVERYTHING].tools)
        return held, views, changes(self.views, views)

    def _views(self, parts: Mapping[str, Part], held: Mapping[str, str], down: frozenset[str]) -> Mapping[str, View]:
        shown = {name: held_back(part, held) for name, part in parts.items()} if held else parts
        return compile_views(shown, self._order, self._virtual, down)

    def _swap(self) -> None:
        views = self._views(self.parts, self._held, self._down)
        self._take(views, changes(self.views, views))

    def _take(self, views: Mapping[str, View], changed: Changes) -> None:
        self.version += 1
        self.views = {door: msgspec.structs.replace(view, version=self.version) for door, view in views.items()}
        self._changed(changed)

    async def idle(self) -> None:
        """Wait until everything that has arrived is compiled (a matter of milliseconds: no server is waited for)."""
        if self._work is not None and not self._work.done():
            await asyncio.shield(self._work)

    async def aclose(self) -> None:
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)

    def tools(self) -> Sequence[Tool]:
        return self.views[EVERYTHING].tools

    @property
    def tool_count(self) -> int:
        return len(self.views[EVERYTHING].tools)


def _source(server: Server) -> Source:
    """Everything that decides which program answers under a server's name."""
    return server.command, server.args, server.env, server.cwd, server.url, server.headers, server.protocol


def _compile_all(listings: tuple[Listing, ...], classes: Mapping[str, Classes], screen: Screen) -> dict[str, Part]:
    parts = {}
    for listing in listings:
        try:
            believed = classes.get(listing.server, BELIEVED)
            parts[listing.server] = compile_part(listing, believed, screen.listing(listing))
        except Exception:  # whatever a server lists, the lists of the others are compiled
            log.exception("the list of server %s cannot be used", listing.server)
    return parts

"""The catalog: listings come in from the upstreams, are compiled off the event loop, and are swapped in whole."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from callgate.catalog.names import SEPARATOR
from callgate.catalog.snapshot import EVERYTHING, Part, View, compile_part, compile_views
from callgate.config import Server, VirtualServer
from callgate.types import Listing, Tool

log = logging.getLogger("callgate.catalog")

Source = tuple[Any, ...]


class Catalog:
    """What exists. ``view(door)`` is what a door shows now; ``changed`` is called after every swap.

    One task compiles, in a thread; while it works, further changes gather and are compiled together (single
    flight). ``prepare`` is given the new tools in that thread, before anybody sees them.
    """

    def __init__(
        self, changed: Callable[[], None] = lambda: None, prepare: Callable[[Sequence[Tool]], None] = lambda tools: None
    ) -> None:
        self.version = 0
        self.views: Mapping[str, View] = compile_views({}, (), {})
        self.parts: Mapping[str, Part] = {}
        self._order: tuple[str, ...] = ()
        self._virtual: Mapping[str, VirtualServer] = {}
        self._down: frozenset[str] = frozenset()
        self._arrived: dict[str, Listing] = {}
        self._sources: Mapping[str, Source] = {}
        self._changed = changed
        self._prepare = prepare
        self._work: asyncio.Task[None] | None = None

    def configure(self, servers: Mapping[str, Server], virtual: Mapping[str, VirtualServer]) -> None:
        """Take over the configured servers and virtual servers; tools of servers that are gone disappear at once, and
        so do those of another program or URL under the old name: what the old one claimed must not judge the new one.
        """
        self._order = tuple(name for name, server in servers.items() if not server.disabled)
        self._virtual = dict(virtual)
        before, self._sources = self._sources, {name: _source(servers[name]) for name in self._order}
        self.parts = {name: part for name, part in self.parts.items() if self._still(name, before)}
        self._arrived = {name: listing for name, listing in self._arrived.items() if self._still(name, before)}
        self._down &= frozenset(self._order)
        self._swap()

    def restore(self, listings: Mapping[str, Listing]) -> None:
        """Take over listings of an earlier run, so that the first list is complete before any server answers."""
        known = {name: compile_part(each) for name, each in listings.items() if name in self._order}
        self.parts = {**self.parts, **known}
        self._swap()

    def arrived(self, listing: Listing) -> None:
        """A server listed its tools."""
        self._arrived[listing.server] = listing
        if self._work is None or self._work.done():
            self._work = asyncio.get_running_loop().create_task(self._compile(), name="catalog")

    def withdraw(self, server: str) -> None:
        """A server is down: its tools leave the lists (a call to them is told why), and nothing else does."""
        if server in self._order and server not in self._down:
            self._down |= {server}
            self._swap()

    def view(self, door: str) -> View | None:
        return self.views.get(door)

    def server_of(self, door: str, name: str) -> str | None:
        """The configured server that a name at a door points to, whether or not it has listed its tools yet."""
        server = door.removeprefix("server:") if door.startswith("server:") else name.partition(SEPARATOR)[0]
        return server if server in self._order else None

    def unlisted(self) -> tuple[str, ...]:
        """Configured servers that have never listed their tools."""
        return tuple(name for name in self._order if name not in self.parts)

    async def _compile(self) -> None:
        while self._arrived:
            batch, self._arrived, sources = self._arrived, {}, self._sources
            fresh = await asyncio.to_thread(_compile_all, tuple(batch.values()))
            known = {name: part for name, part in fresh.items() if self._still(name, sources)}
            self.parts = {**self.parts, **known}
            self._down -= frozenset(known)
            await self._swap_off_loop()

    def _still(self, name: str, sources: Mapping[str, Source]) -> bool:
        """Whether the server is configured and still comes from where ``sources`` say."""
        return name in self._sources and self._sources[name] == sources.get(name)

    async def _swap_off_loop(self) -> None:
        """Compile in a thread; start again when the configuration changed meanwhile."""
        while True:
            before = self.version
            views = await asyncio.to_thread(self._compiled)
            if before == self.version:
                return self._take(views)

    def _compiled(self) -> Mapping[str, View]:
        views = compile_views(self.parts, self._order, self._virtual, self._down)
        self._prepare(views[EVERYTHING].tools)
        return views

    def _swap(self) -> None:
        self._take(compile_views(self.parts, self._order, self._virtual, self._down))

    def _take(self, views: Mapping[str, View]) -> None:
        self.version += 1
        self.views = {door: msgspec.structs.replace(view, version=self.version) for door, view in views.items()}
        self._changed()

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


def _compile_all(listings: tuple[Listing, ...]) -> dict[str, Part]:
    parts = {}
    for listing in listings:
        try:
            parts[listing.server] = compile_part(listing)
        except Exception:  # whatever a server lists, the lists of the others are compiled
            log.exception("the list of server %s cannot be used", listing.server)
    return parts

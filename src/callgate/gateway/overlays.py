"""What single callers are shown: a server may list something else on a link that belongs to one of them.

A client session has links of its own, and so has a principal for its clients that have no session: those of the modern
era, whose lists may depend on who asks, but not on the connection. Their overlay begins when a server announces on such
a link another list than everybody is shown. It ends with that link, and with the session. A session is not shown what
its principal's other clients are, and nobody is shown what another principal is.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from callgate.catalog import View, server_door
from callgate.errors import CallgateError
from callgate.gateway.changes import Whose
from callgate.types import Front, Listing, News

if TYPE_CHECKING:
    from callgate.gateway.house import House

log = logging.getLogger("callgate.gateway")

#: Overlays that there may be, and those of one principal and its sessions; others are shown what everybody is.
MOST, MOST_OF_ONE = 256, 32
#: Overlays of callers whose servers list something to each person only.
MOST_PERSONAL = 1024
#: Seconds between two looks at a list whose server announces changes all the time.
CALM = 0.1

_LISTS: Mapping[str, Callable[[Listing], object]] = {
    "tools": lambda listing: listing.tools,
    "prompts": lambda listing: listing.prompts,
    "resources": lambda listing: (listing.resources, listing.templates),
}


class Overlay:
    """One caller's: the listings that are its own by server, and what doors show with them."""

    def __init__(self) -> None:
        self.listings: dict[str, Listing] = {}
        self.views: Mapping[str, View] = {}
        self.laying = asyncio.Lock()


class Overlays:
    """All of them. One task refreshes for each caller and server, however much is announced."""

    def __init__(self, house: House) -> None:
        self.shown: dict[Whose, Overlay] = {}
        self._house = house
        self._versions = itertools.count(-1, -1).__next__  # no other view has a version like these
        self._announced: dict[tuple[Whose, str], set[str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._personal: dict[Whose, None] = {}

    def view(self, front: Front, principal: str) -> View | None:
        """What this caller is shown at its door, where that is its own."""
        overlay = self.shown.get((principal, front.session or ""))
        return overlay.views.get(front.door) if overlay is not None else None

    def forget(self, session: str) -> None:
        """A session has ended."""
        for whose in [whose for whose in self.shown if whose[1] == session]:
            del self.shown[whose]

    def announced(self, news: News) -> None:
        """A server announced another list on a link of somebody's own: it is read there, and then its owner is told."""
        if news.server in self._house.upstreams.personal():
            return self._house.personal.changed(news.server, news.principal)
        whose = news.principal, news.session
        key, kind = (whose, news.server), news.method.split("/")[1]
        waiting = self._announced.get(key)
        if waiting is not None:
            waiting.add(kind)
        elif self._there(whose):
            self._announced[key] = {kind}
            self._own(self._refresh(whose, news.server))

    async def lay_own(self, whose: Whose, listings: Mapping[str, Listing | None]) -> None:
        """Show this caller what these servers list to it and to nobody else (``None``: nothing)."""
        overlay = self.shown.get(whose)
        before = overlay.listings if overlay is not None else {}
        if all(before.get(name) is listing for name, listing in listings.items()) or not self._there(whose):
            if overlay is not None:
                async with overlay.laying:  # somebody else may be at it
                    return
            return
        if overlay is None:
            self._make_room(whose)
            overlay = self.shown[whose] = Overlay()
        for name, listing in listings.items():
            overlay.listings.pop(name, None)
            if listing is not None:
                overlay.listings[name] = listing
        self._personal[whose] = None
        if not overlay.listings:
            overlay.views = {}
            del self.shown[whose]
        await self._lay(whose)

    def _make_room(self, whose: Whose) -> None:
        """Personal lists are read again when they are wanted, so the oldest of them make room."""
        self._personal.pop(whose, None)
        while len(self._personal) >= MOST_PERSONAL:
            oldest = next(iter(self._personal))
            del self._personal[oldest]
            self.shown.pop(oldest, None)

    def ended(self, server: str, principal: str, session: str) -> None:
        """The link that announced has ended: from now on its owner is shown what everybody is, and is told so."""
        if server in self._house.upstreams.personal():
            return  # there is nothing that everybody is shown
        whose = principal, session
        overlay = self.shown.get(whose)
        listing = overlay.listings.pop(server, None) if overlay is not None else None
        if overlay is None or listing is None:
            return
        doors = self._showing(whose, server)
        overlay.views = {}
        if not overlay.listings:
            del self.shown[whose]
        self._own(self._tell_end(whose, listing, doors))

    def swapped(self) -> None:
        """The catalog shows other lists, so what is laid over them is laid anew."""
        for whose in tuple(self.shown):
            self._own(self._lay(whose))

    async def aclose(self) -> None:
        self._closed = True
        self.shown.clear()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _there(self, whose: Whose) -> bool:
        """Whether there is somebody to show it to."""
        principal, id = whose
        session = self._house.sessions.get(id) if id else None
        return session.ticket.principal == principal if session is not None else not id

    async def _refresh(self, whose: Whose, server: str) -> None:
        key = whose, server
        try:
            while kinds := self._announced[key]:
                self._announced[key] = set()
                doors = self._showing(whose, server)
                await self._read(whose, server)
                self._house.changes.tell_one(whose, kinds, doors | self._showing(whose, server))
                await asyncio.sleep(CALM)
        finally:
            del self._announced[key]

    async def _tell_end(self, whose: Whose, listing: Listing, doors: frozenset[str]) -> None:
        await self._lay(whose)
        self._house.changes.tell_one(whose, await asyncio.to_thread(self._differing, listing), doors)

    async def _read(self, whose: Whose, server: str) -> None:
        try:
            listing = await self._house.upstreams.own_listing(server, *whose)
        except CallgateError as error:
            log.info("server %s: the list of a link could not be read: %s", server, error.message)
            return
        await self._house.catalog.idle()
        # The link may have ended meanwhile.
        holds = listing is not None and self._there(whose) and self._house.upstreams.lists_own(server, *whose)
        if listing is not None and holds and (whose in self.shown or self._has_room(whose[0])):
            self.shown.setdefault(whose, Overlay()).listings[server] = listing
        await self._lay(whose)

    def _has_room(self, principal: str) -> bool:
        mine = sum(whose[0] == principal for whose in self.shown)
        return len(self.shown) < MOST and mine < MOST_OF_ONE

    async def _lay(self, whose: Whose) -> None:
        """Compile what the owner is shown, again and again until nothing has changed meanwhile."""
        overlay = self.shown.get(whose)
        if overlay is None:
            return
        async with overlay.laying:
            while listings := dict(overlay.listings):
                try:
                    own, views = await asyncio.to_thread(self._laid, self._doors(whose, listings), listings)
                except Exception:  # whatever a server lists, the others' lists are shown
                    log.exception("lists of one caller cannot be used")
                    own, views = {}, {}
                if listings == overlay.listings:
                    overlay.listings, overlay.views = own, views
                    break
            if not overlay.listings and self.shown.get(whose) is overlay:
                del self.shown[whose]

    def _doors(self, whose: Whose, listings: Mapping[str, Listing]) -> tuple[str, ...]:
        if whose[1]:
            session = self._house.sessions.get(whose[1])
            return () if session is None else (session.ticket.door,)
        aggregates = (door for door in self._house.catalog.views if not door.startswith("server:"))
        return (*aggregates, *map(server_door, listings))

    def _showing(self, whose: Whose, server: str) -> frozenset[str]:
        """The doors at which its owner is shown something of this server."""
        overlay = self.shown.get(whose)
        views = {**self._house.catalog.views, **(overlay.views if overlay is not None else {})}
        return frozenset(door for door, view in views.items() if server in view.servers)

    def _laid(
        self, doors: tuple[str, ...], listings: Mapping[str, Listing]
    ) -> tuple[dict[str, Listing], dict[str, View]]:
        """The listings that still differ from what everybody is shown, and the views with them."""
        own = {name: each for name, each in listings.items() if self._differing(each)}
        views = self._house.catalog.overlaid(doors, own) if own else {}
        return own, {
            door: msgspec.structs.replace(view, version=self._versions())
            for door, view in views.items()
            if not own.keys().isdisjoint(view.servers)
        }

    def _differing(self, listing: Listing) -> set[str]:
        """The kinds of lists in which a listing differs from what everybody is shown of its server."""
        part = self._house.catalog.parts.get(listing.server)
        shown = part.listing if part is not None else Listing(listing.server, (), listing.era, listing.version)
        return {kind for kind, of in _LISTS.items() if of(listing) != of(shown)}

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        if self._closed:
            work.close()
            return
        task = asyncio.create_task(work, name="overlay")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

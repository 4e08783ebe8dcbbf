"""Telling that a list is another one: to sessions and open streams at the doors that show it, after it is in place."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from callgate.catalog import Changes
from callgate.gateway.bus import Bus, Topic
from callgate.gateway.wire import notification
from callgate.types import News

if TYPE_CHECKING:
    from callgate.gateway.house import House

#: A principal's key, and one of its sessions (``""``: its clients that have none).
Whose = tuple[str, str]
KINDS = ("tools", "prompts", "resources")


def list_topic(door: str, kind: str) -> Topic:
    return "list", door, kind


def changed(kind: str) -> str:
    """The method that tells of a change."""
    return f"notifications/{kind}/list_changed"


class ListChanges:
    """Changes that the catalog finds by itself are told as they are. What a server announced is told as well, though
    the list may look the same, once it has been read again.
    """

    def __init__(self, bus: Bus, house: House) -> None:
        self._bus = bus
        self._house = house
        self._announced: dict[str, set[str]] = {}
        self._ripe: dict[str, set[str]] = {}
        for kind in KINDS:
            bus.route(changed(kind), self._heard)

    def listed(self, server: str) -> None:
        """A server's lists were read again; the catalog takes them over next."""
        announced = self._announced.pop(server, None)
        if announced is not None:
            self._ripe.setdefault(server, set()).update(announced)

    def returned(self, server: str) -> None:
        """A server is back: nobody knows what it would have told meanwhile (rule SUB-11)."""
        part = self._house.catalog.parts.get(server)
        offered = {"tools", *(part.listing.capabilities if part is not None else ())}
        self._ripe.setdefault(server, set()).update(offered.intersection(KINDS))

    def swapped(self, changes: Changes) -> None:
        """The catalog shows other lists now."""
        ripe, self._ripe = self._ripe, {}
        told = {door: set(kinds) for door, kinds in changes.items()}
        for door, view in self._house.catalog.views.items():
            for server in ripe.keys() & set(view.servers):
                told.setdefault(door, set()).update(ripe[server])
        for door, kinds in told.items():
            self._tell(door, kinds)

    def judged_anew(self) -> None:
        """Another policy: everybody may see something else now."""
        for door, view in self._house.catalog.views.items():
            self._tell(door, [kind for kind in KINDS if kind == "tools" or f"{kind}/list" in view.others])

    def _tell(self, door: str, kinds: Iterable[str]) -> None:
        for kind in sorted(kinds):
            self._house.sessions.push(notification(changed(kind)), door)
            self._bus.tell(list_topic(door, kind), changed(kind), {})

    def tell_one(self, whose: Whose, kinds: Iterable[str], doors: Collection[str]) -> None:
        """What a server lists on a link of somebody's own is another list: nobody else is told."""
        principal, id = whose
        session = self._house.sessions.get(id) if id else None
        for kind in sorted(kinds):
            if session is not None and session.ticket.principal == principal:
                session.push(notification(changed(kind)))
            for stream in () if id else self._house.streams.of(principal):
                door = stream.front.door
                if door in doors and list_topic(door, kind) in self._bus.topics(stream):
                    stream.hear(changed(kind), {})

    def _heard(self, news: News) -> None:
        if news.principal:
            self._house.overlays.announced(news)
        else:
            self._announced.setdefault(news.server, set()).add(news.method.split("/")[1])

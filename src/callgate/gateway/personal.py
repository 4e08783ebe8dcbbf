"""Servers that list nothing before somebody has signed in to them: everybody is shown what they list to that person.

Such a server shows callgate itself nothing, so the common lists have nothing of it. What it lists to one person is read
as that person, kept for as long as the server says, and laid over the common lists for that person alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Collection
from typing import TYPE_CHECKING

import msgspec

from callgate.errors import CallgateError, ConsentNeeded
from callgate.identity import user_of
from callgate.types import Front, Listing, Principal, Tool

if TYPE_CHECKING:
    from callgate.gateway.changes import Whose
    from callgate.gateway.house import House

log = logging.getLogger("callgate.gateway")

#: Lists of persons that are kept.
MOST = 2048
#: Lists by what they say that are at hand to be shared.
DIFFERENT = 64
#: Seconds until a person who was not connected, or whose list could not be read, is looked at again.
AGAIN = 5.0
#: Seconds that a list holds: at least, at most, and where its server does not say.
LEAST, LONGEST, USUAL = 30.0, 3600.0, 300.0


class Kept(msgspec.Struct, frozen=True):
    """What a server lists to somebody (``None``: nothing, nobody has signed in), and until when that holds."""

    listing: Listing | None
    until: float


class PersonalLists:
    """What personal servers list to each person. ``prepare`` before a list is shown or a name is looked up."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._kept: OrderedDict[tuple[str, str], Kept] = OrderedDict()
        self._same: OrderedDict[bytes, Listing] = OrderedDict()
        self._flights: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._people: OrderedDict[str, Principal] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    async def prepare(self, who: Principal, door: str, session: str = "") -> None:
        """See to it that this caller is shown what the personal servers behind a door list to it."""
        servers = behind(door, self._house.upstreams.personal())
        if not servers:
            return
        self._remember(who)
        stale = [name for name in servers if not self._holds(who.key, name)]
        if stale:
            await asyncio.gather(*(self._read(who, name) for name in stale))
        await self._show((who.key, session), servers)

    def listing(self, principal: str, server: str) -> Listing | None:
        """What a server listed to somebody, as far as that is known."""
        kept = self._kept.get((principal, server))
        return None if kept is None else kept.listing

    def missing(self, who: Principal, front: Front) -> tuple[str, ...]:
        """The servers behind a door that this caller could sign in to and has not."""
        servers = behind(front.door, self._house.upstreams.personal())
        absent = (name for name in sorted(servers) if self.listing(who.key, name) is None and self._by_sign_in(name))
        return tuple(name for name in absent if self.may(who, name, front))

    def unread(self, who: Principal, server: str) -> bool:
        """Whether a server lists to persons only and it is not known what it lists to this one."""
        return server in self._house.upstreams.personal() and self.listing(who.key, server) is None

    def may(self, who: Principal, server: str, front: Front) -> bool:
        """Whether the policy has anything of this server for somebody, as far as can be said without its list."""
        return bool(self._house.policy.visible(who, [Tool(server, "*", "*", b"{}")], front))

    def connected(self, server: str, user: str) -> None:
        """A user has connected to the server, or is not connected any more: whoever calls for this user (apps, agents)
        is shown another list.
        """
        for who in [each for each in self._people.values() if user_of(each) == user]:
            self.changed(server, who.key)

    def changed(self, server: str, principal: str) -> None:
        """Read the list anew, and tell the clients of this principal."""
        self._kept.pop((principal, server), None)
        who = self._people.get(principal)
        if who is not None and server in self._house.upstreams.personal():
            task = asyncio.create_task(self._again(who, server), name="personal list")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def forget(self, principal: str) -> None:
        """The principal was revoked."""
        self._people.pop(principal, None)
        for key in [key for key in self._kept if key[0] == principal]:
            del self._kept[key]

    def clear(self) -> None:
        """The servers may be others now."""
        self._kept.clear()
        self._same.clear()

    async def aclose(self) -> None:
        tasks = (*self._tasks, *self._flights.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Reading.

    def _holds(self, principal: str, server: str) -> bool:
        kept = self._kept.get((principal, server))
        return kept is not None and kept.until > time.monotonic()

    async def _read(self, who: Principal, server: str) -> None:
        """Read the list once, however many ask for it."""
        key = who.key, server
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.create_task(self._fly(who, server), name="personal list")
            flight.add_done_callback(lambda _: self._flights.pop(key, None))
        await asyncio.shield(flight)

    async def _fly(self, who: Principal, server: str) -> None:
        listing, holds = None, AGAIN
        before = self._kept.get((who.key, server))
        try:
            if not self._by_sign_in(server) or await self._is_connected(who, server):
                listing = await self._shared(await self._house.upstreams.listing_for(server, who))
                hint = listing.ttl_ms / 1000
                holds = min(max(hint, LEAST), LONGEST) if hint > 0 else USUAL
        except CallgateError as error:
            log.info("server %s: what it lists to somebody could not be read: %s", server, error.message)
            listing = before.listing if before is not None and not isinstance(error, ConsentNeeded) else None
        self._kept[who.key, server] = Kept(listing, time.monotonic() + holds)
        self._kept.move_to_end((who.key, server))
        if len(self._kept) > MOST:
            self._kept.popitem(last=False)

    async def _shared(self, listing: Listing) -> Listing:
        """One object for all to whom a server lists the same: there may be thousands, and a list takes a megabyte."""
        digest = await asyncio.to_thread(_digest, listing)
        known = self._same.setdefault(digest, listing)
        self._same.move_to_end(digest)
        if len(self._same) > DIFFERENT:
            self._same.popitem(last=False)
        return known

    def _by_sign_in(self, server: str) -> bool:
        """Whether people have to connect to it with a browser first."""
        config = self._house.settings.servers.get(server)
        return config is not None and config.auth.type == "oauth"

    async def _is_connected(self, who: Principal, server: str) -> bool:
        return any(each.server == server for each in await self._house.connections.connections(user_of(who)))

    # Showing.

    async def _show(self, whose: Whose, servers: Collection[str]) -> None:
        await self._house.overlays.lay_own(whose, {name: self.listing(whose[0], name) for name in servers})

    async def _again(self, who: Principal, server: str) -> None:
        house = self._house
        await self._read(who, server)
        for whose in [(who.key, ""), *((who.key, id) for id in house.sessions.ids_of(who.key))]:
            await self._show(whose, (server,))
            kinds = ("tools", "prompts", "resources")
            doors = frozenset(house.catalog.views)
            house.changes.tell_one(whose, kinds, doors)

    def _remember(self, who: Principal) -> None:
        self._people[who.key] = who
        self._people.move_to_end(who.key)
        if len(self._people) > MOST:
            self._people.popitem(last=False)


def _digest(listing: Listing) -> bytes:
    return hashlib.sha256(msgspec.json.encode(listing)).digest()


def behind(door: str, servers: frozenset[str]) -> frozenset[str]:
    """Those of the servers that may stand behind a door."""
    return servers & {door.removeprefix("server:")} if door.startswith("server:") else servers

"""Links that belong to somebody, for servers whose processes or sessions must not be shared."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from callgate.config.model import Server
from callgate.errors import Overloaded, UpstreamTimeout
from callgate.types import Call, Principal

from .link import Link
from .purpose import Owner

MAX_LINKS = 64  # processes of all owners
MAX_SESSIONS = 1024  # sessions of all owners with an HTTP server
SPARE = 4  # links that one owner may have, when the first one is taken by a call that may be asked
REMEMBERED = 64  # calls whose link is remembered


class Own:
    """One link of an owner. ``making`` is the attempt that all its first calls share, ``alone`` the id of a call
    that must have the link for itself, ``holds`` what it must stay for, each with its end (loop clock), ``whose`` the
    owner as it was recognised for the first call.
    """

    making: asyncio.Task[Link]
    whose: Principal | None = None

    def __init__(self, owner: Owner, born: float) -> None:
        self.owner = owner
        self.born = self.idle_since = born
        self.users = 0
        self.alone: int | None = None
        self.retired = self.ended = False
        self.made: Link | None = None
        self.holds: dict[str, float] = {}
        self.served: deque[int] = deque(maxlen=REMEMBERED)

    @property
    def link(self) -> Link | None:
        if self.made is None and self.making.done() and not self.making.cancelled() and not self.making.exception():
            self.made = self.making.result()
        return self.made

    @property
    def dead(self) -> bool:
        return self.making.done() and (self.link is None or bool(self.link.lost))

    def held(self, now: float) -> bool:
        self.holds = {key: until for key, until in self.holds.items() if until > now}
        return bool(self.holds)


class Isolation:
    """The own links of one server. Idle ones end after ``idle_timeout``; when there are too many, the one that is
    idle for the longest time makes place. ``connect`` makes one; ``common_again`` is called when nothing counts any
    more of what the links of a client session, or of a principal without one, list by themselves.
    """

    def __init__(self, config: Server, connect: Callable[[Own], Coroutine[Any, Any, Link]]) -> None:
        self._config = config
        self._connect = connect
        self._most = MAX_LINKS if config.command else MAX_SESSIONS
        self._loop = asyncio.get_running_loop()
        self._pools: dict[Owner, list[Own]] = {}
        self._retired: set[Own] = set()
        self._announced: dict[tuple[str, str], Own] = {}
        self.common_again: Callable[[str, str], None] = lambda principal, session: None
        self._waiting: dict[Owner, list[asyncio.Future[None]]] = {}
        self._ending: dict[asyncio.Task[None], Own] = {}
        self._reaper: asyncio.TimerHandle | None = None

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(pid for own in (*self._all(), *self._retired) if own.link is not None for pid in own.link.pids)

    def alive(self, owner: Owner) -> bool:
        """Whether the owner has a link that can be used at once."""
        return any(own.link is not None and not own.link.lost for own in self._pools.get(owner, ()))

    def take(self, owner: Owner, call: Call) -> Own | None:
        """The owner's usual link, if it is there and this call may share it; needs a ``leave``."""
        pool = self._pools.get(owner)
        if not pool or call.method != "tools/call":
            return None
        own = pool[0]
        if own.made is None or own.made.lost or own.alone is not None or self._too_old(own, self._loop.time()):
            return None
        own.users += 1
        own.served.append(call.id)
        return own

    async def enter(self, owner: Owner, call: Call, alone: bool, deadline: float) -> Own:
        """A link of the owner, made now if there is none. Every ``enter`` that returns needs a ``leave``.

        ``alone``: no other call may run on the link meanwhile. A call about something that a link is held for gets
        that link.
        """
        while (own := self._find(owner, call, alone)) is None:
            await self._freed(owner, deadline)
        own.users += 1
        own.served.append(call.id)
        if alone and own.users == 1:
            own.alone = call.id
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.shield(own.making)
        except BaseException as error:
            self.leave(own, call)
            if isinstance(error, TimeoutError):
                raise UpstreamTimeout("did not start in time") from None
            raise
        return own

    def leave(self, own: Own, call: Call) -> None:
        own.users -= 1
        if own.alone == call.id:
            own.alone = None
        own.idle_since = self._loop.time()
        if own.retired and not own.users:
            self._end(own)
        for waiter in self._waiting.pop(own.owner, ()) if self._waiting else ():
            if not waiter.done():
                waiter.set_result(None)
        if self._reaper is None:
            self._reaper = self._loop.call_later(self._config.idle_timeout, self._reap)

    def hold(self, owner: Owner, call: Call, key: str, seconds: float) -> None:
        """Keep the link that ``call`` took for ``seconds`` (0: no longer) because of ``key``."""
        pool = self._pools.get(owner, [])
        own = next((own for own in pool if key in own.holds or call.id in own.served), pool[0] if pool else None)
        if own is not None:
            own.holds[key] = self._loop.time() + seconds

    def links(self, principal: str, session: str) -> tuple[Link, ...]:
        """The links of one client session."""
        mine = (own for own in self._all() if (own.owner.principal, own.owner.session) == (principal, session))
        return tuple(own.link for own in mine if own.link is not None and not own.link.lost)

    # Lists of their own.

    def announced(self, own: Own) -> None:
        """The link lists something else now.

        A principal may have several links (spare ones, and one for each set of capabilities of its clients), and its
        list must not depend on which of them a request meets: the newest announcement wins.
        """
        if not own.retired:
            self._announced[own.owner.principal, own.owner.session] = own

    def lister(self, principal: str, session: str) -> Own | None:
        """The link that lists for this client session, or for the principal without one, where that is an own one."""
        own = self._announced.get((principal, session))
        return None if own is None or own.dead else own

    def unlist(self, own: Own) -> None:
        """The link has ended, or its server has begun anew: what it announced no longer counts."""
        whose = own.owner.principal, own.owner.session
        if self._announced.get(whose) is own:
            del self._announced[whose]
            self.common_again(*whose)

    def unlist_all(self) -> None:
        for own in tuple(self._announced.values()):
            self.unlist(own)

    def forget(self, session: str) -> None:
        """A client session has ended: its links end, those in use with their last call."""
        for own in [own for own in self._all() if own.owner.session == session]:
            self._retire(own)

    def revoked(self, principal: str) -> None:
        """Its links end at once. Nothing is said to the server any more, because that would be in its name."""
        for own in [own for own in (*self._all(), *self._retired) if own.owner.principal == principal]:
            if own.link is not None:
                own.link.lost = own.link.lost or "was used by somebody whose access was revoked"
            self._retire(own)

    async def aclose(self) -> None:
        if self._reaper is not None:
            self._reaper.cancel()
        for own in (*self._all(), *self._retired):
            self._end(own)
        while self._ending:
            await asyncio.wait(self._ending)

    # Finding one.

    def _all(self) -> Iterator[Own]:
        return (own for pool in tuple(self._pools.values()) for own in tuple(pool))

    def _find(self, owner: Owner, call: Call, alone: bool) -> Own | None:
        now = self._loop.time()
        for own in tuple(self._pools.get(owner, ())):
            if own.dead or self._too_old(own, now):
                self._retire(own)
        pool = self._pools.get(owner, [])
        if call.method.startswith("tasks/"):
            task = call.params.get("taskId")
            for own in pool:
                if task in own.holds:
                    return own
        for own in pool:
            if own.alone is None and not (alone and own.users):
                return own
        if len(pool) >= SPARE or not self._make_room(owner, now):
            return None
        own = Own(owner, now)
        own.whose = call.principal
        own.making = asyncio.create_task(self._connect(own))
        self._pools.setdefault(owner, []).append(own)
        return own

    def _too_old(self, own: Own, now: float) -> bool:
        most = self._config.max_lifetime
        return most is not None and own.born <= now - most and not own.held(now)

    async def _freed(self, owner: Owner, deadline: float) -> None:
        """Wait until a call has left a link of the owner."""
        turn: asyncio.Future[None] = self._loop.create_future()
        self._waiting.setdefault(owner, []).append(turn)
        try:
            async with asyncio.timeout_at(deadline):
                await turn
        except TimeoutError:
            raise UpstreamTimeout("had no free process in time") from None

    def _make_room(self, owner: Owner, now: float) -> bool:
        """End idle links until one more may be made; false when the owner has to wait for its own links.

        A process takes a while to end, and a client can end its sessions as fast as it opens them: as many links as
        there may be may also be on their way out.
        """
        everybody = list(self._all())
        leaving = [own.owner.principal for own in (*self._retired, *self._ending.values())]
        mine = [own for own in everybody if own.owner.principal == owner.principal]
        for crowd, most, whose in (
            (mine, self._config.max_links_per_principal, "you already have"),
            (everybody, self._most, "callers already have"),
        ):
            gone = len(leaving) if crowd is everybody else leaving.count(owner.principal)
            if gone >= most:
                raise Overloaded(_crowded(most, whose))
            if len(crowd) < most:
                continue
            idle = [own for own in crowd if not own.users and not own.held(now)]
            if idle:
                self._retire(min(idle, key=lambda own: own.idle_since))
            elif self._pools.get(owner):
                return False
            else:
                raise Overloaded(_crowded(most, whose))
        return True

    # Ending one.

    def _reap(self) -> None:
        self._reaper = None
        now = self._loop.time()
        for own in self._all():
            if not own.users and (
                own.dead or (own.idle_since <= now - self._config.idle_timeout and not own.held(now))
            ):
                self._retire(own)
        if self._pools:
            self._reaper = self._loop.call_later(self._config.idle_timeout / 4, self._reap)

    def _retire(self, own: Own) -> None:
        """Give it to nobody any more, and end it with its last call."""
        pool = self._pools.get(own.owner, [])
        if own in pool:
            pool.remove(own)
        if not pool:
            self._pools.pop(own.owner, None)
        own.retired = True
        self.unlist(own)
        if own.users and not own.dead:
            self._retired.add(own)
        else:
            self._end(own)

    def _end(self, own: Own) -> None:
        self._retired.discard(own)
        if own.ended:
            return
        own.ended = True
        self.unlist(own)
        pool = self._pools.get(own.owner, [])
        if own in pool:
            pool.remove(own)
        task = asyncio.create_task(_close(own))
        self._ending[task] = own
        task.add_done_callback(self._ending.pop)


def _crowded(most: int, whose: str) -> str:
    if whose == "you already have":
        return f"is busy: {whose} {most} processes or sessions of your own"
    return f"is busy: {most} {whose} a process or session of their own"


async def _close(own: Own) -> None:
    own.making.cancel()
    await asyncio.wait({own.making})
    if own.link is not None:
        await own.link.aclose()

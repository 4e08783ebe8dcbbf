"""Links of single principals, for servers whose processes or sessions must not be shared."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from callgate.config.model import Server
from callgate.errors import Overloaded, UpstreamTimeout

from .link import Connector, Link, nobody

MAX_LINKS = 64


class Own:
    """The link of one principal. ``making`` is the attempt that all its first calls share."""

    def __init__(self, making: asyncio.Task[Link]) -> None:
        self.making = making
        self.users = 0
        self.idle_since = 0.0

    @property
    def link(self) -> Link | None:
        made = self.making.done() and not self.making.cancelled() and self.making.exception() is None
        return self.making.result() if made else None


class Isolation:
    """At most ``MAX_LINKS`` links. One that is idle for ``idle_timeout`` ends; when there are too many, the one
    that is idle for the longest time makes place.
    """

    def __init__(self, config: Server, connector: Connector) -> None:
        self._config = config
        self._connector = connector
        self._loop = asyncio.get_running_loop()
        self._links: dict[str, Own] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._reaper: asyncio.TimerHandle | None = None

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(pid for own in self._links.values() if own.link is not None for pid in own.link.pids)

    async def enter(self, key: str, deadline: float) -> Own:
        """The principal's link, made now if there is none. Every ``enter`` that returns needs a ``leave``."""
        own = self._links.get(key)
        if own is None or _dead(own):
            if own is not None:
                self._end(key, own)
            self._make_room()
            own = self._links[key] = Own(asyncio.create_task(self._connector.connect(nobody)))
        own.users += 1
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.shield(own.making)
        except BaseException as error:
            self.leave(own)
            if isinstance(error, TimeoutError):
                raise UpstreamTimeout("did not start in time") from None
            raise
        return own

    def leave(self, own: Own) -> None:
        own.users -= 1
        own.idle_since = self._loop.time()
        if self._reaper is None:
            self._reaper = self._loop.call_later(self._config.idle_timeout, self._reap)

    async def aclose(self) -> None:
        if self._reaper is not None:
            self._reaper.cancel()
        for key, own in tuple(self._links.items()):
            self._end(key, own)
        while self._ending:
            await asyncio.wait(self._ending)

    def _make_room(self) -> None:
        if len(self._links) < MAX_LINKS:
            return
        idle = [(own.idle_since, key) for key, own in self._links.items() if not own.users]
        if not idle:
            raise Overloaded(f"is busy: {MAX_LINKS} callers already have a process or session of their own")
        key = min(idle)[1]
        self._end(key, self._links[key])

    def _reap(self) -> None:
        self._reaper = None
        long_ago = self._loop.time() - self._config.idle_timeout
        for key, own in tuple(self._links.items()):
            if not own.users and (own.idle_since <= long_ago or _dead(own)):
                self._end(key, own)
        if self._links:
            self._reaper = self._loop.call_later(self._config.idle_timeout / 4, self._reap)

    def _end(self, key: str, own: Own) -> None:
        if self._links.get(key) is own:
            del self._links[key]
        self._end_later(_close(own))

    def _end_later(self, ending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(ending)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def _dead(own: Own) -> bool:
    return own.making.done() and (own.link is None or bool(own.link.lost))


async def _close(own: Own) -> None:
    own.making.cancel()
    await asyncio.wait({own.making})
    if own.link is not None:
        await own.link.aclose()

"""What a server was asked to tell of: ``subscriptions/listen`` held at modern ones, ``resources/subscribe`` at others.

A filter cannot be changed, so a stream with another one is opened when the wishes change, and the old one is closed
when the new one is acknowledged: nothing that happens in between is lost.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from callgate.errors import CallgateError, UpstreamError, UpstreamTimeout
from callgate.types import Answer

from .link import Hello
from .wire import HOP, METHOD_NOT_FOUND, Envelope, params_of

#: The lists whose changes a server may announce, and the members of the filter.
LISTS = {"tools": "toolsListChanged", "prompts": "promptsListChanged", "resources": "resourcesListChanged"}
URIS = "resourceSubscriptions"
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
UPDATED = "notifications/resources/updated"
BACKOFF = (0.5, 60.0)
GATHER = 0.02  # wishes of this time (seconds) go into one filter
SUBSCRIPTION = f"{HOP}subscriptionId"
PATIENCE = 30.0  # seconds in which a stream must be acknowledged
STABLE = 30.0  # a stream that lived this long did not fail

log = logging.getLogger("callgate.upstream")

Hear = Callable[[str, Mapping[str, Any]], None]
Filter = dict[str, Any]


@runtime_checkable
class Ears(Protocol):
    """A link to a modern server, as far as it listens."""

    hello: Hello
    lost: str

    async def listen(self, wanted: Mapping[str, Any], hear: Hear) -> Answer:
        """One ``subscriptions/listen``, as long as it lasts. ``hear`` gets what comes on it, the acknowledgement first;
        giving up ends it at the server.
        """


class Stream:
    """One ``subscriptions/listen``. ``covered`` are the URIs that the server agreed to, ``refused`` those it did not;
    ``unknown`` says that it does not know the method.
    """

    def __init__(self, link: Ears, wanted: Filter, hear: Hear) -> None:
        self.wanted = wanted
        self.covered: frozenset[str] = frozenset()
        self.refused: frozenset[str] = frozenset()
        self.unknown = False
        self.since = asyncio.get_running_loop().time()
        self._hear = hear
        self._acknowledged = asyncio.Event()
        self.task = asyncio.create_task(self._run(link), name="upstream listen")

    async def begun(self) -> bool:
        """Whether the server acknowledged it."""
        waiting = asyncio.create_task(self._acknowledged.wait())
        try:
            await asyncio.wait({waiting, self.task}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        return self._acknowledged.is_set()

    def close(self) -> None:
        self._hear = deaf
        self.task.cancel()

    async def _run(self, link: Ears) -> None:
        try:
            said = await link.listen(self.wanted, self._heard)
            self.unknown = said.error is not None and said.error.code == METHOD_NOT_FOUND
        except CallgateError as error:
            log.debug("a subscription ended: %s", error.message)

    def _heard(self, method: str, params: Mapping[str, Any]) -> None:
        if method == ACKNOWLEDGED:
            honoured = params.get("notifications")
            uris = honoured.get(URIS) if isinstance(honoured, dict) else None
            asked = frozenset(self.wanted.get(URIS, ()))
            self.covered = asked & frozenset(each for each in uris or () if isinstance(each, str))
            self.refused = asked - self.covered
            self._acknowledged.set()
        elif self._acknowledged.is_set():
            self._hear(method, params)


class Listening:
    """What one modern server is to tell of, for everybody who shares its link. ``hear`` gets what it tells."""

    def __init__(self, hear: Hear) -> None:
        self._hear = hear
        self._wanted: Counter[str] = Counter()
        self._denied: frozenset[str] = frozenset()
        self._changed = asyncio.Event()
        self._stream: Stream | None = None
        self._rounds: set[asyncio.Future[None]] = set()
        self.unknown = False

    async def add(self, uri: str, deadline: float) -> None:
        """Returns when the server tells of this resource. Every ``add`` that returns needs a ``drop``."""
        self._wanted[uri] += 1
        try:
            async with asyncio.timeout_at(deadline):
                await self._covered(uri)
        except BaseException as error:
            self.drop(uri)
            if isinstance(error, TimeoutError):
                raise UpstreamTimeout("did not acknowledge the subscription in time") from None
            raise

    async def settled(self, timeout: float) -> None:
        """Wait until the wishes of now are agreed to or refused, but not longer than ``timeout`` seconds."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._rounds.add(turn)
        try:
            await asyncio.wait({turn}, timeout=timeout)
        finally:
            self._rounds.discard(turn)

    def drop(self, uri: str) -> None:
        self._wanted[uri] -= 1
        if self._wanted[uri] <= 0:
            del self._wanted[uri]
            self._changed.set()

    async def _covered(self, uri: str) -> None:
        self._denied -= {uri}
        while self._stream is None or uri not in self._stream.covered:
            if self.unknown:
                raise UpstreamError("offers no subscriptions")
            if uri in self._denied or (self._stream is not None and uri in self._stream.refused):
                raise UpstreamError("does not tell of changes of this resource")
            self._changed.set()
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._rounds.add(turn)
            try:
                await turn
            finally:
                self._rounds.discard(turn)

    async def hold(self, link: Ears) -> None:
        """Listen as long as this link is used; cancel it then. A server that knows no ``subscriptions/listen`` is not
        asked again.
        """
        pause, missed = BACKOFF[0], False
        try:
            while not self.unknown and not link.lost:
                if not await self._renew(link):
                    missed = missed or self._stream is None
                    await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                    pause = min(pause * 2, BACKOFF[1])
                    continue
                if missed and self._stream is not None:
                    self._tell_missed(self._stream)
                    missed = False
                if not await self._wait():
                    missed = True
                    pause = await self._rest(pause)
        finally:
            self._take(None)
            self._settle()

    async def _renew(self, link: Ears) -> bool:
        """A stream with the filter of now, when that is another one; false when the server does not agree."""
        self._changed.clear()
        wanted = self._filter(link)
        if self._stream is not None and self._stream.wanted == wanted:
            return True
        if not wanted:
            self._take(None)
            self._settle()
            return True
        fresh = Stream(link, wanted, self._hear)
        try:
            begun = await fresh.begun()
        except BaseException:
            fresh.close()
            raise
        if begun:
            self._take(fresh)
            self._denied = frozenset()
        else:
            self.unknown = fresh.unknown
            self._denied = frozenset(wanted.get(URIS, ()))
            fresh.close()
        self._settle()
        return begun

    async def _wait(self) -> bool:
        """Wait for other wishes; false when the stream has ended."""
        change = asyncio.create_task(self._changed.wait())
        stream = self._stream
        try:
            await asyncio.wait({change, stream.task} if stream else {change}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            change.cancel()
        if stream is not None and stream.task.done():
            return False
        await asyncio.sleep(GATHER)
        return True

    async def _rest(self, pause: float) -> float:
        """After the end of a stream; returns the pause after the next failure."""
        lived = asyncio.get_running_loop().time() - self._stream.since if self._stream is not None else 0.0
        self._take(None)
        if lived > STABLE:
            pause = BACKOFF[0]
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))
        return min(pause * 2, BACKOFF[1])

    def _filter(self, link: Ears) -> Filter:
        wanted: Filter = {}
        for kind, member in LISTS.items():
            offered = link.hello.capabilities.get(kind)
            if isinstance(offered, dict) and offered.get("listChanged") is True:
                wanted[member] = True
        if self._wanted:
            wanted[URIS] = sorted(self._wanted)
        return wanted

    def _take(self, stream: Stream | None) -> None:
        old, self._stream = self._stream, stream
        if old is not None:
            old.close()

    def _settle(self) -> None:
        for turn in self._rounds:
            if not turn.done():
                turn.set_result(None)

    def _tell_missed(self, stream: Stream) -> None:
        """What happened while nobody listened is not told again, so everything may have changed (rule SUB-11)."""
        for kind, member in LISTS.items():
            if member in stream.wanted:
                self._hear(f"notifications/{kind}/list_changed", {})
        for uri in stream.covered:
            self._hear(UPDATED, {"uri": uri})


def deaf(method: str, params: Mapping[str, Any]) -> None:
    """What still comes on a stream that was closed."""


def subscription_of(message: Envelope) -> int:
    """The id of the ``subscriptions/listen`` that a notification belongs to, -1 for none."""
    meta = params_of(message).get("_meta")
    ident = meta.get(SUBSCRIPTION) if isinstance(meta, dict) else None
    return ident if isinstance(ident, int) else -1

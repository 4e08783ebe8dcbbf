"""One server under supervision: connect, list, keep fresh, and try again when it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import Callable
from typing import Literal

import msgspec

from callgate.config.model import Server as Config
from callgate.errors import CallgateError, UpstreamTimeout, UpstreamUnavailable
from callgate.types import Answer, Call, Era, Listing, ServerStatus

from .bulkhead import Bulkhead
from .isolation import Isolation
from .link import Connector, Link
from .listing import read_listing
from .relay import Emit

BACKOFF = (0.5, 60.0)
POLL = 300.0
TTL = (30.0, 3600.0)
KNOCK = 1.0  # a call to a failed server starts an attempt at most this often, in seconds
log = logging.getLogger("callgate.upstream")

DRAIN = 5.0  # running calls may end in this time when a server is removed

_STABLE = 30.0  # a link that lived this long was no failed start


class Supervisor:
    """Owns the links to one server and the task that keeps them.

    ``starting`` until the first attempt ends; ``ready`` with a link and a list; ``failed`` while waiting to try
    again. Calls use the link that is there; they never wait for a list.
    """

    def __init__(
        self,
        name: str,
        config: Config,
        connector: Connector,
        on_listing: Callable[[Listing], None],
        on_status: Callable[[ServerStatus], None],
    ) -> None:
        self.name = name
        self.config = config
        self._connector = connector
        self._on_listing = on_listing
        self._on_status = on_status
        self._loop = asyncio.get_running_loop()
        self._bulkhead = Bulkhead(config.max_concurrency, config.max_queue)
        self._isolation = Isolation(config, connector) if config.isolation == "principal" else None
        self._link: Link | None = None
        self._news = asyncio.Event()
        self._tried = asyncio.Event()
        self._knock = asyncio.Event()
        self._knocked = -math.inf
        self._closing = False
        self._status = ServerStatus(name, "starting", "stdio" if config.command else "http")
        self._reason = ""
        self._restarts = 0
        self._tools = 0
        self._fresh_until = 0.0
        self._on_status(self._status)
        self._task = asyncio.create_task(self._supervise(), name=f"upstream {name}")

    # Calls.

    async def send(self, call: Call, emit: Emit | None) -> Answer:
        """Exactly one request to the server, under the bulkhead and the call's deadline."""
        bulkhead = self._bulkhead
        deadline = self._loop.time() + self.config.call_timeout
        try:
            if bulkhead.running >= self.config.max_concurrency:
                await bulkhead.wait(deadline)
            else:
                bulkhead.running += 1
            try:
                link = self._link
                if link is None or self._isolation is not None:
                    return await self._send_slowly(call, emit, deadline)
                return await link.call(call, emit, deadline)
            finally:
                bulkhead.leave()
        except CallgateError as error:
            raise self._named(error) from None

    async def _send_slowly(self, call: Call, emit: Emit | None, deadline: float) -> Answer:
        if self._link is None:
            await self._reachable(deadline)
        if self._isolation is not None:
            own = await self._isolation.enter(call.principal.key, deadline)
            try:
                return await own.making.result().call(call, emit, deadline)
            finally:
                self._isolation.leave(own)
        if self._link is None:
            raise UpstreamUnavailable(self._why())
        return await self._link.call(call, emit, deadline)

    async def _reachable(self, deadline: float) -> None:
        """Wait for the first attempt, or start one if the last one failed more than a second ago."""
        if self._status.state == "failed":
            now = self._loop.time()
            if now - self._knocked < KNOCK:
                raise UpstreamUnavailable(self._why())
            self._knocked = now
            self._tried.clear()
            self._knock.set()
        try:
            async with asyncio.timeout_at(deadline):
                await self._tried.wait()
        except TimeoutError:
            raise UpstreamTimeout("did not start in time") from None
        if self._link is None:
            raise UpstreamUnavailable(self._why())

    def _why(self) -> str:
        return f"is not available: {self._reason}" if self._reason else "is not available"

    def _named(self, error: CallgateError) -> CallgateError:
        return type(error)(f"Server `{self.name}` {error.message.rstrip('.')}.", hint=error.hint, data=error.data)

    # Status.

    def status(self) -> ServerStatus:
        """How the server is doing at this moment."""
        link = self._link
        own = self._isolation.pids if self._isolation is not None else ()
        era: Era | None = link.hello.era if link else self._status.era
        return ServerStatus(
            name=self.name,
            state=self._status.state,
            transport=self._status.transport,
            reason=self._reason,
            era=era,
            version=link.hello.version if link else self._status.version,
            pids=(link.pids if link else ()) + own,
            in_flight=self._bulkhead.running,
            restarts=self._restarts,
            tools=self._tools,
        )

    async def settled(self) -> bool:
        """Wait until the current attempt has ended; whether the server is ready."""
        await self._tried.wait()
        return self._link is not None

    def _turn(self, state: Literal["ready", "failed"], reason: str = "") -> None:
        self._reason = reason
        self._status = msgspec.structs.replace(self.status(), state=state)
        self._on_status(self._status)

    # The supervising task.

    async def _supervise(self) -> None:
        pause = BACKOFF[0]
        while True:
            began = self._loop.time()
            reason = await self._attend()
            if self._loop.time() - began > _STABLE:
                pause = BACKOFF[0]
            self._restarts += 1
            self._turn("failed", reason)
            self._tried.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause * random.uniform(0.5, 1.0)):
                    await self._knock.wait()
            self._knock.clear()
            pause = min(pause * 2, BACKOFF[1])

    async def _attend(self) -> str:
        """Connect, list and keep fresh until the server is lost; returns why."""
        link: Link | None = None
        try:
            async with asyncio.timeout(self.config.connect_timeout * 2):
                link = await self._connector.connect(self._news.set)
                await self._list(link)
            self._link = link
            self._turn("ready")
            self._tried.set()
            await self._keep_fresh(link)
            return link.lost
        except (TimeoutError, UpstreamTimeout) as error:
            what = str(error) or "did not get ready in time"
            return f"{what} (connect_timeout is {self.config.connect_timeout:g} s)"
        except CallgateError as error:
            return error.message
        except Exception:
            # A mistake of our own must not end the supervision of a server.
            log.exception("upstream %s", self.name)
            return "failed for a reason that is in the log of callgate"
        finally:
            self._link = None
            if link is not None:
                await link.aclose()

    async def _list(self, link: Link) -> Listing:
        link.stale = False
        deadline = self._loop.time() + self.config.connect_timeout
        listing = await read_listing(self.name, link, deadline)
        self._tools = len(listing.tools)
        if not self._closing:  # one that only drains has a successor, whose list counts
            self._on_listing(listing)
        self._fresh_until = self._loop.time() + _lifetime(listing) * random.uniform(0.9, 1.0)
        return listing

    async def _keep_fresh(self, link: Link) -> None:
        while True:
            if link.lost:
                return
            if link.stale or self._loop.time() >= self._fresh_until:
                await self._list_again(link)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._fresh_until):
                    await self._news.wait()
            self._news.clear()

    async def _list_again(self, link: Link) -> None:
        """A list that cannot be read does not end a link that works: the old one stays, and the next try waits."""
        try:
            await self._list(link)
            self._reason = ""
        except CallgateError as error:
            self._fresh_until = self._loop.time() + TTL[0]
            self._reason = f"could not be listed again: {error.message}"
            self._on_status(self.status())

    async def aclose(self) -> None:
        """Let running calls end for a short time, then end everything."""
        if self._closing:
            return
        self._closing = True
        if self._link is None:
            self._reason = "is being removed"
            self._tried.set()  # calls that wait for the start need wait no longer
        until = self._loop.time() + DRAIN
        while self._bulkhead.running and self._loop.time() < until:
            await asyncio.sleep(0.02)
        self._task.cancel()
        await asyncio.wait({self._task})
        if self._isolation is not None:
            await self._isolation.aclose()
        await self._connector.aclose()


def _lifetime(listing: Listing) -> float:
    """Seconds until the list is read again: the server's hint within bounds, else a slow poll."""
    if listing.ttl_ms > 0:
        return min(max(listing.ttl_ms / 1000, TTL[0]), TTL[1])
    return POLL

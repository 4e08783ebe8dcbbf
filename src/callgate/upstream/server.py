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
from callgate.errors import CallgateError, ConsentNeeded, UpstreamTimeout, UpstreamUnavailable
from callgate.types import Answer, Call, Conduct, Era, Listing, Principal, ServerStatus

from .bulkhead import Bulkhead
from .link import Connector, Link
from .listing import read_listing
from .masking import Mask
from .purpose import Ears, Owner, Purpose
from .watching import Watching
from .ways import Ways

BACKOFF = (0.5, 60.0)
POLL = 300.0
TTL = (30.0, 3600.0)
CALM = 0.1  # seconds between two lists of a server that announces changes all the time
STRANGE = 3600.0  # a server that lists nothing to callgate itself is asked again after this time
KNOCK = 1.0  # a call to a failed server starts an attempt at most this often, in seconds
log = logging.getLogger("callgate.upstream")

DRAIN = 5.0  # running calls may end in this time when a server is removed

PERSONAL = "lists its tools to each person who has signed in to it"

_STABLE = 30.0  # a link that lived this long was no failed start


class Supervisor:
    """Owns the links to one server and the task that keeps them.

    ``starting`` until the first attempt ends; ``ready`` with a link and a list; ``failed`` while waiting to try
    again. Calls use the link that is there; they never wait for a list. A server is ``personal`` that shows nothing to
    callgate itself: there is no common link then, everybody has own ones, and lists (``listing_for``).
    """

    personal = _refused = False

    def __init__(
        self,
        name: str,
        config: Config,
        connector: Connector,
        ears: Ears,
        mask: Mask,
    ) -> None:
        self.name = name
        self._mask = mask
        self.config = config
        self._connector = connector
        self._on_listing = ears.listing
        self._on_status = ears.status
        self._loop = asyncio.get_running_loop()
        self._bulkhead = Bulkhead(config.max_concurrency, config.max_queue)
        self.ways = Ways(name, config, connector, self._bulkhead, ears)
        self.ways.stale = self._list_is_stale
        self.watching = Watching(self.ways, self.send, self._reachable)
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

    async def send(self, call: Call, conduct: Conduct) -> Answer:
        """Exactly one request to the server, under the bulkhead and the call's deadline."""
        bulkhead = self._bulkhead
        deadline = self._loop.time() + self.config.call_timeout
        try:
            if bulkhead.running >= self.config.max_concurrency:
                await bulkhead.wait(deadline)
            else:
                bulkhead.running += 1
            try:
                link, front = self._link, call.front
                if link is None or not self.ways.common or (front.capabilities and front.era == "legacy"):
                    answer = await self._send_slowly(call, conduct, deadline)
                else:
                    answer = await link.call(call, conduct, deadline)
                return answer if answer.error is None else self._mask.answer(answer)
            finally:
                bulkhead.leave()
        except CallgateError as error:
            raise self._named(error) from None

    async def _send_slowly(self, call: Call, conduct: Conduct, deadline: float) -> Answer:
        if self._link is None:
            owner = self.ways.owner(call)
            if owner is None or not self.ways.isolation.alive(owner):
                await self._reachable(deadline)
        if self.personal and self.ways.era is None:
            await (await self._link_as(call.principal)).aclose()
        for mirrors in (True, False):
            if (owner := self.ways.owner(call, mirrors)) is None:
                break
            answer = await self.ways.send(owner, call, conduct, deadline)
            if answer is not None:
                return answer
        if self._link is None:
            raise UpstreamUnavailable(self._why())
        return await self._link.call(call, conduct, deadline)

    async def settle_era(self, call: Call) -> Era | None:
        """The era of the link that the call takes, for certain."""
        deadline = self._loop.time() + self.config.call_timeout
        try:
            if self.ways.era is None:
                await self._reachable(deadline)
            if self.personal and self.ways.era is None:
                await (await self._link_as(call.principal)).aclose()
            return await self.ways.settle(call, deadline)
        except CallgateError as error:
            raise self._named(error) from None

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
        if self._link is None and not self.personal:
            raise UpstreamUnavailable(self._why())

    def _why(self) -> str:
        return f"is not available: {self._reason}" if self._reason else "is not available"

    def _named(self, error: CallgateError) -> CallgateError:
        message = self._mask.text(error.message.rstrip("."))
        return error.again(f"Server `{self.name}` {message}.", self._mask.value(error.data))

    async def watch(self, call: Call, conduct: Conduct) -> Answer:
        """``resources/subscribe``, in the way of the server's era."""
        try:
            return await self.watching.begin(call, conduct, self._loop.time() + self.config.call_timeout)
        except CallgateError as error:
            raise error if error.message.startswith("Server `") else self._named(error) from None

    # Those to whom it shows itself.

    async def listing_for(self, who: Principal) -> Listing:
        """What a personal server lists to this principal; raises ConsentNeeded before it has agreed."""
        try:
            link = await self._link_as(who)
            try:
                return await read_listing(self.name, link, self._loop.time() + self.config.connect_timeout)
            finally:
                await link.aclose()
        except CallgateError as error:
            raise self._named(error) from None

    async def _link_as(self, who: Principal) -> Link:
        """A link for this principal that nobody else uses. What it finds out about the era holds for all."""
        owner = Owner(who.key, "", self.ways.era or "modern")
        link = await self._connector.connect(Purpose(self._bulkhead, owner=owner, whose=who, listens=False))
        self.ways.learn(link, shared=False)
        return link

    # Status.

    def status(self) -> ServerStatus:
        """How the server is doing at this moment."""
        link = self._link
        era: Era | None = link.hello.era if link else self._status.era
        return ServerStatus(
            name=self.name,
            state=self._status.state,
            transport=self._status.transport,
            reason=self._reason,
            era=era,
            version=link.hello.version if link else self._status.version,
            pids=(link.pids if link else ()) + self.ways.isolation.pids,
            in_flight=self._bulkhead.running,
            restarts=self._restarts,
            tools=self._tools,
        )

    async def settled(self) -> bool:
        """Wait until the current attempt has ended; whether the server is ready."""
        await self._tried.wait()
        return self._link is not None or self.personal

    def _turn(self, state: Literal["ready", "failed"], reason: str = "") -> None:
        self._reason = self._mask.text(reason)
        self._status = msgspec.structs.replace(self.status(), state=state)
        self._on_status(self._status)

    # The supervising task.

    async def _supervise(self) -> None:
        pause = BACKOFF[0]
        while True:
            began = self._loop.time()
            self._refused = False
            reason = await self._attend()
            self.personal = self._refused
            if self.personal:
                await self._stay_personal()
                continue
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
                link = await self._connector.connect(
                    Purpose(
                        self._bulkhead,
                        notice=self._news.set,
                        news=self.ways.common_news,
                        renewed=lambda: self.ways.renewed(None),
                    )
                )
                await self.watching.linked(link, self._staling(link))
                await self._list(link)
            self._link = link
            self.personal = False
            self.ways.learn(link)
            self._turn("ready")
            self._tried.set()
            await self._keep_fresh(link)
            return link.lost
        except (TimeoutError, UpstreamTimeout) as error:
            what = str(error) or "did not get ready in time"
            return f"{what} (connect_timeout is {self.config.connect_timeout:g} s)"
        except ConsentNeeded:
            return self._refused_itself(link)
        except CallgateError as error:
            return error.message
        except Exception:
            # A mistake of our own must not end the supervision of a server.
            log.exception("upstream %s", self.name)
            return "failed for a reason that is in the log of callgate"
        finally:
            self._link = None
            self.watching.unlinked()
            if link is not None:
                await link.aclose()

    def _refused_itself(self, link: Link | None) -> str:
        """The server shows nothing to callgate itself; what a link found out about it holds all the same."""
        self._refused = self.personal = True
        if link is not None:
            self.ways.learn(link, shared=False)
        return PERSONAL

    async def _stay_personal(self) -> None:
        """There is nothing to list but to persons; from time to time it is looked whether that has changed."""
        self._tools = 0
        self._turn("ready", PERSONAL)
        self._tried.set()
        if not self._closing:
            self._on_listing(Listing(self.name, (), self.ways.era or "modern", ""))
        await asyncio.sleep(STRANGE * random.uniform(0.9, 1.0))

    def _staling(self, link: Link) -> Callable[[], None]:
        def stale() -> None:
            link.stale = True
            self._news.set()

        return stale

    def _list_is_stale(self) -> None:
        """An own link announced another list; the link that lists reads it."""
        if self._link is not None:
            self._link.stale = True
            self._news.set()

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
        calm = 0.0
        while True:
            if link.lost:
                return
            if link.stale or self._loop.time() >= self._fresh_until:
                await asyncio.sleep(calm - self._loop.time())
                calm = self._loop.time() + CALM
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
            self._reason = self._mask.text(f"could not be listed again: {error.message}")
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
        await self.watching.aclose()
        await self.ways.isolation.aclose()
        await self._connector.aclose()


def _lifetime(listing: Listing) -> float:
    """Seconds until the list is read again: the server's hint within bounds, else a slow poll."""
    if listing.ttl_ms > 0:
        return min(max(listing.ttl_ms / 1000, TTL[0]), TTL[1])
    return POLL

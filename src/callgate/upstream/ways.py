"""Which link a call takes: the one that everybody shares, or one that belongs to the caller."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from callgate.config.model import Server
from callgate.errors import CallgateError, ConsentNeeded, Overloaded, UpstreamTimeout
from callgate.types import Answer, Call, Conduct, Era, News, Question

from .bulkhead import Bulkhead
from .capabilities import decoded, for_legacy, mirrored
from .isolation import Isolation, Own
from .link import Connector, Link, NotLegacy
from .purpose import Ears, Owner, Purpose
from .wire import LIST_CHANGED

_HINT = "Callers have processes or sessions of their own. If the server can run only once, set `isolation: shared`."

log = logging.getLogger("callgate.upstream")

AGAIN = 60.0  # seconds until a modern server that failed to open a legacy session is tried again
TOLD = frozenset({"notifications/roots/list_changed", "notifications/progress"})

# What a shared link may say to everybody who is interested; the rest would reach a guess.
_COMMON_NEWS = LIST_CHANGED | {"notifications/resources/updated", "notifications/tasks/status", "notifications/tasks"}


class Ways:
    """The ways to one server. ``learn`` tells what the link that lists found out; ``stale`` is called when an own
    link announces another list, ``renewed`` when the server has begun another session for a link.

    A legacy client that servers may ask something takes a legacy link of its own, also to a server that is modern
    otherwise, because servers ask differently in each era. Servers that refuse are remembered; one that is too slow is
    not, because a busy machine is no refusal: only that call goes the other way.
    """

    def __init__(self, name: str, config: Server, connector: Connector, floor: Bulkhead, ears: Ears) -> None:
        self._name = name
        self._config = config
        self._connector = connector
        self._floor = floor
        self._ears = ears
        self._loop = asyncio.get_running_loop()
        self._no_mirror_until = -math.inf if config.protocol == "auto" else math.inf
        self.isolation = Isolation(config, self._connect)
        self.isolation.common_again = lambda principal, session: ears.common_again(name, principal, session)
        self.stale: Callable[[], None] = lambda: None
        self.renewed: Callable[[Owner | None], None] = lambda owner: None
        self.era: Era | None = None
        self._guesses = False
        self.common = config.isolation == "shared"

    def learn(self, link: Link, shared: bool = True) -> None:
        """What a link found out; ``shared``: calls may share it, as far as the server keeps nothing for its callers."""
        self.era = link.hello.era
        self._guesses = not link.correlates
        mode = self._config.isolation
        keeps_nothing = self.era == "modern" or not link.stateful
        self.common = shared and (mode == "shared" or (mode == "auto" and keeps_nothing))

    def owner(self, call: Call, mirrors: bool = True) -> Owner | None:
        """Whose link the call takes; ``None`` for the common one, and as long as nothing is known.

        ``mirrors``: it may be a legacy link to a modern server.
        """
        era, front, mode = self.era, call.front, self._config.isolation
        if era is None or mode == "shared":
            return None
        if mirrors and era == "modern" and mirrored(front) and self._loop.time() >= self._no_mirror_until:
            era = "legacy"
        elif self.common:
            return None
        session = front.session or "" if mode != "principal" else ""
        return Owner(call.principal.key, session, era, for_legacy(front) if era == "legacy" else b"{}")

    def era_of(self, call: Call) -> Era | None:
        owner = self.owner(call)
        return self.era if owner is None else owner.era

    async def send(self, owner: Owner, call: Call, conduct: Conduct, deadline: float) -> Answer | None:
        """Make the call on a link of the owner; ``None`` when the server does not let the owner have one."""
        alone = self._alone(owner, call, conduct)
        own = None if alone else self.isolation.take(owner, call)
        if own is None and (own := await self._enter(owner, call, alone, deadline)) is None:
            return None
        try:
            return await own.making.result().call(call, conduct, deadline)
        finally:
            self.isolation.leave(own, call)

    async def settle(self, call: Call, deadline: float) -> Era | None:
        """The era of the link that the call would take, which is made if nothing else tells."""
        owner = self.owner(call)
        if owner is None:
            return self.era
        if owner.era != self.era and not self.isolation.alive(owner):
            own = await self._enter(owner, call, False, deadline)
            if own is None:
                return self.era
            self.isolation.leave(own, call)
        return owner.era

    async def _enter(self, owner: Owner, call: Call, alone: bool, deadline: float) -> Own | None:
        try:
            return await self.isolation.enter(owner, call, alone, deadline)
        except (Overloaded, ConsentNeeded):
            raise
        except CallgateError as error:
            if owner.era == self.era:
                error.hint = error.hint or _HINT
                raise
            if isinstance(error, NotLegacy):
                self._no_mirror_until = math.inf
            elif not isinstance(error, UpstreamTimeout):
                self._no_mirror_until = self._loop.time() + AGAIN
            return None

    def tell(self, principal: str, session: str, method: str, params: Mapping[str, Any]) -> None:
        if session and method in TOLD:
            for link in self.isolation.links(principal, session):
                if link.hello.era == "legacy":
                    link.say(method, params)

    def _alone(self, owner: Owner, call: Call, conduct: Conduct) -> bool:
        """Where a question names no call, one that may be asked runs alone, unless all calls are of one client
        that sorts its questions out itself (PARK-9).
        """
        asks = conduct.ask is not None and owner.era == "legacy" and owner.capabilities != b"{}"
        return asks and self._guesses and call.front.session is None

    async def _connect(self, own: Own) -> Link:
        owner = own.owner
        capabilities = decoded(owner.capabilities)
        purpose = Purpose(
            floor=self._floor,
            owner=owner,
            era=owner.era,
            capabilities=capabilities,
            notice=lambda: self._noticed(own),
            news=lambda method, params: self._said(own, method, params),
            renewed=lambda: self._renewed(own),
            ask=(lambda question: self._ask(owner, question)) if owner.session else None,
            listens=bool(owner.session or capabilities),
            whose=own.whose,
        )
        if owner.era == self.era:
            return await self._connector.connect(purpose)
        try:
            async with asyncio.timeout(self._config.connect_timeout):
                link = await self._connector.connect(purpose)
        except TimeoutError:
            raise UpstreamTimeout("opened no legacy session in time") from None
        if not link.stateful:
            await link.aclose()
            raise NotLegacy("keeps no sessions, so it cannot ask anything")
        return link

    async def _ask(self, owner: Owner, question: Question) -> Answer:
        return await self._ears.question(self._name, owner.principal, owner.session, question)

    def _noticed(self, own: Own) -> None:
        if own.dead:
            self.isolation.unlist(own)

    def _said(self, own: Own, method: str, params: Mapping[str, Any]) -> None:
        if method in LIST_CHANGED:
            self.isolation.announced(own)
        self.own_news(own.owner, method, params)

    def _renewed(self, own: Own) -> None:
        self.isolation.unlist(own)
        self.renewed(own.owner)

    def own_news(self, owner: Owner, method: str, params: Mapping[str, Any]) -> None:
        if method in LIST_CHANGED:
            self.stale()
        if method != "notifications/message" or owner.session:
            self._tell(News(self._name, method, params, owner.principal, owner.session))

    def common_news(self, method: str, params: Mapping[str, Any]) -> None:
        if method in _COMMON_NEWS:
            self._tell(News(self._name, method, params))

    def _tell(self, news: News) -> None:
        try:
            self._ears.news(news)
        except Exception:
            # A mistake of our own must not end the link that the news came over.
            log.exception("news of the server %s", self._name)

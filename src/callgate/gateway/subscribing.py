"""Who hears when a resource changes: ``resources/subscribe`` of sessions, ``resourceSubscriptions`` of open streams.

A subscription is a governed call like any other: judged and recorded as ``server/resource:URI``. What it brings later
is judged again when it comes, because the policy may be another one by then.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import msgspec

from callgate.audit import show_id
from callgate.catalog import expose
from callgate.errors import CallgateError, NotFound, Overloaded, ProtocolError
from callgate.gateway.bus import Bus, Hear, unstamped
from callgate.gateway.calling import asked_of, veiling
from callgate.gateway.inbound import Inbound, Reply
from callgate.gateway.pipeline import Asked
from callgate.gateway.replies import answered, no_method
from callgate.gateway.scopes import check_scopes
from callgate.gateway.session import Session
from callgate.gateway.wire import INVALID_PARAMS, notification
from callgate.policy import settle
from callgate.types import RESOURCE, Answer, Call, Conduct, Front, News, Permitted

if TYPE_CHECKING:
    from callgate.gateway.house import House

SUBSCRIBE, UNSUBSCRIBE = "resources/subscribe", "resources/unsubscribe"
UPDATED = "notifications/resources/updated"
#: Subscriptions of one session or stream, and of all sessions and streams of a principal.
MOST, MOST_OF_ONE = 1_000, 10_000
#: A URI that is longer (characters), or has more parts, is looked for as it is: servers write what they like.
LONGEST, DEEPEST = 2048, 64
NOTHING = Answer(b"{}")

Key = tuple[str, str]


class Subscription(msgspec.Struct, frozen=True):
    """One reader's wish to hear about one resource. ``call`` is the call that asked for it."""

    call: Call
    hear: Hear

    @property
    def key(self) -> Key:
        return key_of(self.call)


def key_of(call: Call) -> Key:
    """The server and its own URI."""
    return call.tool.server, call.tool.name.removeprefix(RESOURCE)


class Subscriptions:
    """All of them, by resource and by reader: the id of a session, or an open stream."""

    def __init__(self, bus: Bus, house: House) -> None:
        self._bus = bus
        self._house = house
        self._of: Counter[str] = Counter()
        self._wishes: dict[int, tuple[Hashable, Hear]] = {}
        bus.route(UPDATED, self._updated)

    def _check_room(self, reader: Hashable, principal: str) -> None:
        """Raises ``Overloaded`` where a reader or its principal has as many as there may be."""
        held = sum(topic[0] == "resource" for topic in self._bus.topics(reader))
        if held >= MOST or self._of[principal] >= MOST_OF_ONE:
            raise Overloaded("Too many subscriptions to resources.", hint="Unsubscribe from some.")

    def holds(self, reader: Hashable, key: Key) -> bool:
        return self._bus.find(("resource", *key), reader) is not None

    def _hold(self, reader: Hashable, subscription: Subscription) -> None:
        """From now on the reader hears; the server has been told."""
        if self.holds(reader, subscription.key):  # asked for twice at the same time: the server counts it once
            self._house.upstreams.release(subscription.call)
            return
        self._bus.join(("resource", *subscription.key), reader, subscription)
        self._of[subscription.call.principal.key] += 1

    def _drop(self, reader: Hashable, key: Key) -> Subscription | None:
        """The reader hears no more. The server is not told."""
        found: Subscription | None = self._bus.leave(("resource", *key), reader)
        if found is not None:
            who = found.call.principal.key
            self._of[who] -= 1
            if not self._of[who]:
                del self._of[who]
        return found

    def forget(self, reader: Hashable) -> None:
        """A session or stream has ended; servers of which nobody else wants to hear are told."""
        for topic in self._bus.topics(reader):
            if topic[0] == "resource":
                found = self._drop(reader, (topic[1], topic[2]))
                if found is not None:
                    self._house.upstreams.release(found.call)

    async def wished(self, asked: Asked, reader: Hashable, hear: Hear) -> Answer:
        """The governed call that begins or ends a reader's subscription, and what the server says to it."""
        if asked.method == SUBSCRIBE:
            self._check_room(reader, asked.principal.key)
        self._wishes[asked.id] = reader, hear
        try:
            return await veiling(asked, self._house)
        finally:
            del self._wishes[asked.id]

    async def exchange(self, permitted: Permitted, asked: Asked) -> Answer:
        """What becomes of a wish that policy allowed. The server hears of the first one for a resource, and of the end
        of what this reader itself had begun.
        """
        reader, hear = self._wishes[asked.id]
        call = permitted.call
        if (call.method == SUBSCRIBE) == self.holds(reader, key_of(call)):
            return NOTHING
        begun = self._drop(reader, key_of(call)) if call.method == UNSUBSCRIBE else None
        if begun is not None:
            return await self._house.upstreams.unwatch(permitted, begun.call, asked.conduct)
        answer = await self._house.upstreams.watch(permitted, asked.conduct)
        if answer.error is None:
            self._hold(reader, Subscription(call, hear))
            return Answer(b"{}", era=answer.era)
        return answer

    async def begin_again(self, server: str) -> None:
        """A server runs under other settings than before, and knows nothing of what was subscribed at it."""
        for topic in self._bus.everywhere("resource", server):
            for each in self._bus.readers(topic):
                with contextlib.suppress(CallgateError):
                    now = self._house.sessions.as_now(each.call)
                    check_scopes(now, self._house)
                    permitted = settle(each.call, self._house.policy.decide(now))
                    await self._house.upstreams.watch(permitted, Conduct())
        self.missed(server)

    def missed(self, server: str) -> None:
        """Nobody listened to a server for a while: whatever is subscribed there may have changed (rule SUB-11)."""
        for topic in self._bus.everywhere("resource", server):
            self._updated(News(server, UPDATED, {"uri": topic[2]}))

    def _updated(self, news: News) -> None:
        uri = news.params.get("uri")
        if not isinstance(uri, str):
            return
        told: set[Hashable] = set()
        for above in parents(uri):
            for each in self._bus.readers(("resource", news.server, above)):
                if each.hear not in told and _meant(news, each.call) and self._told(news, uri, each):
                    told.add(each.hear)

    def _told(self, news: News, uri: str, subscription: Subscription) -> bool:
        """Tell one reader, in the words of its door, if the policy still lets it hear."""
        call, house = self._house.sessions.as_now(subscription.call), self._house
        exposed = uri if call.front.door.startswith("server:") else expose(news.server, uri)
        view = house.overlays.view(call.front, call.principal.key) or house.catalog.view(call.front.door)
        try:
            tool = view.readable(RESOURCE + exposed) if view is not None else None
        except NotFound:
            tool = None
        if tool is None or not house.still_allowed(msgspec.structs.replace(call, tool=tool)):
            return False
        subscription.hear(UPDATED, {**unstamped(news.params), "uri": exposed})
        return True


def _meant(news: News, call: Call) -> bool:
    """Whether news over a link of one conversation or one principal may be told to whoever made this call."""
    if news.session:
        return call.front.session == news.session
    return not news.principal or call.principal.key == news.principal


def parents(uri: str) -> list[str]:
    """A URI and the URIs above it: a server may name a part of what was subscribed.

    >>> parents("file:///a/b")
    ['file:///a/b', 'file:///a/', 'file:///a', 'file:///']
    """
    if len(uri) > LONGEST or uri.count("/") > DEEPEST:
        return [uri]
    found, start = [uri], uri.find("://") + 3 if "://" in uri else 0
    at = len(uri)
    while (at := uri.rfind("/", start, at)) >= 0:
        found += [uri[: at + 1], uri[:at]] if at > start else [uri[: at + 1]]
    return list(dict.fromkeys(found))


async def subscribe(inbound: Inbound, front: Front, house: House) -> Reply:
    """``resources/subscribe`` and ``resources/unsubscribe`` of a session."""
    session = inbound.session
    assert session is not None
    asked = wish(inbound, front, house, inbound.params.get("uri"))
    asked.method = inbound.method
    answer = await house.subscriptions.wished(asked, session.id, ear(session))
    return answered(inbound.id, answer, front, show_id(asked.id))


def wish(inbound: Inbound, front: Front, house: House, uri: Any) -> Asked:
    """The governed call that asks for the subscription to a URI, as the door names it."""
    if "resources/list" not in house.view_of(front, inbound.principal).others:
        raise no_method(inbound.method, front.era)
    if not isinstance(uri, str):
        raise ProtocolError(f"{inbound.method} needs `uri` (a string).", INVALID_PARAMS)
    asked = asked_of(inbound, front, RESOURCE + uri, {})
    asked.method = SUBSCRIBE
    asked.params = {"uri": uri}
    return asked


def ear(session: Session) -> Callable[[str, Any], None]:
    """How a legacy session is told something."""

    def hear(method: str, params: Any) -> None:
        session.push(notification(method, dict(params) if params else None))

    return hear

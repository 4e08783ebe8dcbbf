"""``subscriptions/listen``: streams that stay open and tell a modern client what it asked to hear about, and no more.

callgate itself keeps the promise of ``list_changed``: whatever the reason, the lists of a door become other ones here.
Resources are subscribed like a session's (``subscribing.py``), tasks in ``house.tasks``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from callgate.errors import CallgateError, Overloaded, ProtocolError
from callgate.gateway import wire
from callgate.gateway.bus import SUBSCRIPTION, Mailbox, unstamped
from callgate.gateway.changes import list_topic
from callgate.gateway.inbound import NOBODY, Inbound, Reply, result
from callgate.gateway.subscribing import MOST, wish
from callgate.gateway.task_news import listened
from callgate.types import Emit, Front, Principal

if TYPE_CHECKING:
    from callgate.gateway.house import House

#: Members of the filter → the kind of lists that they are about.
LISTS = {"toolsListChanged": "tools", "promptsListChanged": "prompts", "resourcesListChanged": "resources"}
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
#: Subscriptions of one stream that are asked for at the same time.
AT_ONCE = 8
#: A reader that is far behind is tried again after this time (seconds).
BEHIND = 0.1


class Listening:
    """One open ``subscriptions/listen``. ``hear`` fits the bus."""

    def __init__(self, inbound: Inbound, front: Front) -> None:
        self.id = inbound.id
        self.principal = inbound.principal
        self.front = front
        self.gate = asyncio.Semaphore(AT_ONCE)
        self._mail = Mailbox()
        self._meta = {SUBSCRIPTION: inbound.id}

    def hear(self, method: str, params: Mapping[str, Any]) -> None:
        """Something that was asked for has happened; it leaves as soon as the client reads."""
        what = params.get("uri") or params.get("taskId") or ""
        self._mail.put((method, what), self.notification(method, params))

    def notification(self, method: str, params: Mapping[str, Any]) -> bytes:
        """With the subscription's id, and without that of the server's hop (rules SUB-2, SUB-7)."""
        kept = unstamped(params)
        return wire.notification(method, {**kept, "_meta": {**kept.get("_meta", {}), **self._meta}})

    def end(self) -> None:
        """The stream ends with its result, when everything that waits is delivered."""
        self._mail.end()

    async def deliver(self, emit: Emit, credential: Callable[[Principal], float]) -> None:
        """Hand over what is heard until the end, at the latest until the credential has ended (in so many seconds)."""
        left = credential(self.principal)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left if left < float("inf") else None):
                while (message := await self._mail.next()) is not None and credential(self.principal):
                    await say(message, emit)

    def closing(self) -> bytes:
        return wire.encode({"resultType": "complete", "_meta": self._meta})


class Streams:
    """All open ones. Their number counts against ``limits.max_streams`` of their principal."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._open: dict[str, set[Listening]] = {}

    def __len__(self) -> int:
        return sum(len(each) for each in self._open.values())

    def of(self, principal: str) -> frozenset[Listening]:
        return frozenset(self._open.get(principal, ()))

    def begin(self, stream: Listening) -> None:
        who = stream.principal
        if self._house.streams_of(who) >= self._house.settings.limits.max_streams:
            raise Overloaded("Too many open streams for this caller.", hint="Close some.")
        self._open.setdefault(who.key, set()).add(stream)

    def leave(self, stream: Listening) -> None:
        """However it ended: nothing of it remains."""
        mine = self._open.get(stream.principal.key, set())
        mine.discard(stream)
        if not mine:
            self._open.pop(stream.principal.key, None)
        self._house.subscriptions.forget(stream)
        self._house.bus.forget(stream)
        self._house.tasks.unwatch(stream)

    def end(self, which: Callable[[Listening], bool] = lambda stream: True) -> None:
        """End streams gracefully; whoever still may listens again."""
        for stream in [each for mine in self._open.values() for each in mine if which(each)]:
            stream.end()


async def listen(inbound: Inbound, front: Front, house: House) -> Reply:
    """Acknowledge, deliver, and end with a result (rules SUB-1 to SUB-5)."""
    wanted, emit = _filter(inbound.params), inbound.conduct.emit
    if emit is None:
        raise ProtocolError("subscriptions/listen is answered by an event stream; Accept must list it.", status=406)
    house.view(inbound.door)
    stream = Listening(inbound, front)
    house.streams.begin(stream)
    try:
        honoured = await _honour(stream, wanted, inbound, house)
        await say(stream.notification(ACKNOWLEDGED, {"notifications": honoured}), emit)
        await stream.deliver(emit, lambda who: house.recogniser.left(who))
        end = result(inbound, stream.closing())
        if front.transport == "http":
            return end
        # The client may know the end by either sign (rule SUB-5). A client that takes the second one for a loss has
        # forgotten the stream by then.
        await say(end.body, emit)
        await say(wire.notification("notifications/cancelled", {"requestId": inbound.id, "reason": "It ended."}), emit)
        return Reply()
    finally:
        house.streams.leave(stream)


async def say(message: bytes, emit: Emit) -> None:
    """Hand over what must not get lost; who reads too slowly gets it later."""
    while emit(message) is False:
        await asyncio.sleep(BEHIND)


def _filter(params: Mapping[str, Any]) -> dict[str, Any]:
    wanted = params.get("notifications")
    if not isinstance(wanted, dict):
        raise ProtocolError("subscriptions/listen needs `notifications` (an object).", wire.INVALID_PARAMS)
    for name in LISTS:
        if not isinstance(wanted.get(name), bool | None):
            raise ProtocolError(f"notifications.{name} must be a boolean.", wire.INVALID_PARAMS)
    for name in ("resourceSubscriptions", "taskIds"):
        entries = wanted.get(name)
        if entries is not None and not (isinstance(entries, list) and all(isinstance(each, str) for each in entries)):
            raise ProtocolError(f"notifications.{name} must be a list of strings.", wire.INVALID_PARAMS)
        if entries is not None and len(entries) > MOST:
            raise ProtocolError(f"notifications.{name} holds more than {MOST} entries.", wire.INVALID_PARAMS)
    return wanted


async def _honour(stream: Listening, wanted: dict[str, Any], inbound: Inbound, house: House) -> dict[str, Any]:
    """Subscribe to everything that the caller may hear about; returns that part of the filter (rule SUB-9)."""
    honoured: dict[str, Any] = {}
    for name, kind in LISTS.items():
        if wanted.get(name):
            honoured[name] = True
            house.bus.join(list_topic(inbound.door, kind), stream, stream.hear)
    uris = list(dict.fromkeys(wanted.get("resourceSubscriptions") or ()))
    if uris:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_subscribed(stream, uri, inbound, house)) for uri in uris]
        honoured["resourceSubscriptions"] = [uri for uri, task in zip(uris, tasks, strict=True) if task.result()]
    ids = list(dict.fromkeys(wanted.get("taskIds") or ()))
    if ids:
        honoured["taskIds"] = await listened(stream, ids, inbound, house)
    return honoured


async def _subscribed(stream: Listening, uri: str, inbound: Inbound, house: House) -> bool:
    """Whether this resource exists for the caller, policy lets it hear, and the server agreed."""
    async with stream.gate:
        try:
            asked = wish(inbound, stream.front, house, uri)
            asked.conduct = NOBODY  # nothing may precede the acknowledgement
            return (await house.subscriptions.wished(asked, stream, stream.hear)).error is None
        except CallgateError:
            return False

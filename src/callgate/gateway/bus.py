"""Who wants to hear what: topics with their readers, and the mailbox of one reader.

What servers say outside calls comes in through ``heard`` and goes to the one room that knows what it means.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from callgate.types import News

log = logging.getLogger("callgate.gateway")

#: Calls whose effect outlives them.
SUBSCRIBING = frozenset({"resources/subscribe", "resources/unsubscribe"})
#: What can be heard about: ``("list", door, kind)``, ``("resource", server, URI)``, ``("task", id)``.
Topic = tuple[str, ...]
#: Takes the method and the params of one notification.
Hear = Callable[[str, Mapping[str, Any]], None]

#: Bytes that may wait for one reader; then the oldest go, because servers choose what they tell, and how much.
HELD = 32 * 1024 * 1024

#: The ``_meta`` key that names a subscription on its own hop (rule SUB-7).
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"


class Bus:
    """Topics and their readers. A reader is any key of its own (a session's id, an open stream); what it is told with
    is kept beside it. Nothing is queued here.
    """

    def __init__(self) -> None:
        self._readers: dict[Topic, dict[Hashable, Any]] = {}
        self._topics: dict[Hashable, dict[Topic, None]] = {}
        self._routes: dict[str, Callable[[News], None]] = {}

    def __len__(self) -> int:
        return sum(len(topics) for topics in self._topics.values())

    def join(self, topic: Topic, reader: Hashable, way: Any) -> None:
        self._readers.setdefault(topic, {})[reader] = way
        self._topics.setdefault(reader, {})[topic] = None

    def leave(self, topic: Topic, reader: Hashable) -> Any:
        """Returns what ``join`` was given, ``None`` where the reader was not there."""
        readers, topics = self._readers.get(topic, {}), self._topics.get(reader, {})
        way = readers.pop(reader, None)
        topics.pop(topic, None)
        if not readers:
            self._readers.pop(topic, None)
        if not topics:
            self._topics.pop(reader, None)
        return way

    def topics(self, reader: Hashable) -> tuple[Topic, ...]:
        return tuple(self._topics.get(reader, ()))

    def forget(self, reader: Hashable) -> None:
        for topic in self.topics(reader):
            self.leave(topic, reader)

    def find(self, topic: Topic, reader: Hashable) -> Any:
        return self._readers.get(topic, {}).get(reader)

    def readers(self, topic: Topic) -> tuple[Any, ...]:
        """What the readers of a topic are told with."""
        return tuple(self._readers.get(topic, {}).values())

    def everywhere(self, *prefix: str) -> tuple[Topic, ...]:
        """The topics that begin like this and have readers."""
        return tuple(topic for topic in self._readers if topic[: len(prefix)] == prefix)

    def tell(self, topic: Topic, method: str, params: Mapping[str, Any]) -> None:
        """Tell the readers of a topic whose way is a ``Hear``."""
        for hear in self.readers(topic):
            hear(method, params)

    def route(self, method: str, take: Callable[[News], None]) -> None:
        """Who understands a notification of servers."""
        self._routes[method] = take

    def heard(self, news: News) -> None:
        """A server said something outside calls. What nobody understands goes no further."""
        take = self._routes.get(news.method)
        if take is None:
            return
        try:
            take(news)
        except Exception:  # the link that brought it must live on
            log.exception("%s of server %s could not be told", news.method, news.server)


class Mailbox:
    """Notifications for one slow or quick reader, oldest first. Only the newest of each kind is kept (``kind`` says of
    what), so it holds no more than the reader asked to hear about, and loses nothing that still counts.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[Hashable, bytes] = OrderedDict()
        self._held = 0
        self._news = asyncio.Event()
        self._ended = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, kind: Hashable, message: bytes) -> None:
        if self._ended:
            return
        self._held += len(message) - len(self._waiting.get(kind, b""))
        self._waiting[kind] = message
        while self._held > HELD and len(self._waiting) > 1:
            self._take()
        self._news.set()

    def end(self) -> None:
        """What is in it is still delivered; nothing more is taken."""
        self._ended = True
        self._news.set()

    async def next(self) -> bytes | None:
        """The oldest message; ``None`` at the end. Waits as long as its caller lets it."""
        while not self._waiting:
            if self._ended:
                return None
            self._news.clear()
            await self._news.wait()
        return self._take()

    def _take(self) -> bytes:
        message = self._waiting.popitem(last=False)[1]
        self._held -= len(message)
        return message


def unstamped(params: Mapping[str, Any]) -> dict[str, Any]:
    """The params of a server's notification without the id of callgate's own subscription (rule SUB-7)."""
    meta = params.get("_meta")
    if not isinstance(meta, dict) or SUBSCRIPTION not in meta:
        return dict(params)
    left = {key: value for key, value in meta.items() if key != SUBSCRIPTION}
    rest = {key: value for key, value in params.items() if key != "_meta"}
    return {**rest, "_meta": left} if left else rest

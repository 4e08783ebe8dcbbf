"""Subscriptions to the resources of one server, whichever way they take.

At a modern server they are wishes for the one stream that everybody shares (``listening.py``). A legacy server gets
``resources/subscribe`` on the caller's own link or on the common one, and ``resources/unsubscribe`` when the last one
who asked on that link has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import msgspec

from callgate.errors import CallgateError
from callgate.types import Answer, Call, Conduct

from .link import Link
from .listening import BACKOFF, UPDATED, Ears, Listening
from .purpose import Owner
from .ways import Ways
from .wire import LIST_CHANGED

UNSUBSCRIBE = "resources/unsubscribe"
#: An own link with subscriptions is looked after this often (seconds): nobody else notices its end.
LOOK = 1.0
#: Seconds in which a server that is being reached agrees to tell of changes.
AGREED = 1.0
NOBODY = Conduct()

Send = Callable[[Call, Conduct], Coroutine[Any, Any, Answer]]


class Watch(msgspec.Struct, frozen=True, eq=False):
    """A subscription that a server knows of: the call that asked for it, and whose link it took (modern: none)."""

    call: Call
    owner: Owner | None
    modern: bool

    @property
    def uri(self) -> str:
        return str(self.call.params["uri"])


class Watching:
    """All of one server. ``send`` makes a call, ``reached`` waits until something is known of the server."""

    def __init__(self, ways: Ways, send: Send, reached: Callable[[float], Coroutine[Any, Any, None]]) -> None:
        self._ways = ways
        self._send = send
        self._reached = reached
        self._loop = asyncio.get_running_loop()
        self._watches: dict[int, Watch] = {}
        self._count: Counter[tuple[Owner | None, str]] = Counter()
        self._holding: asyncio.Task[None] | None = None
        self._looking: dict[Owner, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._renewing: set[int] = set()
        self._stale: Callable[[], None] = lambda: None
        self.listening = Listening(self._hear)
        ways.renewed = self._again

    # The common link.

    async def linked(self, link: Link, stale: Callable[[], None]) -> None:
        """The server was reached; ``stale`` is called when it announces another list. A server that agrees does so
        before it is listed, so that no change in between is missed; one that takes long is not waited for.
        """
        self._stale = stale
        if isinstance(link, Ears) and link.hello.era == "modern":
            self._holding = asyncio.create_task(self.listening.hold(link), name="upstream listening")
            await self.listening.settled(AGREED)
        else:
            self._again(None)

    def _again(self, owner: Owner | None) -> None:
        """The server knows nothing any more of what was subscribed on this link. What is being subscribed again goes to
        its new session by itself; a server that forgets at every request is not asked for ever.
        """
        for watch in [each for each in self._watches.values() if each.owner == owner and not each.modern]:
            if watch.call.id not in self._renewing:
                self._own(self._renew(watch))

    def unlinked(self) -> None:
        holding, self._holding = self._holding, None
        if holding is not None:
            holding.cancel()
            self._tasks.add(holding)  # ``aclose`` waits for its end
            holding.add_done_callback(self._tasks.discard)

    def _hear(self, method: str, params: Mapping[str, Any]) -> None:
        if method in LIST_CHANGED:
            self._stale()
        self._ways.common_news(method, params)

    # Subscriptions.

    async def begin(self, call: Call, conduct: Conduct, deadline: float) -> Answer:
        """Subscribe as ``call`` says; what was begun without an error needs an ``end``."""
        if self._ways.era is None:
            await self._reached(deadline)
        owner = self._ways.owner(call)
        watch = Watch(call, owner, (self._ways.era if owner is None else owner.era) == "modern")
        if watch.modern:
            if self._holding is None:
                await self._reached(deadline)
            await self.listening.add(watch.uri, deadline)
            self._watches[call.id] = watch
            return Answer(b"{}")
        key = owner, watch.uri
        self._count[key] += 1
        self._watches[call.id] = watch
        try:
            answer = await self._send(call, conduct)
        except BaseException:
            self.release(call)
            raise
        if answer.error is not None:
            self._forget(watch)
        else:
            self._keep(watch)
        return answer

    async def end(self, call: Call, conduct: Conduct) -> Answer:
        """End what ``call`` has begun."""
        watch = self._watches.get(call.id)
        if watch is None or not self._forget(watch):
            return Answer(b"{}")
        if watch.owner is not None and not self._ways.isolation.alive(watch.owner):
            return Answer(b"{}")
        return await self._send(msgspec.structs.replace(call, method=UNSUBSCRIBE), conduct)

    def release(self, call: Call) -> None:
        """End what ``call`` has begun, when nobody is left to hear the answer."""
        if call.id in self._watches:
            self._own(self.end(call, NOBODY))

    async def aclose(self) -> None:
        self.unlinked()
        tasks = [*self._tasks, *self._looking.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _keep(self, watch: Watch) -> None:
        """An own link must not end for being idle while it is to tell of something."""
        owner = watch.owner
        if owner is None:
            return
        self._ways.isolation.hold(owner, watch.call, f"resource:{watch.uri}", float("inf"))
        if owner not in self._looking:
            self._looking[owner] = asyncio.create_task(self._look_after(owner), name="upstream subscriptions")

    def _forget(self, watch: Watch) -> bool:
        """Whether it was the last one for this resource on its link."""
        del self._watches[watch.call.id]
        if watch.modern:
            self.listening.drop(watch.uri)
            return False
        key = watch.owner, watch.uri
        self._count[key] -= 1
        if self._count[key]:
            return False
        del self._count[key]
        if watch.owner is not None:
            self._ways.isolation.hold(watch.owner, watch.call, f"resource:{watch.uri}", 0.0)
        return True

    async def _look_after(self, owner: Owner) -> None:
        """Subscribe again when the link was lost, as long as there is something to subscribe to."""
        pause = LOOK
        try:
            while mine := [each for each in self._watches.values() if each.owner == owner]:
                await asyncio.sleep(pause * random.uniform(0.9, 1.1))
                if self._ways.isolation.alive(owner):
                    pause = LOOK
                    continue
                pause = min(pause * 2, BACKOFF[1])
                for watch in mine:
                    if watch.call.id in self._watches:
                        await self._renew(watch)
        finally:
            self._looking.pop(owner, None)

    async def _renew(self, watch: Watch) -> None:
        """The same subscription at a server that has forgotten it; what it missed is not told again (SUB-11)."""
        self._renewing.add(watch.call.id)
        try:
            answer = await self._send(watch.call, NOBODY)
        except CallgateError:
            return
        finally:
            self._renewing.discard(watch.call.id)
        if answer.error is None:
            self._keep(watch)
            told = {"uri": watch.uri}
            if watch.owner is None:
                self._ways.common_news(UPDATED, told)
            else:
                self._ways.own_news(watch.owner, UPDATED, told)

    def _own(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(_quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _quietly(work: Coroutine[Any, Any, Any]) -> None:
    with contextlib.suppress(CallgateError):  # the server is gone, and with it what it knew
        await work

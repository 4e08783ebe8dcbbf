"""Sessions with legacy Streamable HTTP servers (2024-11-05 to 2025-11-25)."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

from callgate.egress import Response
from callgate.errors import CallgateError, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from callgate.types import Answer, Call, Conduct

from .endpoint import Endpoint, NoAnswer, reply
from .link import Circumstances, Hello, NotLegacy, NotPosted, legacy_hello
from .purpose import Purpose
from .questions import Questions, whom
from .relay import Loudness, Relay, number, wants_progress
from .wire import (
    LEGACY,
    LIST_CHANGED,
    Envelope,
    Stamp,
    answer,
    error_of,
    has_error,
    notification,
    params_of,
    read,
    read_all,
    request,
    result_object,
)

_SESSION = re.compile(rb"[\x21-\x7e]{1,1024}\Z")
GRACE = 5.0  # seconds for courtesies: cancelled, ping, DELETE
LISTENING = 0.5  # seconds until the server's own stream is open; some send no head before the first event
BACKOFF = (1.0, 60.0)
RESUME = (0.05, 1.0)  # seconds before an answer is looked for on another stream: at least, and if the server says none
MAX_COURTESIES = 256

_NOT_LEGACY = frozenset({400, 404, 405, 406, 410, 415, 422, 501})  # a refusal that will not change
_NOT_POSTED = frozenset({400, 404, 405})  # 2025-11-25, "Backwards Compatibility"


class LegacyHttp:
    """One session. When the server has forgotten it (404), a new one is opened and the request sent again."""

    pids: tuple[int, ...] = ()
    correlates = True

    def __init__(self, endpoint: Endpoint, around: Circumstances, purpose: Purpose) -> None:
        self._endpoint = endpoint
        self._client_info = around.client_info
        self._next_id = around.next_id
        self._purpose = purpose
        self._shown = endpoint.shown if purpose.owner is not None else None
        self._questions = Questions(purpose, self._courtesy)
        self._running: dict[int, Relay] = {}
        self._stamp = Stamp("legacy", around.client_info)
        self._loop = asyncio.get_running_loop()
        self._head = b""
        self._session = False
        self._opening = asyncio.Lock()
        self._loudness = Loudness(False)
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Task[None] | None = None
        self._listening = asyncio.Event()
        self.hello = Hello("legacy", LEGACY[0])
        self.lost = ""
        self.stale = False

    @classmethod
    async def open(cls, endpoint: Endpoint, around: Circumstances, purpose: Purpose, deadline: float) -> LegacyHttp:
        link = cls(endpoint, around, purpose)
        await link._initialize(deadline)
        if purpose.listens:
            await link._listen_first()
        return link

    async def call(self, call: Call, conduct: Conduct, deadline: float) -> Answer:
        if self._shown is not None:
            self._shown.whose = call.principal
        if (level := self._loudness.raise_for(call)) is not None:
            await self.request("logging/setLevel", {"level": level}, deadline)
        ident = self._next_id()
        relay = Relay(call, ident, conduct)
        body = self._stamp.call(call, ident, wants_progress(call, conduct))

        def heard(message: Envelope) -> None:
            relay.heard(message)
            self._heard(message, relay)

        if call.method == "resources/subscribe":
            self._follow_news()
        self._running[ident] = relay
        try:
            if conduct.ask is not None and (talk := self._questions.talk(conduct.ask, deadline)) is not None:
                relay.talk = talk
                async with talk:
                    return answer(await self._exchange(ident, body, math.inf, heard, call), "legacy")
            return answer(await self._exchange(ident, body, deadline, heard, call), "legacy")
        except (asyncio.CancelledError, UpstreamTimeout) as error:
            why = "timeout" if isinstance(error, UpstreamTimeout) else "cancelled by the client"
            self._courtesy(notification("notifications/cancelled", {"requestId": ident, "reason": why}), call)
            raise
        finally:
            del self._running[ident]

    async def request(self, method: str, params: Mapping[str, Any], deadline: float) -> dict[str, Any]:
        ident = self._next_id()
        message = await self._exchange(ident, request(ident, method, params), deadline, self._heard)
        return result_object(answer(message, "legacy"), method)

    @property
    def stateful(self) -> bool:
        return self._session

    def say(self, method: str, params: Mapping[str, Any]) -> None:
        self._courtesy(notification(method, params))

    async def aclose(self) -> None:
        self._questions.close()
        tasks = [*self._tasks, *([self._listener] if self._listener is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session and not self.lost:
            with contextlib.suppress(CallgateError):  # the server will forget the session by itself
                await self._endpoint.delete(self._head, self._loop.time() + GRACE)

    # The session.

    async def _initialize(self, deadline: float) -> None:
        params = {
            "protocolVersion": LEGACY[0],
            "capabilities": self._purpose.capabilities,
            "clientInfo": self._client_info,
        }
        ident = self._next_id()
        response = await self._endpoint.post(b"", request(ident, "initialize", params), deadline)
        refused = NotPosted if response.status in _NOT_POSTED else NotLegacy
        if response.status in _NOT_LEGACY and not _is_error(response.body):
            raise refused(f"answered `initialize` with HTTP {response.status}")
        session = response.headers.get(b"mcp-session-id")
        message = await reply(response, ident, self._heard)
        if has_error(message) and (response.status == 200 or response.status in _NOT_LEGACY):
            raise refused(f"answered `initialize` with error {error_of(message).code}")
        self.hello = legacy_hello(result_object(answer(message, "legacy"), "initialize"))
        head = b"mcp-protocol-version: %b\r\n" % self.hello.version.encode()
        if session is not None:
            if not _SESSION.match(session):
                raise UpstreamError("sent a session id with characters that are not allowed")
            head += b"mcp-session-id: %b\r\n" % session
        self._head = head
        self._session = session is not None
        self._loudness = Loudness("logging" in self.hello.capabilities)
        done = await self._endpoint.post(head, notification("notifications/initialized"), deadline)
        if done.events is not None:
            done.events.close()
        if done.status >= 300:
            raise UpstreamError(f"refused `notifications/initialized` (HTTP {done.status})")

    async def _exchange(
        self, ident: int, body: bytes, deadline: float, heard: Callable[[Envelope], None], call: Call | None = None
    ) -> Envelope:
        head = self._head
        try:
            response = await self._endpoint.post(head, body, deadline, False, call)
            if response.status == 404 and self._session:
                await self._renew(head, deadline)
                response = await self._endpoint.post(self._head, body, deadline, False, call)
        except UpstreamUnavailable as error:
            self.lost = error.message
            self._purpose.notice()
            raise
        try:
            return await reply(response, ident, heard)
        except NoAnswer:
            return await self._resumed(response, ident, deadline, heard, call)

    async def _resumed(
        self,
        response: Response,
        ident: int,
        deadline: float,
        heard: Callable[[Envelope], None],
        call: Call | None,
    ) -> Envelope:
        """The answer on further streams: a server may end the one that it began, and go on where it is asked to."""
        at = b""
        while (events := response.events) is not None:
            at = events.last_id or at
            if not at:
                break
            least, usual = RESUME
            pause = usual if events.retry < 0 else max(events.retry / 1000, least)
            if self._loop.time() + pause > deadline:
                raise UpstreamTimeout("did not answer in time")
            await asyncio.sleep(pause)
            response = await self._endpoint.listen(self._head + b"last-event-id: %b\r\n" % at, deadline, call)
            if response.events is not None:
                with contextlib.suppress(NoAnswer):
                    return await reply(response, ident, heard)
        raise NoAnswer("ended its event stream without an answer")

    async def _renew(self, forgotten: bytes, deadline: float) -> None:
        """Open another session, once for all calls that found the old one gone."""
        async with self._opening:
            if self._head == forgotten:
                await self._initialize(deadline)
                self.stale = True
                self._purpose.notice()
                self._purpose.renewed()

    # What the server says by itself.

    def _heard(self, message: Envelope, relay: Relay | None = None) -> None:
        """What comes on the stream of a call (``relay``), or on the server's own."""
        method = message.method or ""
        if message.id is not None:
            running = self._running.values()
            self._questions.asked(message, relay or whom(running, message), relay is None and not running)
        elif method == "notifications/cancelled":
            self._questions.withdraw(message)
        elif method == "notifications/progress":
            if relay is None:  # servers that do not tell their streams apart say it here
                self._progress(params_of(message))
        elif method == "notifications/message" and relay is not None:
            pass  # of a call, whose relay has heard it
        else:
            if method in LIST_CHANGED:
                self.stale = True
                self._purpose.notice()
            self._purpose.news(method, params_of(message))

    def _progress(self, params: dict[str, Any]) -> None:
        relay = self._running.get(number(params.get("progressToken")))
        if relay is not None:
            relay.progress(params)

    async def _listen_first(self) -> None:
        """Before anything is asked: what a server wants to say while nobody listens may be lost."""
        self._follow_news()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LISTENING):
                await self._listening.wait()

    def _follow_news(self) -> None:
        if self._listener is None:
            self._listener = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        """Keep the server's own stream open, if it has one (405: it has none)."""
        pause = BACKOFF[0]
        while True:
            try:
                try:
                    response = await self._endpoint.listen(self._head, math.inf)
                finally:
                    self._listening.set()
                if response.events is None and 400 <= response.status < 500 and response.status != 429:
                    return
                if response.events is not None:
                    pause = BACKOFF[0]
                    await self._follow(response)
            except CallgateError:
                pass  # calls notice a dead server; this stream only waits for it to come back
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, BACKOFF[1])

    async def _follow(self, response: Response) -> None:
        events = response.events
        assert events is not None
        try:
            while (event := await events.next()) is not None:
                for message in read_all(event) if event else ():
                    if message.method is not None:
                        self._heard(message)
        finally:
            events.close()

    def _courtesy(self, body: bytes, call: Call | None = None) -> None:
        """Post something whose answer does not matter, without holding anybody up."""
        if len(self._tasks) < MAX_COURTESIES:
            task = asyncio.create_task(self._post_quietly(body, call))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _post_quietly(self, body: bytes, call: Call | None) -> None:
        with contextlib.suppress(CallgateError):
            response = await self._endpoint.post(self._head, body, self._loop.time() + GRACE, False, call)
            if response.events is not None:
                response.events.close()


def _is_error(body: bytes) -> bool:
    """Whether this is a JSON-RPC error; web frameworks refuse with JSON of their own."""
    try:
        return has_error(read(body))
    except UpstreamError:
        return False

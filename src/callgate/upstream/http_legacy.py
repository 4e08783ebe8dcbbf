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
from callgate.types import Answer, Call

from .endpoint import Endpoint, reply
from .link import Hello, Notice, legacy_hello, nobody
from .relay import Emit, Loudness, Relay
from .wire import LEGACY, LIST_CHANGED, Envelope, Stamp, answer, notification, read, reply_to, request, result_object

_SESSION = re.compile(rb"[\x21-\x7e]{1,1024}\Z")
GRACE = 5.0  # seconds for courtesies: cancelled, ping, DELETE
BACKOFF = (1.0, 60.0)
MAX_COURTESIES = 64


class LegacyHttp:
    """One session. When the server has forgotten it (404), a new one is opened and the request sent again."""

    pids: tuple[int, ...] = ()

    def __init__(
        self, endpoint: Endpoint, client_info: Mapping[str, Any], next_id: Callable[[], int], notice: Notice
    ) -> None:
        self._endpoint = endpoint
        self._client_info = client_info
        self._next_id = next_id
        self._notice = notice
        self._stamp = Stamp("legacy", client_info)
        self._loop = asyncio.get_running_loop()
        self._head = b""
        self._session = False
        self._opening = asyncio.Lock()
        self._loudness = Loudness(False)
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Task[None] | None = None
        self.hello = Hello("legacy", LEGACY[0])
        self.lost = ""
        self.stale = False

    @classmethod
    async def open(
        cls,
        endpoint: Endpoint,
        client_info: Mapping[str, Any],
        next_id: Callable[[], int],
        notice: Notice,
        deadline: float,
    ) -> LegacyHttp:
        link = cls(endpoint, client_info, next_id, notice)
        await link._initialize(deadline)
        if notice is not nobody:
            link._listener = asyncio.create_task(link._listen())
        return link

    async def call(self, call: Call, emit: Emit | None, deadline: float) -> Answer:
        if (level := self._loudness.raise_for(call)) is not None:
            await self.request("logging/setLevel", {"level": level}, deadline)
        ident = self._next_id()
        relay = Relay(call, ident, emit)
        body = self._stamp.call(call, ident, relay.wants_progress)

        def heard(message: Envelope) -> None:
            relay.heard(message)
            self._heard(message)

        try:
            return answer(await self._exchange(ident, body, deadline, heard), "legacy")
        except (asyncio.CancelledError, UpstreamTimeout) as error:
            why = "timeout" if isinstance(error, UpstreamTimeout) else "cancelled by the client"
            self._courtesy(notification("notifications/cancelled", {"requestId": ident, "reason": why}))
            raise

    async def request(self, method: str, params: Mapping[str, Any], deadline: float) -> dict[str, Any]:
        ident = self._next_id()
        message = await self._exchange(ident, request(ident, method, params), deadline, self._heard)
        return result_object(answer(message, "legacy"), method)

    async def aclose(self) -> None:
        tasks = [*self._tasks, *([self._listener] if self._listener is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session and not self.lost:
            with contextlib.suppress(CallgateError):  # the server will forget the session by itself
                await self._endpoint.delete(self._head, self._loop.time() + GRACE)

    # The session.

    async def _initialize(self, deadline: float) -> None:
        params = {"protocolVersion": LEGACY[0], "capabilities": {}, "clientInfo": self._client_info}
        ident = self._next_id()
        response = await self._endpoint.post(b"", request(ident, "initialize", params), deadline)
        session = response.headers.get(b"mcp-session-id")
        message = await reply(response, ident, self._heard)
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

    async def _exchange(self, ident: int, body: bytes, deadline: float, heard: Callable[[Envelope], None]) -> Envelope:
        head = self._head
        try:
            response = await self._endpoint.post(head, body, deadline)
            if response.status == 404 and self._session:
                await self._renew(head, deadline)
                response = await self._endpoint.post(self._head, body, deadline)
        except UpstreamUnavailable as error:
            self.lost = error.message
            self._notice()
            raise
        return await reply(response, ident, heard)

    async def _renew(self, forgotten: bytes, deadline: float) -> None:
        """Open another session, once for all calls that found the old one gone."""
        async with self._opening:
            if self._head == forgotten:
                await self._initialize(deadline)
                self.stale = True
                self._notice()

    # What the server says by itself.

    def _heard(self, message: Envelope) -> None:
        if message.id is not None:
            self._courtesy(reply_to(message.id, message.method))
        elif message.method in LIST_CHANGED:
            self.stale = True
            self._notice()

    async def _listen(self) -> None:
        """Keep the server's own stream open, if it has one (405: it has none)."""
        pause = BACKOFF[0]
        while True:
            try:
                response = await self._endpoint.listen(self._head, math.inf)
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
                if event:
                    self._heard(read(event))
        finally:
            events.close()

    def _courtesy(self, body: bytes) -> None:
        """Post something whose answer does not matter, without holding anybody up."""
        if len(self._tasks) < MAX_COURTESIES:
            task = asyncio.create_task(self._post_quietly(body))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _post_quietly(self, body: bytes) -> None:
        with contextlib.suppress(CallgateError):
            response = await self._endpoint.post(self._head, body, self._loop.time() + GRACE)
            if response.events is not None:
                response.events.close()

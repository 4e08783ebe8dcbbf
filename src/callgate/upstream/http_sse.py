"""HTTP+SSE of 2024-11-05: one event stream carries everything that the server says, every message is a POST.

To ``Pipe`` it looks like a child process: lines go out, lines come in, one day it ends.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterable
from urllib.parse import urljoin

from callgate.egress import EventStream, Response, parse_url
from callgate.errors import CallgateError, ConfigError, UpstreamError, UpstreamTimeout

from .endpoint import Endpoint, Whose, refusal
from .pipe import Pipe

TAKEN = 60.0  # seconds for a message to be accepted; some servers do that when they have answered it
HOLD = 1.0  # seconds that a message waits for those that it must not overtake
WAITING = 256  # messages of one session that are not yet accepted
MAX_TARGET = 4096

_GONE = frozenset({401, 403, 404, 410})  # the server knows nothing of this session, or not any more
_HANDSHAKE = re.compile(rb'\{"jsonrpc":"2\.0",(?:"id":\d+,)?"method":"(?:notifications/)?initialized?"')
_FIRST = re.compile(_HANDSHAKE.pattern + rb'|\{"jsonrpc":"2\.0","id":\d+,"method":"logging/setLevel"')
_NOTIFICATION = b'{"jsonrpc":"2.0","method":'


class SseChannel:
    """The stream of one session, and the address that it named for messages. ``pipe`` gets what comes.

    Messages are posted side by side, except that nothing overtakes the handshake or a log level, and that a
    notification comes after what was said before it: a cancellation after its request.
    """

    pid = 0

    def __init__(self, endpoint: Endpoint, events: EventStream, pipe: Pipe) -> None:
        self._endpoint = endpoint
        self._events = events
        self._pipe = pipe
        self._loop = asyncio.get_running_loop()
        self._reason = ""
        self._first: tuple[asyncio.Task[None], ...] = ()
        self._posts: set[asyncio.Task[None]] = set()
        self._following = self._loop.create_task(self._follow(), name="upstream HTTP+SSE")

    @classmethod
    async def start(cls, endpoint: Endpoint, deadline: float, pipe: Pipe) -> SseChannel:
        """Open the stream and wait for the address; ``UpstreamError`` when the server has no such stream."""
        try:
            async with asyncio.timeout_at(deadline):
                response = await endpoint.listen(b"", math.inf)
                events = _stream(response)
                try:
                    while not events.endpoint:
                        if await events.next() is None:
                            raise UpstreamError("ended its event stream before it said where messages go")
                    target = _target(endpoint.url, events.endpoint)
                except BaseException:
                    events.close()
                    raise
        except TimeoutError:
            raise UpstreamTimeout("did not say in time where messages go") from None
        return cls(endpoint.at(target), events, pipe)

    # What a pipe wants of a channel.

    @property
    def open(self) -> bool:
        return not self._reason

    @property
    def congested(self) -> bool:
        return len(self._posts) >= WAITING

    async def drained(self, deadline: float) -> None:
        """Wait until the server takes messages again."""
        try:
            async with asyncio.timeout_at(deadline):
                while self.congested:
                    await asyncio.wait(self._posts, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise UpstreamTimeout("did not take messages in time") from None
        if self._reason:
            raise UpstreamError(self._reason)

    def write(self, line: bytes) -> None:
        if self._reason:
            return
        first = _FIRST.match(line) is not None
        earlier = tuple(self._posts) if first or line.startswith(_NOTIFICATION) else self._first
        shown = self._endpoint.shown
        whose = None if shown is None else Whose(shown.whose)  # when it is posted, another call may be shown
        task = self._loop.create_task(self._post(line.rstrip(b"\n"), earlier, whose))
        if first:
            self._first = (task,)
        self._posts.add(task)
        task.add_done_callback(self._posts.discard)

    async def stop(self) -> None:
        """Close the stream: that ends the session."""
        self._end("was stopped")
        tasks = (self._following, *self._posts)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Both directions.

    async def _post(self, line: bytes, earlier: Iterable[asyncio.Task[None]], whose: Whose | None) -> None:
        if before := [task for task in earlier if not task.done()]:
            await asyncio.wait(before, timeout=HOLD)
        try:
            response = await self._endpoint.post(b"", line, self._loop.time() + TAKEN, False, whose)
        except UpstreamTimeout:
            return  # the answer may still come on the stream, and whoever waits for it has a clock
        except CallgateError as error:
            self._refused(line, error, False)
            return
        if response.events is not None:
            response.events.close()
        if response.status >= 300:
            why = refusal(response.status, "refused a message")
            self._refused(line, why, response.status in _GONE)

    def _refused(self, line: bytes, error: CallgateError, gone: bool) -> None:
        """One message did not get through. That concerns one request, unless there is no session at all."""
        self._pipe.refused(line, error)
        if gone or _HANDSHAKE.match(line):
            self._end(error.message)

    async def _follow(self) -> None:
        why = "failed for a reason that is in the log of callgate"
        try:
            while (event := await self._events.next()) is not None:
                if event:
                    self._pipe.line(event)
            why = "closed its event stream"
        except CallgateError as error:
            why = error.message
        finally:
            self._end(why)

    def _end(self, why: str) -> None:
        if not self._reason:
            self._reason = why
            self._events.close()
            self._pipe.exited(why)


def _stream(response: Response) -> EventStream:
    if response.events is None:
        raise refusal(response.status, "has no event stream")
    return response.events


def _target(base: str, said: bytes) -> str:
    """Path and query of the address for messages, which must be at the server's own origin: nothing is sent to
    another one, and no credentials. Errors do not repeat it, because it may hold some.

    >>> _target("http://127.0.0.1:1/sse", b"/messages?session=7")
    '/messages?session=7'
    """
    try:
        address = parse_url(urljoin(base, said.decode("ascii")))
        own = parse_url(base)
    except (ConfigError, ValueError):  # UnicodeDecodeError is a ValueError
        raise UpstreamError("named an address for messages that is not usable") from None
    if address.origin != own.origin:
        raise UpstreamError("wants its messages at another origin; callgate does not send them there")
    if len(address.target) > MAX_TARGET:
        raise UpstreamError("named an address for messages that is not usable")
    return address.target

"""The connections to one origin."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque

from callgate.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable

from .address import Address
from .connection import Bounds, Connection, Lost
from .deadlines import Deadlines
from .dial import Route, dial
from .response import Response

# Common servers close idle connections after 5 s (uvicorn, Node). Being first avoids the race in which a
# request meets a connection that is just being closed.
IDLE = 4.0
MAX_IDLE = 60.0
SWEEP = 1.0


class Origin:
    """The connections to one origin: at most ``max_connections``, the next callers wait in order of arrival."""

    def __init__(self, route: Route, bounds: Bounds, max_connections: int, connect_timeout: float) -> None:
        self._route = route
        self._bounds = bounds
        self._max = max_connections
        self._connect_timeout = connect_timeout
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines()
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._open = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def address(self) -> Address:
        return self._route.address

    @property
    def unused(self) -> bool:
        """No connection is open or awaited."""
        return not self._open and not self._waiters

    def start_line(self, method: str, target: str | None = None) -> bytes:
        """Request line and the headers that every request to this origin has."""
        address, proxy = self._route.address, self._route.proxy
        target = target or address.target
        if self._route.absolute:
            target = address.origin + target
        head = f"{method} {target} HTTP/1.1\r\nhost: {address.authority}\r\n"
        if proxy is not None and proxy.credentials and self._route.absolute:
            head += f"proxy-authorization: {proxy.credentials}\r\n"
        return head.encode("ascii")

    async def request(self, data: bytes, deadline: float, *, events: bool = False, replay: bool = False) -> Response:
        """Send one complete request and get its response. ``deadline`` (loop clock) covers everything, the
        events of a stream included. ``replay`` says that sending it twice does no harm.

        ``UpstreamUnavailable`` means that nothing was sent; ``UpstreamError`` and ``UpstreamTimeout`` that the
        server may have acted. A kept-alive connection that turns out to be dead is replaced once, if the peer
        cannot have read the request.
        """
        idle = self._idle
        connection = idle.pop() if idle else await self._acquire(deadline)
        try:
            return await connection.send(data, deadline, events)
        except Lost as lost:
            if not connection.served or lost.heard or not (lost.unread or replay):
                raise
        except asyncio.CancelledError:
            connection.abort()
            raise
        connection = await self._fresh(deadline)
        try:
            return await connection.send(data, deadline, events)
        except asyncio.CancelledError:
            connection.abort()
            raise

    def close(self) -> None:
        """Close every connection; requests still running fail."""
        self._closed = True
        for connection in tuple(self._all):
            connection.close()
        while self._waiters:
            self._wake(None)
        self._deadlines.close()
        if self._sweeper is not None:
            self._sweeper.cancel()

    # Connection's owner.

    def release(self, connection: Connection) -> None:
        if self._closed:
            connection.abort()
        elif not self._waiters or not self._wake(connection):
            told = connection.keep_alive
            keep = IDLE if told is None else min(max(told - 1.0, 0.0), MAX_IDLE)
            connection.idle_until = self._loop.time() + keep
            self._idle.append(connection)
            if self._sweeper is None:
                self._sweeper = self._loop.call_later(SWEEP, self._sweep)

    def lost(self, connection: Connection) -> None:
        if connection in self._all:  # else it is still being dialled
            self._all.discard(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self._open -= 1
            self._wake(None)

    # Waiting and dialling.

    async def _acquire(self, deadline: float) -> Connection:
        while not self._closed:
            if self._idle:
                return self._idle.pop()
            if self._open < self._max:
                return await self._dial(deadline)
            connection = await self._wait(deadline)
            if connection is not None and not connection.closed:
                return connection
        raise UpstreamError("is being shut down")

    async def _fresh(self, deadline: float) -> Connection:
        """A new connection: the other idle ones are as old as the one that was just lost."""
        if self._open >= self._max and self._idle:
            self._idle[0].abort()
        return await (self._dial(deadline) if self._open < self._max else self._acquire(deadline))

    async def _wait(self, deadline: float) -> Connection | None:
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout_at(deadline if deadline < math.inf else None):
                return await waiter
        except (TimeoutError, asyncio.CancelledError) as error:
            self._give_back(waiter)
            if isinstance(error, TimeoutError):
                raise UpstreamTimeout("had no free connection in time") from None
            raise

    def _give_back(self, waiter: asyncio.Future[Connection | None]) -> None:
        """Pass on what a caller was given in the same moment in which it gave up."""
        if not waiter.done() or waiter.cancelled():
            with contextlib.suppress(ValueError):  # `_wake` may have dropped it already
                self._waiters.remove(waiter)
            return
        connection = waiter.result()
        if connection is None or connection.closed:
            self._wake(None)
        else:
            self.release(connection)

    async def _dial(self, deadline: float) -> Connection:
        self._open += 1
        try:
            connection = await dial(
                self._route,
                lambda: Connection(self, self._bounds, self._deadlines),
                min(deadline, self._loop.time() + self._connect_timeout),
            )
        except BaseException:
            self._open -= 1
            self._wake(None)
            raise
        self._all.add(connection)
        if connection.closed or self._closed:
            connection.abort()
            self.lost(connection)
            raise UpstreamUnavailable("could not be reached: it closed the connection at once")
        return connection

    def _wake(self, connection: Connection | None) -> bool:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return True
        return False

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection in [idle for idle in self._idle if idle.idle_until <= now]:
            connection.abort()
        self._sweeper = self._loop.call_later(SWEEP, self._sweep) if self._idle else None

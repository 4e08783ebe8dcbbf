"""Opening and closing listeners: sockets, connections, draining."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import ServerState

from callgate.errors import ConfigError
from callgate.gateway.front import FrontDesk
from callgate.gateway.lane import Lane

log = logging.getLogger("callgate.gateway")

#: How long requests that are running may take to finish when the gateway stops.
DRAIN = 5.0
BACKLOG = 2048


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[::1]:port`.

    >>> split_address("[::1]:8080")
    ('::1', 8080)
    """
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def bind(address: str, key: str) -> socket.socket:
    """A listening socket; raises ``ConfigError`` that names the key and what to do."""
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as why:
        sock.close()
        raise ConfigError(f"Cannot listen on {address} ({key}): {_reason(why)}.", hint=_remedy(why, key)) from None
    sock.setblocking(False)
    return sock


def _reason(why: OSError) -> str:
    return {
        errno.EADDRINUSE: "another program uses this port",
        errno.EACCES: "this user may not use this port",
        errno.EADDRNOTAVAIL: "this machine does not have that address",
    }.get(why.errno or 0, why.strerror or str(why))


def _remedy(why: OSError, key: str) -> str:
    flag = "--port" if key == "listen" else "--admin-port"
    if why.errno in (errno.EADDRINUSE, errno.EACCES):
        return f"Choose another port with `{flag} N` (0 picks a free one), or stop the other program."
    return f"Set `{key}` to an address of this machine."


class Listener:
    """One open listener. ``desk`` says which hosts it answers to, which limits hold, and where MCP endpoints are."""

    def __init__(self, sock: socket.socket, app: ASGIApp, desk: FrontDesk) -> None:
        self.sock = sock
        self.desk = desk
        self.state = ServerState()
        self._config = Config(app, lifespan="off", access_log=False, log_config=None, ws="none", proxy_headers=False)
        self._config.load()
        self._server: asyncio.Server | None = None
        self._sweep: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        return int(self.sock.getsockname()[1])

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection(), sock=self.sock, backlog=BACKLOG)
        self._sweep = loop.create_task(self._keep_sweeping(self.desk), name="connections")

    def _connection(self) -> Callable[[], asyncio.Protocol]:
        config, state, desk = self._config, self.state, self.desk

        def connect() -> Lane:
            lane = Lane(config, state, {})
            lane.desk = desk
            return lane

        return connect

    async def _keep_sweeping(self, desk: FrontDesk) -> None:
        loop = asyncio.get_running_loop()
        while True:
            limits = desk.limits
            shortest = min(limits.header_timeout, limits.body_timeout, limits.idle_timeout)
            await asyncio.sleep(min(1.0, max(0.05, shortest / 4)))
            now = loop.time()
            for connection in tuple(self.state.connections):
                if isinstance(connection, Lane):
                    _sweep(connection, now)

    async def aclose(self) -> None:
        """Stop accepting, let running requests finish (at most ``DRAIN`` seconds), close."""
        if self._server is None:
            self.sock.close()
            return
        self._server.close()
        for connection in tuple(self.state.connections):
            connection.shutdown()
        pause = 0.0005  # mostly there is nothing to wait for but the loop
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN):
                while self.state.connections or self.state.tasks:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, 0.02)
        for connection in tuple(self.state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # the connections learn that they are lost
        # What runs now took too long (a legacy call goes on when its connection is lost, and was waited for as well).
        for task in tuple(self.state.tasks):
            task.cancel()
        await asyncio.gather(*self.state.tasks, return_exceptions=True)
        if self._sweep is not None:
            self._sweep.cancel()


def _sweep(lane: Lane, now: float) -> None:
    try:
        lane.sweep(now)
    except Exception:  # one broken connection must not keep the others from being swept
        log.exception("a connection could not be swept")
        lane.transport.abort()

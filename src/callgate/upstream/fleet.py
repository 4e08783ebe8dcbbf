"""All servers: the only door out of the house for a call."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from callgate.config.model import Server
from callgate.errors import UpstreamUnavailable
from callgate.types import Answer, Listing, Permitted, ServerStatus

from .eras import Eras
from .http import HttpConnector
from .link import Circumstances, Connector
from .references import resolver
from .relay import Emit
from .server import Supervisor
from .stdio import StdioConnector


class Upstreams:
    """Every configured server, each under its own supervision, so that none can hold up another.

    ``on_listing`` and ``on_status`` are called on the event loop whenever a server's tools or state change.
    ``state_dir`` holds the servers' logs (``logs/``) and what was learnt about their eras. Ids of requests are
    unique for the life of this object (MRTR-8).
    """

    def __init__(
        self,
        *,
        on_listing: Callable[[Listing], None],
        on_status: Callable[[ServerStatus], None],
        state_dir: Path,
        resolve_secret: Callable[[str], str],
        client_info: Mapping[str, Any],
    ) -> None:
        self._on_listing = on_listing
        self._on_status = on_status
        self._logs = state_dir / "logs"
        self._resolve_secret = resolve_secret
        self._client_info = client_info
        self._eras = Eras(state_dir / "eras.json")
        self._next_id = itertools.count(1).__next__
        self._servers: dict[str, Supervisor] = {}
        self._bases: dict[str, Path] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._stopped: dict[str, ServerStatus] = {}

    def send(self, permitted: Permitted, emit: Emit | None) -> Awaitable[Answer]:
        """Make one permitted call. ``emit`` gets progress and log notifications for the client as compact JSON.

        ``UpstreamUnavailable``: the server got nothing. ``UpstreamTimeout``, ``UpstreamError``: it may have acted.
        ``Overloaded``: its queue is full.
        """
        call = permitted.call
        server = self._servers.get(call.tool.server)
        if server is None:
            raise UpstreamUnavailable(f"Server `{call.tool.server}` is not configured.")
        return server.send(call, emit)

    async def apply(self, servers: Mapping[str, Server], base: Path) -> None:
        """Make the running servers those of the configuration: stop what is gone, replace what changed, start what
        is new. Returns at once; ``on_status`` tells the rest. Relative paths are relative to ``base``.
        """
        for name, running in tuple(self._servers.items()):
            if servers.get(name) != running.config or self._bases[name] != base:
                del self._servers[name]
                self._end(running)
                if name not in servers:
                    self._on_status(ServerStatus(name, "stopped", running.status().transport))
        self._stopped = {name: _disabled(name, config) for name, config in servers.items() if config.disabled}
        for name, config in servers.items():
            if config.disabled:
                self._on_status(self._stopped[name])
            elif name not in self._servers:
                self._bases[name] = base
                connector = self._connector(name, config, base)
                self._servers[name] = Supervisor(name, config, connector, self._on_listing, self._on_status)

    def statuses(self) -> tuple[ServerStatus, ...]:
        return (*(server.status() for server in self._servers.values()), *self._stopped.values())

    async def settled(self, server: str, timeout: float) -> bool:
        """Wait until the server is ready (true) or its attempt has failed, but not longer than ``timeout`` seconds."""
        found = self._servers.get(server)
        try:
            async with asyncio.timeout(timeout):
                return found is not None and await found.settled()
        except TimeoutError:
            return False

    async def aclose(self) -> None:
        """End every server and wait for it."""
        for server in self._servers.values():
            self._end(server)
        self._servers.clear()
        while self._ending:
            await asyncio.wait(self._ending)

    def _connector(self, name: str, config: Server, base: Path) -> Connector:
        around = Circumstances(
            resolve=resolver(base, self._resolve_secret),
            eras=self._eras,
            client_info=self._client_info,
            next_id=self._next_id,
            base=base,
            logs=self._logs,
        )
        return StdioConnector(name, config, around) if config.command else HttpConnector(config, around)

    def _end(self, server: Supervisor) -> None:
        task = asyncio.create_task(server.aclose())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def _disabled(name: str, config: Server) -> ServerStatus:
    return ServerStatus(name, "stopped", "stdio" if config.command else "http", "disabled in the configuration")

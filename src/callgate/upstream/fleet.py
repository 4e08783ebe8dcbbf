"""All servers: the only door out of the house for a call."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from callgate.config.model import Server
from callgate.errors import UpstreamUnavailable
from callgate.types import Answer, Call, Conduct, Era, Listing, News, Permitted, Principal, Question, ServerStatus

from .endpoint import Credential
from .eras import Eras
from .http import HttpConnector
from .link import Circumstances, Connector, unshown
from .listing import read_listing
from .purpose import Ears, nobody_to_ask, unshared
from .references import References, ResolveSecret
from .server import Supervisor
from .stdio import StdioConnector


class Upstreams:
    """Every configured server, each under its own supervision, so that none can hold up another.

    ``on_listing`` and ``on_status`` are called on the event loop whenever a server's tools or state change,
    ``on_news`` for notifications that belong to no call. ``on_question`` is asked what a server wants to know
    outside calls from the client whose session's link it is: server, key of the principal, session, question.
    ``on_common_again`` is called when what ``own_listing`` gave no longer holds: server, key of the principal, session.
    ``credential`` makes what shows a server who calls.
    ``state_dir`` holds the servers' logs (``logs/``) and what was learnt about their eras. Ids of requests are
    unique for the life of this object (MRTR-8).
    """

    def __init__(
        self,
        *,
        on_listing: Callable[[Listing], None],
        on_status: Callable[[ServerStatus], None],
        state_dir: Path,
        resolve_secret: ResolveSecret,
        client_info: Mapping[str, Any],
        on_news: Callable[[News], None] = lambda news: None,
        on_question: Callable[[str, str, str, Question], Awaitable[Answer]] = nobody_to_ask,
        on_common_again: Callable[[str, str, str], None] = unshared,
        credential: Callable[[str, Server, References], Credential | None] = unshown,
    ) -> None:
        self._ears = Ears(on_listing, on_status, on_news, on_question, on_common_again)
        self._logs = state_dir / "logs"
        self._resolve_secret = resolve_secret
        self._client_info = client_info
        self._credential = credential
        self._eras = Eras(state_dir / "eras.json")
        self._next_id = itertools.count(1).__next__
        self._servers: dict[str, Supervisor] = {}
        self._bases: dict[str, Path] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._stopped: dict[str, ServerStatus] = {}

    def send(self, permitted: Permitted, conduct: Conduct) -> Awaitable[Answer]:
        """Make one permitted call. ``conduct.emit`` gets progress and log notifications for the client as compact JSON.

        ``UpstreamUnavailable``: the server got nothing. ``UpstreamTimeout``, ``UpstreamError``: it may have acted.
        ``Overloaded``: its queue is full.
        """
        call = permitted.call
        server = self._servers.get(call.tool.server)
        if server is None:
            raise UpstreamUnavailable(f"Server `{call.tool.server}` is not configured.")
        return server.send(call, conduct)

    def watch(self, permitted: Permitted, conduct: Conduct) -> Awaitable[Answer]:
        """Begin a permitted subscription to a resource. ``call.params.uri`` is the server's own URI."""
        server = self._servers.get(permitted.call.tool.server)
        if server is None:
            raise UpstreamUnavailable(f"Server `{permitted.call.tool.server}` is not configured.")
        return server.watch(permitted.call, conduct)

    async def unwatch(self, permitted: Permitted, begun: Call, conduct: Conduct) -> Answer:
        """End the subscription that ``begun`` began; the server hears of the last one."""
        server = self._servers.get(permitted.call.tool.server)
        return Answer(b"{}") if server is None else await server.watching.end(begun, conduct)

    def release(self, begun: Call) -> None:
        """The same when its reader has gone."""
        server = self._servers.get(begun.tool.server)
        if server is not None:
            server.watching.release(begun)

    def era(self, call: Call) -> Era | None:
        """The era of the link that this call would take; ``None`` when the server was never reached.

        A guess in one case: a legacy client that can be asked, at a modern server that was not yet tried to open a
        legacy session. ``settle_era`` tries it.
        """
        server = self._servers.get(call.tool.server)
        return None if server is None else server.ways.era_of(call)

    async def settle_era(self, call: Call) -> Era | None:
        """Like ``era``, but certain; waits for the server where that is needed."""
        server = self._servers.get(call.tool.server)
        return None if server is None else await server.settle_era(call)

    def hold(self, call: Call, key: str, seconds: float) -> None:
        """Keep the link that ``call`` took for so long (0: no longer), because the server has something there.

        Calls of ``tasks/*`` whose ``params.taskId`` is ``key`` take that link too.
        """
        server = self._servers.get(call.tool.server)
        if server is not None and (owner := server.ways.owner(call)) is not None:
            server.ways.isolation.hold(owner, call, key, seconds)

    def lists_own(self, server: str, principal: str, session: str) -> bool:
        """Whether a living link of this client's own has announced another list: of a client session, or of a
        principal's clients that have none (``""``).
        """
        found = self._servers.get(server)
        return found is not None and found.ways.isolation.lister(principal, session) is not None

    async def own_listing(self, server: str, principal: str, session: str) -> Listing | None:
        """What a server lists on that link; ``None`` where there is none."""
        found = self._servers.get(server)
        own = None if found is None else found.ways.isolation.lister(principal, session)
        if found is None or own is None:
            return None
        deadline = asyncio.get_running_loop().time() + found.config.connect_timeout
        await asyncio.wait({own.making}, timeout=found.config.connect_timeout)  # it may announce while it begins
        return None if own.link is None else await read_listing(server, own.link, deadline)

    def personal(self) -> frozenset[str]:
        """The servers that list nothing to callgate itself, only to those who have signed in to them."""
        return frozenset(name for name, server in self._servers.items() if server.personal)

    async def listing_for(self, server: str, who: Principal) -> Listing:
        """What a personal server lists to this principal; raises ConsentNeeded before it has agreed."""
        found = self._servers.get(server)
        if found is None:
            raise UpstreamUnavailable(f"Server `{server}` is not configured.")
        return await found.listing_for(who)

    def tell(self, principal: str, session: str, method: str, params: Mapping[str, Any]) -> None:
        """Pass a notification of a legacy client on to the legacy links of its session, as far as they take it."""
        for server in self._servers.values():
            server.ways.tell(principal, session, method, params)

    def forget(self, session: str) -> None:
        """A client session has ended: the links that it had end too."""
        for server in self._servers.values():
            server.ways.isolation.forget(session)

    def revoked(self, principal: str) -> None:
        """A principal was revoked: the links that it had end."""
        for server in self._servers.values():
            server.ways.isolation.revoked(principal)

    async def apply(self, servers: Mapping[str, Server], base: Path) -> None:
        """Make the running servers those of the configuration: stop what is gone, replace what changed, start what
        is new. Returns at once; ``on_status`` tells the rest. Relative paths are relative to ``base``.
        """
        for name, running in tuple(self._servers.items()):
            if servers.get(name) != running.config or self._bases[name] != base:
                del self._servers[name]
                self._end(running)
                if name not in servers:
                    self._ears.status(ServerStatus(name, "stopped", running.status().transport))
        self._stopped = {name: _disabled(name, config) for name, config in servers.items() if config.disabled}
        for name, config in servers.items():
            if config.disabled:
                self._ears.status(self._stopped[name])
            elif name not in self._servers:
                self._bases[name] = base
                self._begin(name, config, base)

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

    def renew(self, names: Iterable[str]) -> None:
        """Start these servers anew, because what their references lead to has changed. Running calls may end first."""
        for name in names:
            if (running := self._servers.get(name)) is not None:
                self._end(running)
                self._begin(name, running.config, self._bases[name])

    def _begin(self, name: str, config: Server, base: Path) -> None:
        references = References(base, self._resolve_secret)
        connector = self._connector(name, config, base, references)
        self._servers[name] = Supervisor(name, config, connector, self._ears, references.mask)

    def _connector(self, name: str, config: Server, base: Path, references: References) -> Connector:
        around = Circumstances(
            references=references,
            eras=self._eras,
            client_info=self._client_info,
            next_id=self._next_id,
            base=base,
            logs=self._logs,
            credential=self._credential,
        )
        return StdioConnector(name, config, around) if config.command else HttpConnector(name, config, around)

    def _end(self, server: Supervisor) -> None:
        server.ways.isolation.unlist_all()  # at once, though running calls may end first
        task = asyncio.create_task(server.aclose())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def _disabled(name: str, config: Server) -> ServerStatus:
    return ServerStatus(name, "stopped", "stdio" if config.command else "http", "disabled in the configuration")

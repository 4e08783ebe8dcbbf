"""A running gateway: the house behind its listeners, reloading, and the way out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.types import ASGIApp

from callgate.config import Loaded, Settings, changes, render
from callgate.errors import ConfigError
from callgate.gateway.app import gateway_app
from callgate.gateway.connecting import connecting_routes
from callgate.gateway.front import BackDesk, FrontDesk
from callgate.gateway.gate import Names, is_loopback
from callgate.gateway.house import House
from callgate.gateway.listen import Listener, bind, split_address

log = logging.getLogger("callgate")

Reload = Callable[[], Loaded]
AdminApp = Callable[[House], ASGIApp]


class Gateway:
    """The gateway and its two listeners.

    ``reload`` reads the configuration again, ``admin_app`` makes the application of the admin listener.
    """

    def __init__(self, loaded: Loaded, reload: Reload, admin_app: AdminApp) -> None:
        host, _ = split_address(loaded.settings.listen)
        self._sockets = bind_both(loaded)
        self.house = House(loaded, loopback=is_loopback(host))
        self._reload = reload
        self._stopped = asyncio.Event()
        settings = loaded.settings
        names = [
            Names(split_address(address)[0], sock.getsockname()[1], _hosts(settings), origins)
            for address, sock, origins in (
                (settings.listen, self._sockets[0], _origins(settings)),
                (settings.admin_listen, self._sockets[1], ()),  # pages that may call have no business there
            )
        ]
        desk = FrontDesk(self.house, names[0])
        self.admin_url = url_of(self._sockets[1])
        self.url = url_of(self._sockets[0]) + "/mcp"
        self.house.urls = {"mcp": self.url, "admin": self.admin_url}
        self._front = Listener(self._sockets[0], gateway_app(desk, self.admin_url), desk)
        self._admin = Listener(self._sockets[1], admin_app(self.house), BackDesk(self.house, names[1]))
        self._watching: asyncio.Task[None] | None = None
        self._reloads: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()

    async def open(self) -> None:
        await self.house.open()
        await self._front.open()
        await self._admin.open()
        loop = asyncio.get_running_loop()
        for name in ("SIGINT", "SIGTERM"):
            _on_signal(loop, name, self.stop)
        _on_signal(loop, "SIGHUP", self._hang_up)
        if self.house.settings.watch:
            self._watching = loop.create_task(self._watch(), name="watch")

    def stop(self) -> None:
        self._stopped.set()

    async def serve(self) -> None:
        """Serve until ``stop``; no deadline, it is what the process is for."""
        await self._stopped.wait()

    async def aclose(self) -> None:
        tasks = [*self._reloads, *([self._watching] if self._watching is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.house.lines.close()
        self.house.sessions.close_streams()
        self.house.streams.end()
        await asyncio.gather(self._front.aclose(), self._admin.aclose())
        await self.house.aclose()

    async def reload(self) -> None:
        """Read the configuration again. A mistake in it changes nothing, and is told in the log and at /readyz."""
        async with self._reloading:  # what was read last has the last word
            await self._reload_now()

    async def _reload_now(self) -> None:
        try:
            loaded = await asyncio.to_thread(self._reload)
            await self.house.reload(loaded)
            self.house.trouble = ""
        except ConfigError as error:
            self.house.trouble = render(error, excerpt=False)
            log.error("the configuration was not taken over, the old one stays:\n%s", render(error))
        except Exception:
            self.house.trouble = "internal error, see the log"
            log.exception("the configuration was not taken over, the old one stays")

    def _hang_up(self) -> None:
        task = asyncio.get_running_loop().create_task(self.reload(), name="reload")
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _watch(self) -> None:
        async with contextlib.aclosing(changes(self._files)) as bursts:
            async for _ in bursts:
                await self.reload()

    def _files(self) -> tuple[Path, ...]:
        return self.house.loaded.files


class PagesOnly:
    """A listener on this machine for the pages on which a user connects to servers, and for nothing else: a client on
    stdin has no listener, and the user's browser has to come back to somewhere. It takes the port of the last time
    where that is free, because issuers know callgate by it.
    """

    def __init__(self, house: House) -> None:
        self._sock = _bind_again(house.loaded.data_dir / "pages.port")
        desk = BackDesk(house, Names("127.0.0.1", self._sock.getsockname()[1], (), ()))
        house.urls["mcp"] = url_of(self._sock) + "/mcp"
        self._listener = Listener(self._sock, Starlette(routes=connecting_routes(desk, signs_in=False)), desk)

    @staticmethod
    def wanted(settings: Settings) -> bool:
        """Whether there is anything to connect to, and no gateway whose pages do."""
        return not settings.public_url and any(each.auth.type == "oauth" for each in settings.servers.values())

    async def open(self) -> None:
        await self._listener.open()

    async def aclose(self) -> None:
        await self._listener.aclose()


def _bind_again(kept: Path) -> socket.socket:
    """Bind the port on this machine that a file names, or a free one, which it names from now on."""
    port = kept.read_text("ascii").strip() if kept.is_file() else ""
    if port.isascii() and port.isdigit():
        with contextlib.suppress(ConfigError, OverflowError):
            return bind(f"127.0.0.1:{port}", "listen")
    sock = bind("127.0.0.1:0", "listen")
    if not port:  # where another client has it at the moment, it is still the usual one
        kept.write_text(str(sock.getsockname()[1]), "ascii")
    return sock


def _hosts(settings: Settings) -> tuple[str, ...]:
    """Names that the listeners answer to besides their own."""
    public = urlsplit(settings.public_url or "").netloc
    return (*settings.allowed_hosts, public) if public else settings.allowed_hosts


def _origins(settings: Settings) -> tuple[str, ...]:
    """Origins whose pages may call: behind a proxy the gateway's own pages have that of ``public_url``."""
    public = urlsplit(settings.public_url or "")
    own = (f"{public.scheme}://{public.netloc}",) if public.netloc else ()
    return (*settings.allowed_origins, *own)


def bind_both(loaded: Loaded) -> tuple[socket.socket, socket.socket]:
    front = bind(loaded.settings.listen, "listen")
    try:
        return front, bind(loaded.settings.admin_listen, "admin_listen")
    except ConfigError:
        front.close()
        raise


def url_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - listened on, but nothing to connect to
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _on_signal(loop: asyncio.AbstractEventLoop, name: str, act: Callable[[], None]) -> None:
    number = getattr(signal, name, None)
    if number is None:
        return
    try:
        loop.add_signal_handler(number, act)
    except NotImplementedError:  # Windows
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(act))


def event_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop where there is one."""
    if os.name != "nt":
        try:
            import uvloop

            return uvloop.new_event_loop
        except ImportError:
            pass
    return asyncio.new_event_loop

"""How a connection comes to be: resolve, connect, perhaps through a proxy, perhaps with TLS."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable

import msgspec

from callgate.errors import UpstreamError, UpstreamUnavailable

from .address import Address, resolve
from .connection import Connection
from .guard import Guard
from .proxy import Proxy
from .trust import trust

# Seconds of silence, seconds between probes, probes without an answer.
_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPALIVE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}


class Route(msgspec.Struct, frozen=True):
    """The way to one origin. With a ``guard`` the connection goes to an address that it has checked; where a proxy
    resolves the name, only the name was.
    """

    address: Address
    proxy: Proxy | None = None
    ca_file: str | None = None
    guard: Guard | None = None

    @property
    def absolute(self) -> bool:
        """Requests name the whole URL (RFC 9112, section 3.2.2)."""
        return self.proxy is not None and not self.address.secure


async def dial(route: Route, make: Callable[[], Connection], deadline: float) -> Connection:
    """A connection ready for requests, or ``UpstreamUnavailable`` that says why not."""
    address = route.address
    try:
        async with asyncio.timeout_at(deadline):
            context = await trust(route.ca_file) if address.secure else None
            if route.proxy is None:
                found = await (route.guard.addresses if route.guard else resolve)(address.host, address.port)
                return await _connect(found, address, make, context, deadline)
            found = await resolve(route.proxy.host, route.proxy.port)
            connection = await _connect(found, route.proxy, make, None, deadline)
            return connection if context is None else await _tunnel(connection, route, context, deadline)
    except TimeoutError:
        raise UpstreamUnavailable(f"could not be reached: no connection to {address.authority} in time") from None


async def _connect(
    addresses: list[str],
    to: Address | Proxy,
    make: Callable[[], Connection],
    context: ssl.SSLContext | None,
    deadline: float,
) -> Connection:
    """Connect to the first of these addresses that answers; nothing is resolved again."""
    loop = asyncio.get_running_loop()
    problem: Exception = OSError("no address")
    for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
        share = loop.time() + (deadline - loop.time()) / left
        try:
            async with asyncio.timeout_at(share):
                transport, connection = await loop.create_connection(
                    make, address, to.port, ssl=context, server_hostname=to.host if context else None
                )
            _keep_alive(transport)
            return connection
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            problem = error
    raise UpstreamUnavailable(f"could not be reached at {to.host}:{to.port}: {_why(problem)}") from None


def _keep_alive(transport: asyncio.BaseTransport) -> None:
    """Notice within a minute that the other side has gone without a word: on streams callgate only listens."""
    link = transport.get_extra_info("socket")
    if link is None:
        return
    with contextlib.suppress(OSError):  # it is closed already, which is noticed elsewhere
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _ALIVE.items():
            if (option := getattr(socket, name, None)) is not None:
                link.setsockopt(socket.IPPROTO_TCP, option, value)


async def _tunnel(connection: Connection, route: Route, context: ssl.SSLContext, deadline: float) -> Connection:
    """Ask the proxy for a tunnel (RFC 9110, section 9.3.6) and speak TLS with the server through it."""
    assert route.proxy is not None
    peer = f"{route.address.host}:{route.address.port}".encode()
    request = b"CONNECT %b HTTP/1.1\r\nhost: %b\r\n" % (peer, peer)
    if route.proxy.credentials:
        request += b"proxy-authorization: %b\r\n" % route.proxy.credentials.encode()
    try:
        status = await connection.tunnel(request + b"\r\n", deadline)
        if status != 200:
            raise UpstreamUnavailable(f"could not be reached: the proxy answered {status} to CONNECT")
        await connection.start_tls(context, route.address.host)
    except OSError as error:
        connection.abort()
        raise UpstreamUnavailable(f"could not be reached through the proxy: {_why(error)}") from None
    except UpstreamUnavailable:
        connection.abort()
        raise
    except UpstreamError as error:
        raise UpstreamUnavailable(f"could not be reached: the proxy {error.message}") from None
    except asyncio.CancelledError:
        connection.abort()
        raise
    return connection


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return getattr(error, "strerror", None) or str(error)

"""The HTTP client: keep-alive connections, kept by origin."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any
from urllib.parse import urljoin

from callgate.errors import ConfigError, UpstreamError

from .address import Address, parse_url
from .connection import Bounds
from .dial import Route
from .guard import Guard
from .origin import Origin
from .proxy import choose_proxy
from .response import Response

REDIRECTS = 3
#: Origins that a guarded pool remembers: strangers can name many.
MOST_ORIGINS = 256
_TOKEN = re.compile(r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_VALUE = re.compile(r"^[\t\x20-\x7e\xa0-\xff]*\Z")


class HttpPool:
    """Origins by URL. One pool has one trust profile (``ca_file``), one proxy rule and one set of bounds.

    ``proxy``: URL of an HTTP proxy, ``""`` for none, ``None`` for what the environment says. Times are seconds,
    ``max_body`` bytes. ``guard``: which addresses may be reached; without one, all.
    """

    def __init__(
        self,
        *,
        ca_file: str | None = None,
        proxy: str | None = None,
        max_connections: int = 64,
        max_body: int = 16 * 1024 * 1024,
        connect_timeout: float = 10.0,
        env: Mapping[str, str] = os.environ,
        guard: Guard | None = None,
    ) -> None:
        self._ca_file = ca_file
        self._proxy = proxy
        self._max_connections = max_connections
        self._bounds = Bounds(body=max_body)
        self._connect_timeout = connect_timeout
        self._env = env
        self._guard = guard
        self._origins: dict[tuple[str, Guard | None], Origin] = {}

    def origin(self, url: str, also: AbstractSet[str] = frozenset()) -> Origin:
        """The connections for ``url``; ``ConfigError`` if that is not an http(s) URL, ``NotPublic`` if the guard
        refuses it. ``also``: hosts that the operator named elsewhere, which pass the guard.
        """
        address = parse_url(url)
        everything = self._guard is not None and not self._guard.only_redirects
        return self._origin(address, self._rule(address, also) if everything else None)

    def _rule(self, address: Address, also: AbstractSet[str]) -> Guard | None:
        guard = self._guard
        return guard.also(address.host) if guard is not None and address.host in also else guard

    def _origin(self, address: Address, guard: Guard | None) -> Origin:
        found = self._origins.get((address.origin, guard))
        if found is None:
            proxy = choose_proxy(address, self._proxy, self._env)
            if guard is not None:
                guard.check(address.host, proxied=proxy is not None)
                self._forget_unused()
            route = Route(address, proxy, self._ca_file, guard)
            found = Origin(route, self._bounds, self._max_connections, self._connect_timeout)
            self._origins[address.origin, guard] = found
        return found

    def _forget_unused(self) -> None:
        if len(self._origins) >= MOST_ORIGINS:
            self._origins = {key: each for key, each in self._origins.items() if not each.unused}

    async def fetch(self, url: str, *, limit: int = 1024 * 1024, **more: Any) -> bytes:
        """The body of a GET, for small documents such as key sets; see ``get``."""
        return (await self.get(url, limit=limit, **more)).body

    async def get(
        self,
        url: str,
        *,
        limit: int = 1024 * 1024,
        timeout: float = 10.0,
        headers: Mapping[str, str] | None = None,
        redirects: int = REDIRECTS,
        also: AbstractSet[str] = frozenset(),
    ) -> Response:
        """The response to a GET. Anything but 200 is an ``UpstreamError``; so many redirects are followed, only
        within the same scheme, and ``headers`` stay at the first host. ``also``: see ``origin``.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        address = first = parse_url(url)
        origin = self.origin(url, also)
        for left in range(redirects, -1, -1):
            extra = headers if headers and address.origin == first.origin else {}
            head = origin.start_line("GET", address.target) + b"accept: */*\r\naccept-encoding: identity\r\n"
            response = await origin.request(head + encode_headers(extra) + b"\r\n", deadline, replay=True)
            where = response.headers.get(b"location")
            if not left or response.status not in (301, 302, 303, 307, 308) or where is None:
                return _document(response, address, limit, followed=redirects - left)
            address = parse_url(urljoin(address.origin + address.target, where.decode("latin-1")))
            if address.secure != first.secure:
                raise UpstreamError(f"{first.origin} redirects to another scheme")
            origin = self._origin(address, await self._onwards(first, address, also))
        raise AssertionError("unreachable")

    async def _onwards(self, first: Address, address: Address, also: AbstractSet[str]) -> Guard | None:
        """The guard of a redirect: hosts within the network may redirect within it, public ones not into it."""
        guard = self._rule(address, also)
        if guard is not None and guard.only_redirects:
            inside = address.host == first.host or not await guard.public(first.host, first.port)
            return None if inside else guard
        return guard

    async def aclose(self) -> None:
        for origin in self._origins.values():
            origin.close()
        self._origins.clear()
        await asyncio.sleep(0)  # transports close their sockets in the next turn of the loop


def _document(response: Response, address: Address, limit: int, followed: int) -> Response:
    if followed and response.status in (301, 302, 303, 307, 308):
        raise UpstreamError(f"{address.origin} redirects too often")
    if response.status != 200:
        raise UpstreamError(f"{address.origin}{address.target} answered {response.status}")
    if len(response.body) > limit:
        raise UpstreamError(f"{address.origin}{address.target} is larger than {limit} bytes")
    return response


def encode_headers(headers: Mapping[str, str]) -> bytes:
    """Header lines; a name or value that could break out of its line is a ``ConfigError``."""
    lines = []
    for name, value in headers.items():
        if not _TOKEN.match(name) or not _VALUE.match(value):
            raise ConfigError(
                f"The header `{name}` cannot be sent: its name or value has characters that are not allowed."
            )
        lines.append(f"{name.lower()}: {value}\r\n")
    return "".join(lines).encode("latin-1")

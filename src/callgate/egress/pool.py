"""The HTTP client: keep-alive connections, kept by origin."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from urllib.parse import urljoin

from callgate.errors import ConfigError, UpstreamError

from .address import Address, parse_url
from .connection import Bounds
from .dial import Route
from .origin import Origin
from .proxy import choose_proxy
from .response import Response

REDIRECTS = 3
_TOKEN = re.compile(r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_VALUE = re.compile(r"^[\t\x20-\x7e\xa0-\xff]*\Z")


class HttpPool:
    """Origins by URL. One pool has one trust profile (``ca_file``), one proxy rule and one set of bounds.

    ``proxy``: URL of an HTTP proxy, ``""`` for none, ``None`` for what the environment says. Times are seconds,
    ``max_body`` bytes.
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
    ) -> None:
        self._ca_file = ca_file
        self._proxy = proxy
        self._max_connections = max_connections
        self._bounds = Bounds(body=max_body)
        self._connect_timeout = connect_timeout
        self._env = env
        self._origins: dict[str, Origin] = {}

    def origin(self, url: str) -> Origin:
        """The connections for ``url``; ``ConfigError`` if that is not an http(s) URL."""
        return self._origin(parse_url(url))

    def _origin(self, address: Address) -> Origin:
        found = self._origins.get(address.origin)
        if found is None:
            route = Route(address, choose_proxy(address, self._proxy, self._env), self._ca_file)
            found = Origin(route, self._bounds, self._max_connections, self._connect_timeout)
            self._origins[address.origin] = found
        return found

    async def fetch(
        self, url: str, *, limit: int = 1024 * 1024, timeout: float = 10.0, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """The body of a GET, for small documents such as key sets. Anything but 200 is an ``UpstreamError``;
        redirects are followed a few times, only within the same scheme, and ``headers`` stay at the first host.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        address = first = parse_url(url)
        for _ in range(REDIRECTS + 1):
            origin = self._origin(address)
            extra = headers if headers and address.origin == first.origin else {}
            head = origin.start_line("GET", address.target) + b"accept: */*\r\naccept-encoding: identity\r\n"
            response = await origin.request(head + encode_headers(extra) + b"\r\n", deadline, replay=True)
            where = response.headers.get(b"location")
            if response.status not in (301, 302, 303, 307, 308) or where is None:
                return _document(response, address, limit)
            address = parse_url(urljoin(address.origin + address.target, where.decode("latin-1")))
            if address.secure != first.secure:
                raise UpstreamError(f"{first.origin} redirects to another scheme")
        raise UpstreamError(f"{first.origin} redirects too often")

    async def aclose(self) -> None:
        for origin in self._origins.values():
            origin.close()
        self._origins.clear()
        await asyncio.sleep(0)  # transports close their sockets in the next turn of the loop


def _document(response: Response, address: Address, limit: int) -> bytes:
    if response.status != 200:
        raise UpstreamError(f"{address.origin}{address.target} answered {response.status}")
    if len(response.body) > limit:
        raise UpstreamError(f"{address.origin}{address.target} is larger than {limit} bytes")
    return response.body


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

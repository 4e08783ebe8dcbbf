"""URLs and addresses: what may be asked for, and the one place where a name becomes an address."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from urllib.parse import urlsplit

import msgspec

from callgate.errors import ConfigError, UpstreamUnavailable

_PLAIN = re.compile(r"^[\x21-\x7e]*$")


class Address(msgspec.Struct, frozen=True):
    """An http(s) URL taken apart. ``target`` is path and query, ``authority`` the value of ``Host``."""

    secure: bool
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.authority}"


def parse_url(url: str) -> Address:
    """Take an http(s) URL apart; anything else, credentials in it, or characters that could break out of the
    request line are a ``ConfigError``.

    >>> parse_url("https://example.org/mcp?x=1").target
    '/mcp?x=1'
    """
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname or ""
        host = host if host.isascii() else host.encode("idna").decode("ascii")
    except (ValueError, UnicodeError) as error:
        raise ConfigError(f"`{url}` is not a URL: {error}.") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"`{url}` is not an http or https URL.")
    if parts.username is not None or parts.password is not None:
        raise ConfigError("A URL must not contain credentials.", hint="Put them into `headers`.")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not _PLAIN.match(target) or not _PLAIN.match(host) or url != url.strip() or re.search(r"[\t\r\n]", url):
        raise ConfigError("The URL contains characters that must be percent-encoded.")
    secure = parts.scheme == "https"
    return Address(secure=secure, host=host, port=port or (443 if secure else 80), target=target)


def is_loopback(host: str) -> bool:
    """Whether a host of a URL is this machine; a name that only resolves to it is not."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of ``host``, in the order to try. Every outgoing connection is dialled to one of these and
    never resolved again, so checks of addresses and pinning belong here and nowhere else.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UpstreamUnavailable(f"the name {host} cannot be resolved ({error.strerror or error})") from None
    return list(dict.fromkeys(str(info[4][0]) for info in found))

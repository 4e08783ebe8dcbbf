"""Which HTTP proxy stands between us and a server."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

import msgspec

from callgate.errors import ConfigError

from .address import Address, is_loopback


class Proxy(msgspec.Struct, frozen=True):
    """``credentials`` is the value of ``Proxy-Authorization``, or ``""``."""

    host: str
    port: int
    credentials: str = ""


def parse_proxy(url: str) -> Proxy:
    """``http://[user:password@]host[:port]``; nothing else is spoken to a proxy."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or 80
    except ValueError as error:
        raise ConfigError(f"The proxy URL is not valid: {error}.") from None
    if parts.scheme != "http" or not parts.hostname:
        raise ConfigError("A proxy must be given as `http://host:port`.")
    credentials = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        credentials = "Basic " + base64.b64encode(pair.encode()).decode()
    return Proxy(host=parts.hostname, port=port, credentials=credentials)


def choose_proxy(address: Address, explicit: str | None, env: Mapping[str, str]) -> Proxy | None:
    """``explicit`` if given (``""`` means none), else ``HTTPS_PROXY`` or ``HTTP_PROXY`` (or lower case) unless
    ``NO_PROXY`` names the host. The environment never sends loopback traffic through a proxy.
    """
    if explicit is not None:
        return parse_proxy(explicit) if explicit else None
    name = "HTTPS_PROXY" if address.secure else "HTTP_PROXY"
    url = env.get(name.lower()) or env.get(name)
    if not url or is_loopback(address.host) or _excluded(address, env.get("no_proxy") or env.get("NO_PROXY") or ""):
        return None
    return parse_proxy(url)


def _excluded(address: Address, no_proxy: str) -> bool:
    """Entries are host names (which cover their subdomains), addresses, networks, with an optional port, or ``*``."""
    for entry in (part.strip().lower() for part in no_proxy.split(",")):
        if entry == "*":
            return True
        host, colon, port = entry.rpartition(":")
        if colon and port.isdigit() and ":" not in host:
            if int(port) != address.port:
                continue
            entry = host
        if entry and (_within(address.host, entry) or f".{address.host}".endswith(f".{entry.lstrip('.')}")):
            return True
    return False


def _within(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False

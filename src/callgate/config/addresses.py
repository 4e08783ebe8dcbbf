"""Listener addresses: ``host:port`` and ``[::1]:port``."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[A-Za-z0-9_.-]+)):(?P<port>[0-9]{1,5})")


class Address(NamedTuple):
    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host.lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.partition("%")[0]).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address | None:
    """The address, or ``None`` when ``text`` is not one. Port 0 lets the system choose.

    >>> parse_address("[::1]:8080"), parse_address("localhost:0").loopback, parse_address(":8080")
    (Address(host='::1', port=8080), True, None)
    """
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found["port"]) > 65535:
        return None
    if found["v6"] is not None:
        try:
            ipaddress.IPv6Address(found["v6"])
        except ValueError:
            return None
    host = found["v6"] or found["host"]
    if re.fullmatch(r"[0-9.]+", host) and not _is_ipv4(host):
        return None
    return Address(host, int(found["port"]))


def _is_ipv4(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def address_hint(text: str) -> str:
    """What to write instead of an address that does not parse."""
    port = re.fullmatch(r":?([0-9]{1,5})", text)
    if port and int(port[1]) <= 65535:
        return f"write `127.0.0.1:{port[1]}`, or `0.0.0.0:{port[1]}` to listen on all interfaces"
    if re.fullmatch(r"[A-Za-z0-9_.-]+", text):
        return f"add a port: `{text}:8080`"
    return "write `host:port` such as `127.0.0.1:8080`, or `[::1]:8080`; ports go up to 65535"

"""The guard: which addresses may be reached for URLs that strangers name (server-side request forgery).

The tables follow the IANA registries of special-purpose addresses. What is not known to be public is refused, also
addresses that carry a private one inside (IPv4-mapped, NAT64, 6to4, Teredo).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import msgspec

from callgate.errors import UpstreamUnavailable

from .address import resolve

Ip = IPv4Address | IPv6Address
Net = IPv4Network | IPv6Network


def _nets(text: str) -> tuple[Net, ...]:
    return tuple(ip_network(each) for each in text.split())


_PRIVATE = _nets(
    "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 168.63.129.16/32 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 "
    "192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 "
    "2001::/23 2001:db8::/32 2002::/16 3fff::/20"
)
#: Unicast addresses of IPv6 that are handed out to anybody; all others are for special purposes.
_GIVEN_OUT = IPv6Network("2000::/3")
#: Refused even for a host that is allowed by its name: metadata of clouds, and what is no single machine.
_NEVER = _nets(
    "0.0.0.0/8 100.100.100.200/32 168.63.129.16/32 169.254.0.0/16 224.0.0.0/4 240.0.0.0/4 "
    "::/128 fd00:ec2::254/128 fe80::/10 ff00::/8"
)
_TRANSLATED = IPv6Network("64:ff9b::/96")
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
#: Names that never stand for a machine of the public internet.
_LOCAL = re.compile(
    r"(.+\.)?(localhost|localdomain|local|internal|intranet|private|corp|home|lan|home\.arpa|svc)|[a-z0-9_-]+"
)
_HINT = "Addresses of your own network are allowed with `egress.allow_private`."


class NotPublic(UpstreamUnavailable):
    """The URL leads to an address that is not public, or may not be public."""


class Guard(msgspec.Struct, frozen=True):
    """What is let through besides public addresses: ``networks`` and, whatever they resolve to, ``names``
    (``*.`` in front covers all names below). ``only_redirects``: only where a redirect leads to another host.
    """

    networks: tuple[Net, ...] = ()
    names: frozenset[str] = frozenset()
    only_redirects: bool = False
    find: Callable[[str, int], Awaitable[list[str]]] = resolve

    @classmethod
    def allowing(cls, entries: Iterable[str], *, only_redirects: bool = False) -> Guard:
        """The guard for ``egress.allow_private``: addresses, networks and names of hosts."""
        networks, names = [], set()
        for entry in entries:
            try:
                networks.append(ip_network(entry, strict=False))
            except ValueError:
                names.add(_plain(entry))
        return cls(tuple(networks), frozenset(names), only_redirects)

    def also(self, host: str) -> Guard:
        """This guard, and the operator named this host."""
        return msgspec.structs.replace(self, names=self.names | {_plain(host)})

    def check(self, host: str, *, proxied: bool = False) -> None:
        """Refuse what can be refused without resolving; ``proxied`` hosts are never resolved here. Raises NotPublic."""
        name = _plain(host)
        if self._named(name):
            return
        literal = _literal(name)
        if literal is not None:
            if not self._passes(literal, name):
                raise _refused(host)
            return
        if not _NAME.fullmatch(name) or _NUMBER.fullmatch(name.rpartition(".")[2]):
            raise _refused(host)
        if _LOCAL.fullmatch(name) and (proxied or not self.networks):
            raise _refused(host)

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of ``host``, all of them checked; the connection goes to one of these. Raises NotPublic."""
        self.check(host)
        found = await self.find(host, port)
        name = _plain(host)
        if not found or not all(self._passes(_literal(each), name) for each in found):
            raise _refused(host)
        return found

    async def public(self, host: str, port: int) -> bool:
        """Whether a host is one that is let through. A name that only a proxy can resolve counts as one."""
        try:
            await self.addresses(host, port)
        except NotPublic:
            return False
        except UpstreamUnavailable:
            return True
        return True

    def _named(self, name: str) -> bool:
        if name in self.names:
            return True
        parents = name.split(".")
        return any("*." + ".".join(parents[at:]) in self.names for at in range(1, len(parents)))

    def _passes(self, address: Ip | None, name: str) -> bool:
        if address is None:
            return False
        if any(address in each for each in self.networks) or name == str(address) in self.names:
            return True
        if self._named(name):
            return not any(address in each for each in _NEVER)
        return is_public(address) and not _LOCAL.fullmatch(name)


def is_public(address: Ip) -> bool:
    """Whether an address is one that anybody on the internet may have."""
    if isinstance(address, IPv6Address) and address not in _GIVEN_OUT:
        return False
    return not any(address in each for each in _PRIVATE)


def _plain(host: str) -> str:
    return host.lower().removesuffix(".")


def _literal(text: str) -> Ip | None:
    """The address that a text stands for; where it carries one of IPv4, that one, because there it ends up."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _TRANSLATED:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _refused(host: str) -> NotPublic:
    return NotPublic(f"may not be reached: {ascii(host)[1:-1][:128]} is not a public address", hint=_HINT)

"""What `egress.allow_private` may hold: networks, addresses, and names of hosts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_network

from callgate.errors import ConfigError

from .document import Document
from .model import Egress

_HOST = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")


def check_egress(egress: Egress, document: Document) -> Iterator[ConfigError]:
    """Every entry that would allow nothing."""
    for at, entry in enumerate(egress.allow_private):
        if not _network(entry) and (not _HOST.fullmatch(entry) or _NUMBER.fullmatch(entry.rpartition(".")[2])):
            said = f"`{entry}` is neither a network nor the name of a host"
            hint = "write it like `10.1.0.0/16`, `fd12:3456::/32`, `idp.corp.example` or `*.corp.example`"
            yield document.wrong(said, ("egress", "allow_private", at), hint=hint)


def _network(entry: str) -> bool:
    try:
        ip_network(entry, strict=False)
    except ValueError:
        return False
    return True

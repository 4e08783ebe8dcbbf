"""Whom `identity.client_certificates` trusts: addresses and networks, not everybody."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from callgate.errors import ConfigError

from .document import Document
from .model_identity import Identity
from .node import Path_


def check_certificates(identity: Identity, document: Document) -> Iterator[ConfigError]:
    """Every entry that names no proxy, and settings without tokens that could be bound."""
    certificates = identity.client_certificates
    if certificates is None:
        return
    at: Path_ = ("identity", "client_certificates")
    if identity.oauth is None and not identity.jwt:
        hint = "add `oauth:` or `jwt:`, or remove it"
        yield document.wrong("`client_certificates` has no effect without tokens", at, hint=hint, key=True)
    for index, entry in enumerate(certificates.proxies):
        try:
            network = ip_network(entry, strict=False)
        except ValueError:
            hint = "write it like `10.0.0.7`, `10.1.0.0/16` or `fd12:3456::/32`"
            yield document.wrong(f"`{entry}` is not an address or a network", (*at, "proxies", index), hint=hint)
            continue
        if network.prefixlen == 0:
            hint = "name the proxies: whoever may send the header can be any client"
            yield document.wrong(f"`{entry}` trusts everybody", (*at, "proxies", index), hint=hint)

"""The certificates of clients, as proxies that end TLS pass them on: ``Client-Cert`` (RFC 9440) and Envoy's header.

Whoever can send the header can be anybody, so it counts from the configured proxies only, and it is read strictly:
what could be read in two ways is refused.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import OrderedDict
from ipaddress import ip_address, ip_network
from urllib.parse import unquote_to_bytes

import msgspec

from callgate.config import ClientCertificates
from callgate.identity.s256 import base64url, s256

from .refusal import Refused

#: A certificate in its header (bytes). Certificates take one to four thousand.
MOST_BYTES = 16 * 1024
#: Headers and peers whose meaning is remembered: a client sends the same certificate with every request.
REMEMBERED = 1024
#: Certificates between that of a client and its authority.
MOST_BETWEEN = 7
_BINARY = re.compile(rb":([A-Za-z0-9+/]+={0,2}):")
_PAIR = re.compile(rb'([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^";,=]*)(;|,|$)')
_HASH = re.compile(rb"[0-9a-fA-F]{64}")
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")


class Certificate(msgspec.Struct, frozen=True):
    """A certificate that a client connected with. ``thumbprint`` is its SHA-256 in base64url; ``der`` is empty where
    the proxy told only that. ``between`` are the certificates (DER) between it and its authority.
    """

    thumbprint: str
    der: bytes = b""
    between: tuple[bytes, ...] = ()


class Certificates:
    """Reads the header of one configuration. The proxy has verified the certificate; nothing here does so again."""

    def __init__(self, config: ClientCertificates) -> None:
        self.header = config.header.lower().encode()
        #: Where RFC 9440 has the other certificates; Envoy has them in the same header.
        self.chain_header = b"client-cert-chain" if config.header == "Client-Cert" else b""
        self._read = of_structured_field if config.header == "Client-Cert" else of_envoy
        self._proxies = tuple(ip_network(each, strict=False) for each in config.proxies)
        self._peers: OrderedDict[str, bool] = OrderedDict()
        self._known: OrderedDict[bytes, Certificate] = OrderedDict()

    def trusts(self, peer: str) -> bool:
        """Whether the other end of a connection is one of the proxies."""
        found = self._peers.get(peer)
        if found is None:
            found = self._peers[peer] = self._is_proxy(peer)
            if len(self._peers) > REMEMBERED:
                self._peers.popitem(last=False)
        return found

    def _is_proxy(self, peer: str) -> bool:
        try:
            address = ip_address(peer.partition("%")[0])
        except ValueError:  # a socket without addresses
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._proxies)

    def read(self, raw: bytes) -> Certificate:
        """The certificate in the header. Raises Refused."""
        found = self._known.get(raw)
        if found is not None:
            self._known.move_to_end(raw)
            return found
        if len(raw) > MOST_BYTES:
            raise Refused("not accepted", f"the certificate takes more than {MOST_BYTES} bytes")
        try:
            found = self._read(raw)
        except (ValueError, binascii.Error) as error:
            raise Refused("not accepted", f"the header of the certificate cannot be read: {error}") from None
        self._known[raw] = found
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return found

    def read_all(self, raw: bytes, chain: bytes | None) -> Certificate:
        """The certificate with those in the header of the chain. Raises Refused."""
        found = self.read(raw)
        if chain is None:
            return found
        try:
            return Certificate(found.thumbprint, found.der, chain_of(chain))
        except (ValueError, binascii.Error) as error:
            raise Refused("not accepted", f"the header of the chain cannot be read: {error}") from None


def chain_of(raw: bytes) -> tuple[bytes, ...]:
    """``Client-Cert-Chain``: a list of byte sequences (RFC 9440, section 2.3). Raises ValueError."""
    if len(raw) > MOST_BYTES:
        raise ValueError(f"longer than {MOST_BYTES} bytes")
    return tuple(of_structured_field(each).der for each in raw.split(b","))


def of_structured_field(raw: bytes) -> Certificate:
    """``Client-Cert``: one byte sequence (RFC 9440, section 2.2), without parameters. Raises ValueError."""
    found = _BINARY.fullmatch(raw.strip(b" "))
    if found is None:
        raise ValueError("not one byte sequence")
    return _of_der(base64.b64decode(found[1], validate=True))


def of_envoy(raw: bytes) -> Certificate:
    """``X-Forwarded-Client-Cert``: one element, of the client of this proxy, with ``Cert`` or ``Hash``.

    Several elements are the way through several proxies, or what a client made up: that the proxy replaces what it
    gets (``SANITIZE_SET``) is its configuration, and refusing is ours. Raises ValueError.
    """
    fields = _pairs(raw)
    if "hash" in fields and not _HASH.fullmatch(fields["hash"]):
        raise ValueError("Hash is not a SHA-256")
    told = bytes.fromhex(fields["hash"].decode("ascii")) if "hash" in fields else b""
    if "cert" not in fields:
        if not told:
            raise ValueError("neither Cert nor Hash")
        return Certificate(base64url(told))
    found = _of_der(*_of_pem(fields["cert"], most=1))
    if told and base64url(told) != found.thumbprint:
        raise ValueError("Cert and Hash are of different certificates")
    if "chain" not in fields:
        return found
    first, *between = _of_pem(fields["chain"], most=MOST_BETWEEN + 1)
    if first != found.der:
        raise ValueError("Chain begins with another certificate")
    return Certificate(found.thumbprint, found.der, tuple(between))


def _of_pem(escaped: bytes, most: int) -> list[bytes]:
    text = unquote_to_bytes(escaped)
    found = [base64.b64decode(b"".join(each.split()), validate=True) for each in _PEM.findall(text)]
    if not 0 < len(found) <= most or _PEM.sub(b"", text).strip():
        raise ValueError("not certificates in PEM, or too many")
    return found


def _pairs(raw: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    at, end = 0, b";"
    while end == b";":
        pair = _PAIR.match(raw, at)
        if pair is None:
            raise ValueError("not a list of pairs")
        name, value, end = pair[1].decode("ascii").lower(), pair[2], pair[3]
        if end == b",":
            raise ValueError("more than one element")
        if name in ("cert", "hash", "chain") and name in found:
            raise ValueError(f"{name} occurs twice")
        found[name] = re.sub(rb"\\(.)", rb"\1", value[1:-1]) if value[:1] == b'"' else value
        at = pair.end()
    return found


def _of_der(der: bytes) -> Certificate:
    if der[:1] != b"\x30":  # a SEQUENCE, as every certificate is
        raise ValueError("not a certificate")
    return Certificate(s256(der), der)

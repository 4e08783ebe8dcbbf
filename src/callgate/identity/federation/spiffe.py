"""SPIFFE ids and bundles (``SPIFFE-ID.md``, ``SPIFFE_Trust_Domain_and_Bundle.md``)."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

import msgspec

#: Longest SPIFFE id (SPIFFE-ID, section 2.3).
LONGEST = 2048
#: What may sign a JWT-SVID (JWT-SVID, section 2.1).
ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"})
_ID = re.compile(r"spiffe://([a-z0-9._-]{1,255})((?:/[A-Za-z0-9._-]+)+)")


def trust_domain_of(id: object) -> str | None:
    """The trust domain of a workload's SPIFFE id; ``None`` for what is none, also for the id of a domain itself.

    >>> trust_domain_of("spiffe://example.org/ns/agents/sa/planner")
    'example.org'
    >>> trust_domain_of("spiffe://Example.org/planner"), trust_domain_of("spiffe://example.org/a/../b")
    (None, None)
    """
    if not isinstance(id, str) or len(id) > LONGEST or not (found := _ID.fullmatch(id)):
        return None
    return None if {".", ".."} & set(found[2].split("/")) else found[1]


def _entries(raw: bytes) -> list[dict[str, Any]]:
    try:
        document = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError):
        raise ValueError("the bundle is not JSON") from None
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise ValueError("the bundle is not a key set")
    return [key for key in keys if isinstance(key, dict)]


def jwt_keys(bundle: bytes, *, marked: bool) -> bytes:
    """The key set (RFC 7517) of what signs JWT-SVIDs in a bundle. Raises ValueError.

    Keys for certificates do not count, nor those without a ``kid``. In a bundle document a key says what it is for
    (``marked``); the Workload API gives JWT keys only, and SPIRE leaves ``use`` out there.
    """
    uses = ("jwt-svid",) if marked else ("jwt-svid", None)
    found = [
        {name: value for name, value in key.items() if name != "use"}
        for key in _entries(bundle)
        if key.get("use") in uses and isinstance(key.get("kid"), str)
    ]
    return msgspec.json.encode({"keys": found})


def x509_authorities(bundle: bytes) -> tuple[bytes, ...]:
    """The certificates (DER) of a bundle document that sign X.509-SVIDs. Raises ValueError."""
    found = []
    for key in _entries(bundle):
        chain = key.get("x5c")
        if key.get("use") == "x509-svid":
            # Exactly one: the authority itself (SPIFFE Trust Domain and Bundle, section 4.2.2).
            if not isinstance(chain, list) or len(chain) != 1 or not isinstance(chain[0], str):
                raise ValueError("an authority of the bundle has no certificate")
            try:
                found.append(base64.b64decode(chain[0], validate=True))
            except binascii.Error:
                raise ValueError("an authority of the bundle is not base64") from None
    return tuple(found)


def split_certificates(raw: bytes) -> tuple[bytes, ...]:
    """DER certificates that stand one after the other, as the Workload API gives them. Raises ValueError."""
    found, at = [], 0
    while at < len(raw):
        end = at + _length(raw[at:])
        if end > len(raw):
            raise ValueError("a certificate is cut off")
        found.append(raw[at:end])
        at = end
    return tuple(found)


def _length(der: bytes) -> int:
    """How many bytes the sequence at the beginning takes (X.690, section 8.1.3)."""
    if len(der) < 2 or der[0] != 0x30:
        raise ValueError("not a certificate")
    if der[1] < 0x80:
        return 2 + der[1]
    size = der[1] & 0x7F
    if not 1 <= size <= 4 or len(der) < 2 + size:
        raise ValueError("not a certificate")
    return 2 + size + int.from_bytes(der[2 : 2 + size], "big")

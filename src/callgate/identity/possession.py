"""What a token may be bound to (RFC 7800), and what a request shows to prove that its sender holds it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from .certificate import Certificate
from .refusal import Refused

#: Members of ``cnf``: the thumbprint of a key (RFC 9449, section 6.1) and of a certificate (RFC 8705, section 3.1).
JKT, X5T = "jkt", "x5t#S256"
#: Signatures that proofs may have.
PROOF_ALGORITHMS = ("ES256", "EdDSA", "RS256", "PS256")
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")


class Shown(msgspec.Struct, frozen=True):
    """What an HTTP request shows besides its credential.

    ``url`` is the public URL of the request, without a query. ``proof`` is the ``DPoP`` header. ``certificate`` is the
    header in which a trusted proxy passes on the client's certificate, as it came, and ``intermediates`` the one with
    the certificates between it and its authority; from anybody else they are ``None``.
    """

    method: str
    url: str
    proof: bytes | None = None
    certificate: bytes | None = None
    intermediates: bytes | None = None


class Proof(msgspec.Struct, frozen=True):
    """A proof that holds: the thumbprint of its key (RFC 7638), its id, and when it was made (epoch seconds)."""

    jkt: str
    jti: str
    issued: float


class Proved(msgspec.Struct, frozen=True):
    """What a request for a token proved: its token is bound to the key of the proof, or else to the certificate."""

    proof: Proof | None = None
    certificate: Certificate | None = None

    @property
    def confirmation(self) -> Mapping[str, str]:
        if self.proof is not None:
            return {JKT: self.proof.jkt}
        return {X5T: self.certificate.thumbprint} if self.certificate is not None else {}


def confirmation_of(claims: Mapping[str, Any]) -> dict[str, str]:
    """What a token is bound to; empty for a token that whoever bears it may use.

    Raises Refused for a binding that nobody here can check: it must not be overlooked.

    >>> confirmation_of({"sub": "alice"})
    {}
    """
    bound = claims.get("cnf")
    if bound is None:
        return {}
    if not isinstance(bound, dict) or not bound or not bound.keys() <= {JKT, X5T}:
        raise Refused("not accepted", "cnf binds the token to something that is not checked here")
    if not all(is_thumbprint(value) for value in bound.values()):
        raise Refused("not accepted", "cnf holds something else than thumbprints")
    return bound


def is_thumbprint(value: object) -> bool:
    """Whether a value is a SHA-256 in base64url."""
    return isinstance(value, str) and _THUMBPRINT.fullmatch(value) is not None

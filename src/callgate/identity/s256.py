"""SHA-256 in base64url: challenges of PKCE (RFC 7636), tokens in proofs (RFC 9449), certificates (RFC 8705)."""

from __future__ import annotations

import base64
import hashlib


def s256(raw: bytes) -> str:
    """
    >>> s256(b"dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
    'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM'
    """
    return base64url(hashlib.sha256(raw).digest())


def base64url(raw: bytes) -> str:
    """As JOSE has it, without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")

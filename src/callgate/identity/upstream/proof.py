"""Proof of possession towards servers and their issuers (DPoP, RFC 9449), with keys that never leave callgate."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

import msgspec
from joserfc import jws
from joserfc.jwk import ECKey

from callgate.egress import Response, parse_url
from callgate.identity.s256 import s256

MOST_NONCE = 1024


class Prover:
    """One key, and the nonce that each origin gave last. ``sealed`` is the key as it was given, empty for a new one."""

    def __init__(self, key: str = "", clock: Callable[[], float] = time.time) -> None:
        self.sealed = key
        self._key = ECKey.import_key(msgspec.json.decode(key)) if key else ECKey.generate_key("P-256")
        self._public = self._key.as_dict(private=False)
        self._clock = clock
        self._nonces: dict[str, str] = {}

    @property
    def private(self) -> str:
        """The key, to be sealed."""
        return msgspec.json.encode(self._key.as_dict(private=True)).decode()

    @property
    def thumbprint(self) -> str:
        return self._key.thumbprint()

    def proof(self, method: str, url: str, token: str = "") -> str:
        """A proof for one request (section 4.2): it names method, URL and, at a server, the token."""
        claims: dict[str, Any] = {
            "jti": secrets.token_urlsafe(16),
            "htm": method,
            "htu": url.partition("#")[0].partition("?")[0],
            "iat": int(self._clock()),
        }
        if token:
            claims["ath"] = s256(token.encode("ascii"))
        if nonce := self._nonces.get(parse_url(url).origin):
            claims["nonce"] = nonce
        header = {"alg": "ES256", "typ": "dpop+jwt", "jwk": self._public}
        return jws.serialize_compact(header, msgspec.json.encode(claims), self._key, algorithms=["ES256"])

    def heard(self, url: str, response: Response) -> bool:
        nonce = response.headers.get(b"dpop-nonce", b"").decode("latin-1")
        origin = parse_url(url).origin
        if not nonce or len(nonce) > MOST_NONCE or self._nonces.get(origin) == nonce:
            return False
        self._nonces[origin] = nonce
        return True

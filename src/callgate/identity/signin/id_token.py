"""ID tokens: signature and claims (OpenID Connect Core 1.0, section 3.1.3.7)."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from joserfc.util import urlsafe_b64decode

from callgate.config import Issuer, Provider
from callgate.errors import UpstreamError
from callgate.identity.claims import read_object
from callgate.identity.refusal import Refused
from callgate.identity.tokens import TrustedIssuer

MOST_BYTES = 64 * 1024


class IdTokens:
    """Verifies the ID tokens of one provider with the keys that ``load`` brings."""

    def __init__(self, config: Provider, load: Callable[[], Awaitable[bytes]], clock: Callable[[], float]) -> None:
        self._client = config.client_id
        self._clock = clock
        # The claims that the mapping looks at may come from the userinfo endpoint later.
        rules = Issuer(config.issuer, config.client_id, algorithms=config.algorithms, roles_claim="", groups_claim="")
        self._issuer = TrustedIssuer(rules, load, clock)
        self.keys = self._issuer.keys

    async def verify(self, token: str, nonce: str, access_token: str = "") -> dict[str, Any]:
        """The claims. ``nonce`` is that of the attempt; empty for a refreshed token, which has none. Raises Refused,
        or UpstreamError while there are no keys.
        """
        header, claims = _read(token)
        if claims.get("iss") != self._issuer.config.issuer:
            raise Refused("not accepted", "iss is not the provider")
        kind = header.get("typ", "JWT")
        if not isinstance(kind, str) or kind.lower().removeprefix("application/") != "jwt":
            raise Refused("not accepted", "typ is not that of an ID token")
        await self._need_keys()
        await self._issuer.verify(token.encode("ascii"), header, claims)
        self._check_claims(claims)
        _check_nonce(claims, nonce)
        if access_token and "at_hash" in claims:
            _check_hash(claims["at_hash"], str(header["alg"]), access_token)
        return claims

    async def _need_keys(self) -> None:
        """Without any key nobody's token is false: it is the provider that cannot be reached. Raises UpstreamError."""
        self.keys.start()
        if self.keys.is_empty:
            await self.keys.demand()
        if self.keys.is_empty:
            raise UpstreamError("its keys could not be fetched yet")

    async def aclose(self) -> None:
        await self.keys.aclose()

    def _check_claims(self, claims: Mapping[str, Any]) -> None:
        audience = claims["aud"]
        if isinstance(audience, list) and len(set(audience)) > 1 and "azp" not in claims:
            raise Refused("not accepted", "aud names several and azp is missing")
        if claims.get("azp", self._client) != self._client:
            raise Refused("not accepted", "azp is somebody else")
        if "iat" not in claims:
            raise Refused("not accepted", "iat is missing")
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= 255:
            raise Refused("not accepted", "sub is missing or no text")
        since = claims.get("auth_time", 0)
        if isinstance(since, bool) or not isinstance(since, int | float) or since > self._clock() + 300:
            raise Refused("not accepted", "auth_time is no date, or in the future")


def _read(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    if len(token) > MOST_BYTES or not token.isascii():
        raise Refused("not accepted", f"the ID token is no token, or longer than {MOST_BYTES} bytes")
    try:
        head, body, _ = token.split(".")
        return read_object(urlsafe_b64decode(head.encode())), read_object(urlsafe_b64decode(body.encode()))
    except ValueError as error:  # five parts: an encrypted token
        raise Refused("not accepted", f"not a readable ID token: {ascii(str(error))[:80]}") from None


def _check_nonce(claims: Mapping[str, Any], nonce: str) -> None:
    found = claims.get("nonce")
    if found is None and not nonce:
        return
    if not isinstance(found, str) or not hmac.compare_digest(found.encode(), nonce.encode()):
        raise Refused("not accepted", "nonce is not that of this sign-in")


def _check_hash(found: object, algorithm: str, access_token: str) -> None:
    """``at_hash``: the left half of the hash that goes with the signature algorithm."""
    raw = access_token.encode()
    if algorithm == "Ed448":
        hashed = hashlib.shake_256(raw).digest(114)
    else:
        size = "512" if algorithm.startswith("Ed") else algorithm[-3:]
        hashed = hashlib.new(f"sha{size}", raw).digest()
    wanted = urlsafe_b64encode(hashed[: len(hashed) // 2]).rstrip(b"=")
    if not isinstance(found, str) or not hmac.compare_digest(found.encode(), wanted):
        raise Refused("not accepted", "at_hash is that of another access token")

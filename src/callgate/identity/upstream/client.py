"""How callgate proves to an issuer which client it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from callgate.config import UpstreamAuth
from callgate.errors import ConfigError

from .assertion import dated
from .grants import Client, way_of

Sign = Callable[[Mapping[str, Any]], Awaitable[str]]
Resolve = Callable[[str], Awaitable[str]]
_ALGORITHMS = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "Ed25519"}


async def configured(auth: UpstreamAuth, resolve: Resolve) -> Client:
    """The client of the configuration. Its secret is looked up now: one that was changed counts at once (SEC-3)."""
    secret = await resolve(auth.client_secret) if auth.client_secret else ""
    return Client(auth.client_id or "", way_of(auth), secret)


async def client_assertion(client: Client, audience: str, lifetime: float, sign: Sign, now: float) -> str:
    """``private_key_jwt`` (RFC 7523, section 2.2); empty for clients that prove themselves otherwise."""
    if client.way != "private_key_jwt":
        return ""
    return await sign(dated({"sub": client.id}, client.id, audience, now, now + lifetime))


def signer(auth: UpstreamAuth, resolve: Resolve, own: Sign) -> Sign:
    """What signs client assertions: the configured key, else callgate's own."""
    if auth.client_key is None:
        return own
    reference = auth.client_key

    async def sign(claims: Mapping[str, Any]) -> str:
        return await asyncio.to_thread(_signed, await resolve(reference), claims)

    return sign


def _signed(pem: str, claims: Mapping[str, Any]) -> str:
    from joserfc import jws
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    for kind in (ECKey, RSAKey, OKPKey):
        try:
            key = kind.import_key(pem)
            if not key.is_private:
                continue
            algorithm = "RS256" if kind is RSAKey else _ALGORITHMS[str(key.as_dict(private=False)["crv"])]
            header = {"alg": algorithm, "typ": "JWT"}
            return jws.serialize_compact(header, msgspec.json.encode(claims), key, algorithms=[algorithm])
        except (JoseError, ValueError, TypeError, KeyError):
            continue
    raise ConfigError("has a `client_key` that is no private key", hint="Write it as PEM: EC, RSA or Ed25519.")

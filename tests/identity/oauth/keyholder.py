"""A client that binds its tokens to a key: DPoP (RFC 9449), which the Python SDK does not have."""

from __future__ import annotations

import base64
import hashlib
import time
import uuid
from collections.abc import Mapping
from typing import Any

from joserfc.jwk import ECKey, Key
from joserfc.jws import JWSRegistry

from tests.fuzz.raw import Reply
from tests.gateway.stand import calling
from tests.identity.provider import ec_key, part, public

from .office import Office, token_in

ALGORITHM = {"EC": "ES256", "RSA": "RS256", "OKP": "EdDSA"}
#: The private key of nobody else.
MINE: ECKey = ec_key("the client's key")
THEIRS: ECKey = ec_key("the thief's key")


def bare(key: Key) -> dict[str, Any]:
    """The public key as a proof carries it."""
    return {name: value for name, value in public(key).items() if name != "kid"}


def ath(token: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()


def proof(
    method: str,
    url: str,
    token: str | None = None,
    *,
    key: Key = MINE,
    header: Mapping[str, Any] | None = None,
    **changes: Any,
) -> str:
    """A proof for one request; a change to ``None`` removes the claim or the member of the header."""
    claims = {"jti": uuid.uuid4().hex, "htm": method, "htu": url, "iat": int(time.time())}
    if token is not None:
        claims["ath"] = ath(token)
    head = {"typ": "dpop+jwt", "alg": ALGORITHM[key.key_type], "jwk": bare(key), **(header or {})}
    return signed(
        key,
        {name: value for name, value in head.items() if value is not None},
        {name: value for name, value in {**claims, **changes}.items() if value is not None},
    )


def signed(key: Key, header: Mapping[str, Any], claims: Mapping[str, Any] | bytes) -> str:
    """A text signed with what the key can do, whatever its header says."""
    said = header.get("alg")
    algorithm = said if key.key_type == "RSA" and said in ("RS256", "PS256") else ALGORITHM[key.key_type]
    text = f"{part(header)}.{part(claims)}"
    return f"{text}.{part(JWSRegistry.algorithms[algorithm].sign(text.encode(), key))}"


class Holder:
    """Somebody with a key, at an office: asks for tokens and makes calls with proofs."""

    def __init__(self, stand: Office, key: Key = MINE) -> None:
        self.stand = stand
        self.key = key
        self.jkt: str = key.thumbprint()

    def proof(self, method: str = "POST", path: str = "/mcp", token: str | None = None, **changes: Any) -> str:
        return proof(method, self.stand.base + path, token, key=self.key, **changes)

    async def ask(self, client: str, proof: str | None = None, **fields: str) -> Reply:
        """A request for a token, of the client's own if nothing else is said."""
        form = {"grant_type": "client_credentials", **fields}
        return await self.stand.post(form, ("DPoP", proof or self.proof(path="/oauth/token")), client=client)

    async def token(self, client: str = "planner", **fields: str) -> str:
        return token_in(await self.ask(client, **fields))

    def headers(
        self, token: str, method: str = "POST", path: str = "/mcp", proof: str | None = None
    ) -> list[tuple[str, str]]:
        """What goes with every request that uses the token."""
        shown = proof or self.proof(method, path.partition("?")[0], token)
        return [("Authorization", f"DPoP {token}"), ("DPoP", shown)]

    async def call(self, token: str, *, path: str = "/mcp", proof: str | None = None) -> Reply:
        headers = self.headers(token, "POST", path, proof)
        return await self.stand.ask(self.stand.request(calling("u__hello", {}), *headers, path=path))

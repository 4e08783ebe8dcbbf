"""An issuer of workload identities over the scripted HTTP server: discovery, keys, and signatures.

As Kubernetes API server it has TLS with an authority of its own, and wants a bearer token for its documents.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, Self

from joserfc.jwk import Key

from tests.identity.provider import ec_key, public, sign
from tests.servers.raw_http import Peer, RawServer, Request

_NUMBER = count(1)
DISCOVERY = "/.well-known/openid-configuration"


class IssuerServer:
    """``host`` is the name in its issuer, ``bearer`` the token that its documents need; ``key`` signs."""

    def __init__(self, key: Key | None = None, context: ssl.SSLContext | None = None, bearer: str = "") -> None:
        self.key = key or ec_key(f"issuer {next(_NUMBER)}")
        self.keys: list[Key] = [self.key]
        self.bearer = bearer
        self.document: dict[str, Any] = {}
        self.down = False
        self.server = RawServer(self.answer, context)
        self._scheme, self._host = ("https", "localhost") if context is not None else ("http", "127.0.0.1")

    async def __aenter__(self) -> Self:
        await self.server.start(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.stop()

    @property
    def issuer(self) -> str:
        return f"{self._scheme}://{self._host}:{self.server.port}"

    @property
    def asked(self) -> list[str]:
        """The paths that were asked for."""
        return [request.target for request in self.server.requests]

    async def answer(self, request: Request, peer: Peer) -> None:
        if self.down:
            peer.json({"kind": "Status"}, 503)
        elif self.bearer and request.headers.get("authorization") != f"Bearer {self.bearer}":
            peer.json({"kind": "Status", "reason": "Forbidden"}, 403)
        elif request.target == DISCOVERY:
            known = {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/openid/v1/jwks"}
            peer.json({**known, "response_types_supported": ["id_token"], **self.document})
        elif request.target == "/openid/v1/jwks":
            peer.json({"keys": [public(key, use="sig") for key in self.keys]})
        else:
            peer.json({"kind": "Status"}, 404)

    def claims(self, subject: str, audience: Any, **changes: Any) -> dict[str, Any]:
        """Claims of a good token with ``changes``; a change to ``None`` removes the claim."""
        now = int(time.time())
        good = {"iss": self.issuer, "sub": subject, "aud": audience, "iat": now, "nbf": now, "exp": now + 600}
        return {name: value for name, value in {**good, **changes}.items() if value is not None}

    def token(self, subject: str, audience: Any, header: dict[str, Any] | None = None, /, **changes: Any) -> str:
        algorithm = {"EC": "ES256", "RSA": "RS256", "OKP": "EdDSA"}[self.key.key_type]
        whole = {"alg": algorithm, "kid": self.key.kid, **(header or {})}
        return sign(self.key, whole, self.claims(subject, audience, **changes))

    @contextmanager
    def away(self) -> Iterator[None]:
        self.down = True
        yield
        self.down = False

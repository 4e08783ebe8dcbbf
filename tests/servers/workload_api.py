"""A SPIFFE Workload API endpoint: real gRPC on a unix socket, with the published message definitions.

It plays the agent of one machine: it gives bundles, tells of their rotation, and issues JWT-SVIDs.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # as callgate does, before gRPC reads it

import grpc
from joserfc.jwk import Key
from spiffe._proto import workload_pb2 as messages
from spiffe._proto import workload_pb2_grpc as service

from tests.identity.provider import ec_key, public, sign

DOMAIN = "example.org"


class Agent(service.SpiffeWorkloadAPIServicer):
    """``keys`` and ``authorities`` (DER) by trust domain; after a change call ``tell``.

    ``followers`` counts the streams that are open, ``refuses`` answers everybody as somebody who is not registered.
    It answers in threads of its own: gRPC's events of one event loop must not reach the loop of the next test.
    """

    def __init__(self, folder: Path) -> None:
        self.address = f"unix://{folder / 'agent.sock'}"
        self.key: Key = ec_key("jwt authority 1")
        self.keys: dict[str, list[Key]] = {DOMAIN: [self.key]}
        self.authorities: dict[str, list[bytes]] = {}
        self.use: str | None = None  # SPIRE leaves it out here
        self.raw: bytes | None = None
        self.followers = 0
        self.streams = 0
        self.refuses = False
        self._changes = 0
        self._changed = threading.Condition()
        self._server: Any = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(8))
        service.add_SpiffeWorkloadAPIServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self._server.add_insecure_port(self.address)
        self._server.start()

    async def stop(self) -> None:
        await asyncio.to_thread(self._server.stop(None).wait)

    def tell(self) -> None:
        """Send what there is now to everybody who follows."""
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def svid(self, id: str, audience: Any, header: dict[str, Any] | None = None, /, **changes: Any) -> str:
        """A JWT-SVID; a change to ``None`` removes the claim."""
        now = int(time.time())
        good = {"sub": id, "aud": audience if isinstance(audience, list) else [audience], "exp": now + 300, "iat": now}
        claims = {name: value for name, value in {**good, **changes}.items() if value is not None}
        return sign(self.key, {"alg": "ES256", "kid": self.key.kid, "typ": "JWT", **(header or {})}, claims)

    def FetchJWTBundles(self, request: Any, context: Any) -> Iterator[Any]:
        for _ in self._follow(context):
            yield messages.JWTBundlesResponse(bundles=self._bundles())

    def FetchX509Bundles(self, request: Any, context: Any) -> Iterator[Any]:
        for _ in self._follow(context):
            found = {f"spiffe://{domain}": b"".join(each) for domain, each in self.authorities.items()}
            yield messages.X509BundlesResponse(crl=[b"a list that nobody reads"], bundles=found)

    def FetchJWTSVID(self, request: Any, context: Any) -> Any:
        self._check(context)
        id = request.spiffe_id or f"spiffe://{DOMAIN}/ns/agents/sa/mesh"
        return messages.JWTSVIDResponse(
            svids=[messages.JWTSVID(spiffe_id=id, svid=self.svid(id, list(request.audience)))]
        )

    def ValidateJWTSVID(self, request: Any, context: Any) -> Any:
        self._check(context)
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "this agent validates nothing")

    def _follow(self, context: Any) -> Iterator[None]:
        """One step for what there is, and one for each change, until the other side or the agent ends."""
        self._check(context)
        with self._changed:
            self.followers += 1
            self.streams += 1
        context.add_callback(self._left)
        seen = -1
        while context.is_active():
            with self._changed:
                self._changed.wait_for(lambda: self._changes != seen or not context.is_active())  # noqa: B023
                seen = self._changes
            if context.is_active():
                yield

    def _left(self) -> None:
        with self._changed:
            self.followers -= 1
            self._changed.notify_all()

    def _check(self, context: Any) -> None:
        """Section 3 of the Workload API: without this header a request is refused."""
        if dict(context.invocation_metadata()).get("workload.spiffe.io") != "true":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")
        if self.refuses:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")

    def _bundles(self) -> dict[str, bytes]:
        if self.raw is not None:
            return {f"spiffe://{DOMAIN}": self.raw}
        more = {} if self.use is None else {"use": self.use}
        return {
            f"spiffe://{domain}": json.dumps({"keys": [public(key, **more) for key in keys]}).encode()
            for domain, keys in self.keys.items()
        }

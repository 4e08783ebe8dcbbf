"""An identity provider on a loopback port: real keys, a real HTTP server, and every way to misbehave."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable
from functools import cache
from types import TracebackType
from typing import Any, Literal, Self

from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from callgate.identity import Recogniser

AUDIENCE = "callgate"
Make = Callable[..., Recogniser]


class Clock:
    """Seconds since the epoch that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = float(int(time.time()))

    def __call__(self) -> float:
        return self.now


@cache
def ec_key(kid: str) -> ECKey:
    return ECKey.generate_key("P-256", {"kid": kid})


@cache
def rsa_key(kid: str) -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": kid})


@cache
def okp_key(kid: str) -> OKPKey:
    return OKPKey.generate_key("Ed25519", {"kid": kid})


def public(key: Key, **more: Any) -> dict[str, Any]:
    return {**key.as_dict(private=False), **more}


def part(value: Any) -> str:
    """One part of a compact token: JSON (or bytes as they are) in base64url."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign(key: Key, header: dict[str, Any], claims: dict[str, Any]) -> str:
    """A signed token, whatever its header and claims say: a signer of ours refuses nothing."""
    signed = f"{part(header)}.{part(claims)}"
    algorithm = {"EC": "ES256", "RSA": "RS256", "OKP": "EdDSA"}[key.key_type]
    if header.get("alg") in JWSRegistry.algorithms.keys() - {"none"}:
        algorithm = header["alg"]
    return f"{signed}.{part(JWSRegistry.algorithms[algorithm].sign(signed.encode(), key))}"


class Provider:
    """Publishes ``keys`` and counts ``requests``. ``mode`` is how it answers; ``gate`` holds answers back."""

    def __init__(self, clock: Clock, *keys: Key) -> None:
        self.clock = clock
        self.keys: list[dict[str, Any]] = [public(key) for key in keys]
        self.requests = 0
        self.mode: Literal["well", "down", "garbage", "no keys"] = "well"
        self.gate = asyncio.Event()
        self.gate.set()
        self._server: asyncio.Server

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.issuer = f"http://127.0.0.1:{self.port}"
        self.jwks_uri = f"{self.issuer}/jwks"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.gate.set()
        self._server.close()
        await self._server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            await self.gate.wait()
            body = {"well": json.dumps({"keys": self.keys}), "garbage": "<html>", "no keys": "{}", "down": ""}[
                self.mode
            ]
            status = "503 Service Unavailable" if self.mode == "down" else "200 OK"
            writer.write(f"HTTP/1.0 {status}\r\n\r\n{body}".encode())
            await writer.drain()
        except ConnectionError:
            pass  # the client gave up
        finally:
            writer.close()

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Claims of a good token with ``changes``; a change to ``None`` removes the claim."""
        now = int(self.clock())
        good = {"iss": self.issuer, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 3600}
        return {name: value for name, value in {**good, **changes}.items() if value is not None}

    def token(self, key: Key, header: dict[str, Any] | None = None, /, **changes: Any) -> str:
        algorithm = {"EC": "ES256", "RSA": "RS256", "OKP": "EdDSA"}[key.key_type]
        return sign(key, {"alg": algorithm, "kid": key.kid, **(header or {})}, self.claims(**changes))

    def bearer(self, key: Key, header: dict[str, Any] | None = None, /, **changes: Any) -> bytes:
        return b"Bearer " + self.token(key, header, **changes).encode()


async def fetch(url: str) -> bytes:
    """The smallest HTTP client that can bring a key set."""
    host, port = url.removeprefix("http://").split("/")[0].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(b"GET /jwks HTTP/1.0\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    if b" 200 " not in head:
        raise OSError("the provider is unwell")
    return body


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what background tasks bring about."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


async def eventually(attempt: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(5):
        while not await attempt():
            await asyncio.sleep(0.002)

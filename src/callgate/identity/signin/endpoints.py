"""Requests to a provider: codes and refresh tokens for tokens, and the userinfo endpoint."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec

from callgate.config import Provider
from callgate.egress import HttpPool, Response, encode_headers, parse_url
from callgate.errors import CallgateError, UpstreamError
from callgate.identity.claims import read_object
from callgate.identity.upstream.assertion import dated
from callgate.identity.upstream.grants import Client, given, with_client

PATIENCE = 10.0  # seconds for one answer
MOST_BYTES = 256 * 1024
CONNECTIONS = 16
LIFETIME = 60.0  # seconds that an assertion of ours is valid
_MOST_TOKEN = 64 * 1024

Resolve = Callable[[str], Awaitable[str]]
Sign = Callable[[Mapping[str, Any]], Awaitable[str]]


class ClientRefused(UpstreamError):
    """The provider does not know callgate's client, or not with this proof of it."""


class Answered(msgspec.Struct, frozen=True):
    """Tokens as the token endpoint gave them, nothing verified yet."""

    access_token: str
    id_token: str
    refresh_token: str


class Endpoints:
    """The endpoints of one provider. ``resolve`` follows the reference to the client secret at every request (rule
    SEC-3), ``sign`` signs with callgate's own key.
    """

    def __init__(self, config: Provider, resolve: Resolve, sign: Sign) -> None:
        self._config = config
        self._resolve = resolve
        self._sign = sign
        self._pool: HttpPool | None = None

    async def tokens(self, endpoint: str, form: Mapping[str, str]) -> Answered:
        """Raises Denied when the provider does not grant it, ClientRefused when it does not know this client, other
        UpstreamErrors when it does not answer as it should.
        """
        config = self._config
        way = config.client_auth or ("client_secret_basic" if config.client_secret else "none")
        secret = await self._resolve(config.client_secret) if config.client_secret else ""
        client = Client(config.client_id, way, secret)
        response = await self._ask(endpoint, form, client, config.issuer)
        if way == "private_key_jwt" and _refuses_client(response):
            # The issuer is the audience of today; Okta wants the address of the endpoint.
            response = await self._ask(endpoint, form, client, endpoint)
        if _refuses_client(response):
            raise ClientRefused(
                f"does not accept callgate's client: it answered `invalid_client` ({response.status})",
                hint="Compare `client_id`, `client_secret` and `client_auth` with what is registered there.",
            )
        found = given(response.status, response.body, time.time())
        return Answered(found.token.value, _token(_object(response.body), "id_token"), found.refresh)

    async def userinfo(self, endpoint: str, access_token: str) -> dict[str, Any]:
        """Raises UpstreamError."""
        response = await self._send("GET", endpoint, {"authorization": f"Bearer {access_token}"}, b"")
        if response.status != 200 or response.content_type != b"application/json":
            kind = "what is not JSON" if response.status == 200 else f"{response.status}"
            raise UpstreamError(f"its userinfo endpoint answered {kind}")
        return _object(response.body)

    async def aclose(self) -> None:
        if self._pool is not None:
            await self._pool.aclose()

    async def _ask(self, endpoint: str, form: Mapping[str, str], client: Client, audience: str) -> Response:
        assertion = await self._assertion(audience) if client.way == "private_key_jwt" else ""
        fields, headers = with_client(client, form, assertion)
        kind = {"content-type": "application/x-www-form-urlencoded"}
        return await self._send("POST", endpoint, {**kind, **headers}, urlencode(fields).encode("ascii"))

    async def _assertion(self, audience: str) -> str:
        now, client = time.time(), self._config.client_id
        return await self._sign(dated({"sub": client}, client, audience, now, now + LIFETIME))

    async def _send(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        """One request on connections of this provider's own; redirects are not followed: secrets go out here."""
        if self._pool is None:
            self._pool = HttpPool(max_connections=CONNECTIONS, max_body=MOST_BYTES, connect_timeout=5.0)
        origin = self._pool.origin(url)
        fixed = {"accept": "application/json", "user-agent": "callgate"}
        size = {"content-length": str(len(body))} if body else {}
        head = origin.start_line(method, parse_url(url).target) + encode_headers({**fixed, **size, **headers})
        try:
            return await origin.request(head + b"\r\n" + body, asyncio.get_running_loop().time() + PATIENCE)
        except CallgateError as error:
            raise UpstreamError(f"its endpoint {error.message}") from None


def _refuses_client(response: Response) -> bool:
    try:
        return response.status in (400, 401) and read_object(response.body).get("error") == "invalid_client"
    except ValueError:
        return False


def _object(body: bytes) -> dict[str, Any]:
    try:
        return read_object(body)
    except ValueError:
        raise UpstreamError("it answered what is not a JSON object") from None


def _token(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name, "")
    if not isinstance(value, str) or len(value) > _MOST_TOKEN or not (value.isascii() and value.isprintable()):
        raise UpstreamError(f"its {name} is no token")
    return value

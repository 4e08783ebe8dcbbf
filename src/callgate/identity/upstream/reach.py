"""Requests to issuers, for one server: guarded, because a server and its issuer may name any URL.

Hosts that the operator named (in the server's ``url`` and ``auth``) may be anywhere; all others must be public.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Protocol
from urllib.parse import urlencode

import msgspec

from callgate.egress import Address, Guard, HttpPool, Response, encode_headers, is_loopback, parse_url
from callgate.errors import CallgateError, UpstreamError

PATIENCE = 10.0  # seconds for one answer
MOST_BYTES = 256 * 1024  # of such an answer
CONNECTIONS = 16
FORM = "application/x-www-form-urlencoded"


class Proving(Protocol):
    """Proves possession of a key with each request (RFC 9449)."""

    def proof(self, method: str, url: str, token: str = "") -> str: ...

    def heard(self, url: str, response: Response) -> bool:
        """Remember the nonce of a response; whether it is one that was not known."""


class Reach:
    """The connections of one server's credential, apart from all others: an issuer that hangs holds up nobody else."""

    def __init__(self, named: Iterable[str | None], guard: Guard | None = None) -> None:
        self._named = frozenset(host for url in named if url and (host := _host(url)))
        self._guard = guard or Guard()
        self._pool: HttpPool | None = None

    def check(self, url: str, what: str) -> str:
        """The URL, if secrets may go there: by https, or on this machine where the operator's own URL is there too."""
        try:
            address = parse_url(url)
        except CallgateError:
            address = None
        if address is None or "#" in url or not (address.secure or self._here(address)):
            raise UpstreamError(f"has {what} that cannot be used: it must begin with `https://`")
        return url

    async def document(self, url: str) -> Any:
        """The JSON object behind a URL. Raises UpstreamError; redirects are not followed."""
        self.check(url, "metadata at a URL")
        response = await self._opened().get(url, limit=MOST_BYTES, timeout=PATIENCE, redirects=0, also=self._named)
        return object_in(response.body)

    async def post(
        self, url: str, body: Mapping[str, str] | bytes, headers: Mapping[str, str], prover: Proving | None = None
    ) -> Response:
        """Post a form (or JSON, as bytes). With a ``prover`` once more where the issuer wants its nonce (RFC 9449)."""
        response = await self._posted(url, body, headers, prover)
        if prover is None or not prover.heard(url, response) or response.status == 200:
            return response
        if object_in(response.body).get("error") != "use_dpop_nonce":
            return response
        return await self._posted(url, body, headers, prover)

    async def ask(self, url: str, method: str, headers: Mapping[str, str], body: bytes) -> Response:
        """One request as it is."""
        origin = self._opened().origin(url, self._named)
        head = origin.start_line(method, parse_url(url).target) + encode_headers(
            {"content-length": str(len(body)), **headers}
        )
        return await origin.request(head + b"\r\n" + body, asyncio.get_running_loop().time() + PATIENCE)

    async def aclose(self) -> None:
        if self._pool is not None:
            await self._pool.aclose()

    async def _posted(
        self, url: str, body: Mapping[str, str] | bytes, headers: Mapping[str, str], prover: Proving | None
    ) -> Response:
        kind, data = ("application/json", body) if isinstance(body, bytes) else (FORM, urlencode(body).encode("ascii"))
        fixed = {"content-type": kind, "accept": "application/json", "user-agent": "callgate"}
        proof = {} if prover is None else {"dpop": prover.proof("POST", url)}
        return await self.ask(url, "POST", {**fixed, **headers, **proof}, data)

    def _opened(self) -> HttpPool:
        if self._pool is None:
            self._pool = HttpPool(
                max_connections=CONNECTIONS, max_body=MOST_BYTES, connect_timeout=5.0, guard=self._guard
            )
        return self._pool

    def _here(self, address: Address) -> bool:
        return address.host in self._named and is_loopback(address.host)


def object_in(body: bytes) -> dict[str, Any]:
    """The JSON object in an answer; an empty one where there is something else."""
    try:
        said: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        said = None
    return said if isinstance(said, dict) else {}


def _host(url: str) -> str:
    try:
        return parse_url(url).host
    except CallgateError:
        return ""

"""Where the keys of an issuer of workload identities come from: a file, a URL, its discovery document."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from callgate.config import Federation
from callgate.egress import HttpPool, parse_url
from callgate.identity.openid import document_url, endpoint_in, read_document

LARGEST_TOKEN = 64 * 1024
Fetch = Callable[[str], Awaitable[bytes]]
Load = Callable[[], Awaitable[bytes]]


class ApiServer:
    """Fetches from a server that has authorities of its own, or wants a bearer token: that of a Kubernetes cluster.

    The token goes to the origin of ``home``. It also goes where a document of ``home`` leads if ``ca_file`` is given:
    then whoever answers there was certified by the same authorities. It never follows a redirect.
    """

    def __init__(self, home: str, ca_file: str | None, token_file: str | None) -> None:
        self._home = parse_url(home).origin
        self._ca_file = ca_file
        self._token_file = token_file
        self._pool: HttpPool | None = None

    async def fetch(self, url: str) -> bytes:
        if self._pool is None:
            self._pool = HttpPool(ca_file=self._ca_file, max_connections=4, max_body=1024 * 1024)
        at, headers = parse_url(url), {}
        known = at.origin == self._home or (self._ca_file is not None and at.secure)
        if self._token_file is not None and known:
            # Kubernetes replaces it every hour.
            headers["authorization"] = f"Bearer {await asyncio.to_thread(_read_token, self._token_file)}"
        return await self._pool.fetch(url, headers=headers, redirects=0)

    async def aclose(self) -> None:
        if self._pool is not None:
            await self._pool.aclose()


def _read_token(path: str) -> str:
    with Path(path).open("rb") as file:
        return file.read(LARGEST_TOKEN).decode("ascii").strip()


def discovered(issuer: str, fetch: Fetch, elsewhere: Fetch) -> Load:
    """Loads the keys that the discovery document of an issuer leads to (OpenID Connect Discovery 1.0, section 4).

    ``elsewhere`` fetches them where that is another host: the operator named the issuer's only.
    """

    async def load() -> bytes:
        document = read_document(await fetch(document_url(issuer)), issuer)
        uri = endpoint_in(document, "jwks_uri", issuer)
        return await (fetch if parse_url(uri).host == parse_url(issuer).host else elsewhere)(uri)

    return load


def from_file(path: str) -> Load:
    return lambda: asyncio.to_thread(Path(path).read_bytes)


def loader(config: Federation, fetch: Fetch, elsewhere: Fetch) -> Load:
    """Loads the document with the keys of one entry of ``identity.federation`` that does not use the Workload API."""
    if config.jwks_file is not None:
        return from_file(config.jwks_file)
    uri = config.jwks_uri
    return discovered(config.issuer, fetch, elsewhere) if uri is None else lambda: fetch(uri)

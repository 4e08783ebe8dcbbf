"""Requests to the HTTP API of a store of secrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from callgate.egress import HttpPool, Response, encode_headers

LARGEST = 4 * 1024 * 1024


class Api:
    """One API. Redirects are not followed, because the token would go along. ``timeout`` is seconds."""

    def __init__(self, url: str, ca_file: str | None, timeout: float) -> None:
        self._url = url
        self._ca_file = ca_file
        self._timeout = timeout
        self._pool: HttpPool | None = None

    async def get(self, target: str, headers: Mapping[str, str], deadline: float) -> Response:
        """``target`` is what follows the path of the API's own address."""
        return await self._send("GET", target, headers, b"", deadline)

    async def post(self, target: str, headers: Mapping[str, str], body: Any, deadline: float) -> Response:
        content = msgspec.json.encode(body)
        more = {"content-type": "application/json", "content-length": str(len(content))}
        return await self._send("POST", target, {**headers, **more}, content, deadline)

    async def aclose(self) -> None:
        if self._pool is not None:
            await self._pool.aclose()

    async def _send(
        self, method: str, target: str, headers: Mapping[str, str], content: bytes, deadline: float
    ) -> Response:
        if self._pool is None:
            self._pool = HttpPool(ca_file=self._ca_file, max_body=LARGEST, connect_timeout=self._timeout)
        origin = self._pool.origin(self._url)
        line = origin.start_line(method, urlsplit(self._url).path.rstrip("/") + target)
        sent = {"accept": "application/json", **headers}
        return await origin.request(line + encode_headers(sent) + b"\r\n" + content, deadline, replay=True)


def decoded(response: Response) -> Any:
    """The JSON of an answer; ``None`` for what is none."""
    try:
        return msgspec.json.decode(response.body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}

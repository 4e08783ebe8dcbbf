"""HashiCorp Vault and OpenBao: the key/value engine of version 2, over HTTP.

`developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2` and `…/auth/kubernetes`; OpenBao has kept both.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from callgate.config import Vault
from callgate.egress import HttpPool, Response, encode_headers
from callgate.errors import ConfigError, UpstreamError, UpstreamUnavailable

from .value import Secret

LARGEST = 1024 * 1024
MOST = 1024
_SEGMENT = re.compile(r"[^/\x00-\x20\x7f]+")


class VaultClient:
    """Reads values, signs in where needed, and remembers both for a short time. Several that ask for the same path
    at once ask the vault once.
    """

    def __init__(self, settings: Vault, read_token: Callable[[str], str]) -> None:
        self._settings = settings
        self._read_token = read_token
        self._pool: HttpPool | None = None
        self._token = ("", 0.0)  # a token of our own, and when it ends
        self._known: dict[str, tuple[float, dict[str, Any], int]] = {}
        self._flights: dict[str, asyncio.Task[tuple[dict[str, Any], int]]] = {}

    async def get(self, reference: str, fresh: bool) -> Secret:
        """The value of ``PATH#FIELD``; raises ``ConfigError`` or ``UpstreamError``."""
        path, field = _taken_apart(reference)
        known = self._known.get(path)
        if known is not None and not fresh and time.monotonic() - known[0] < self._settings.cache:
            fields, version = known[1:]
        else:
            fields, version = await self._together(path)
        value = fields.get(field)
        if not isinstance(value, str) or not value:
            what = "no field" if value is None else "no text in the field"
            raise ConfigError(f"needs `vault:{reference}`, and there is {what} `{field}`")
        return Secret(value, version)

    async def aclose(self) -> None:
        for flight in self._flights.values():
            flight.cancel()
        await asyncio.gather(*self._flights.values(), return_exceptions=True)
        if self._pool is not None:
            await self._pool.aclose()

    async def _together(self, path: str) -> tuple[dict[str, Any], int]:
        flight = self._flights.get(path)
        if flight is None:
            flight = self._flights[path] = asyncio.create_task(self._read(path), name=f"vault {path}")
            flight.add_done_callback(lambda done: self._landed(path, done))
        # wait() rather than await: one caller that gives up must not cancel it for the others.
        await asyncio.wait({flight})
        return flight.result()

    def _landed(self, path: str, flight: asyncio.Task[tuple[dict[str, Any], int]]) -> None:
        self._flights.pop(path, None)
        if not flight.cancelled():
            flight.exception()  # told to those who wait, if anybody still does

    async def _read(self, path: str) -> tuple[dict[str, Any], int]:
        deadline = asyncio.get_running_loop().time() + self._settings.timeout
        target = f"/v1/{quote(self._settings.mount.strip('/'))}/data/{quote(path)}"
        try:
            response = await self._ask("GET", target, None, deadline)
            if response.status == 403 and self._token[0]:  # what we signed in for may have been revoked
                self._token = ("", 0.0)
                response = await self._ask("GET", target, None, deadline)
        except UpstreamError as error:
            raise UpstreamUnavailable(f"needs `vault:{path}`, and the vault {error.message}") from None
        try:
            fields, version = _fields(response, path)
        except ConfigError:  # taken away: from further links too
            self._known.pop(path, None)
            raise
        if self._settings.cache and (path in self._known or len(self._known) < MOST):
            self._known[path] = (time.monotonic(), fields, version)
        return fields, version

    async def _ask(self, method: str, target: str, body: Any, deadline: float, signed: bool = True) -> Response:
        """One request; redirects are not followed, because the token would go along."""
        headers = {"x-vault-request": "true", "accept": "application/json"}
        if self._settings.namespace:
            headers["x-vault-namespace"] = self._settings.namespace
        if signed:
            headers["x-vault-token"] = await self._signed_in(deadline)
        if self._pool is None:
            self._pool = HttpPool(
                ca_file=self._settings.ca_file, max_body=LARGEST, connect_timeout=self._settings.timeout
            )
        origin = self._pool.origin(self._settings.url)
        content = b"" if body is None else msgspec.json.encode(body)
        if body is not None:
            headers |= {"content-type": "application/json", "content-length": str(len(content))}
        prefix = urlsplit(self._settings.url).path.rstrip("/")
        data = origin.start_line(method, prefix + target) + encode_headers(headers) + b"\r\n" + content
        return await origin.request(data, deadline, replay=True)

    async def _signed_in(self, deadline: float) -> str:
        """The configured token, or one for our service account."""
        if self._settings.token is not None:
            return await asyncio.to_thread(self._read_token, self._settings.token)
        token, ends = self._token
        if token and time.monotonic() < ends:
            return token
        try:
            jwt = await asyncio.to_thread(Path(self._settings.jwt_file).read_text, "utf-8")
        except (OSError, ValueError):
            raise ConfigError(f"cannot sign in at the vault: {self._settings.jwt_file} cannot be read") from None
        target = f"/v1/auth/{quote(self._settings.auth_mount.strip('/'))}/login"
        credentials = {"role": self._settings.role, "jwt": jwt.strip()}
        response = await self._ask("POST", target, credentials, deadline, signed=False)
        auth = _object(_object(_json(response)).get("auth")) if response.status == 200 else {}
        given, lease = auth.get("client_token"), auth.get("lease_duration")
        if not isinstance(given, str) or not given:
            raise ConfigError(
                f"cannot sign in at the vault: role `{self._settings.role}` is refused (HTTP {response.status})"
            )
        # A lease of 0 never ends. Others are left early, so that a token does not end on the way.
        length = lease * 0.9 if isinstance(lease, int) and lease > 0 else 3600.0
        self._token = (given, time.monotonic() + length)
        return given


def _taken_apart(reference: str) -> tuple[str, str]:
    path, _, field = reference.partition("#")
    parts = path.split("/")
    if not field or "#" in field or any(not _SEGMENT.fullmatch(part) or part in (".", "..") for part in parts):
        raise ConfigError(f"`vault:{reference}` is not of the form `vault:PATH#FIELD`")
    return path, field


def _fields(response: Response, path: str) -> tuple[dict[str, Any], int]:
    """What the vault has at ``path``. Nothing of its answer is repeated in an error."""
    status = response.status
    if status == 404:
        raise ConfigError(f"needs `vault:{path}`, and the vault has nothing there")
    if status in (401, 403):
        raise ConfigError(f"needs `vault:{path}`, and the vault does not let callgate read that (HTTP {status})")
    if status != 200:
        why = "is sealed or not ready" if status == 503 else "cannot answer"
        raise UpstreamUnavailable(f"needs `vault:{path}`, and the vault {why} (HTTP {status})")
    data = _object(_object(_json(response)).get("data"))
    fields, version = data.get("data"), _object(data.get("metadata")).get("version")
    if not isinstance(fields, dict):
        raise ConfigError(f"needs `vault:{path}`, and the vault's answer is not that of a key/value engine, version 2")
    return fields, version if isinstance(version, int) else 0


def _json(response: Response) -> Any:
    try:
        return msgspec.json.decode(response.body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}

"""HashiCorp Vault and OpenBao: the key/value engine of version 2, over HTTP.

`developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2` and `…/auth/kubernetes`; OpenBao has kept both.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from callgate.config import Vault
from callgate.egress import Response
from callgate.errors import ConfigError, UpstreamError, UpstreamUnavailable

from .api import Api, decoded, mapping
from .remembering import Remembered
from .value import Secret

_SEGMENT = re.compile(r"[^/\x00-\x20\x7f]+")


class VaultClient:
    """Reads values, signs in where needed, and remembers both for a short time."""

    def __init__(self, settings: Vault, read_token: Callable[[str], str]) -> None:
        self._settings = settings
        self._read_token = read_token
        self._api = Api(settings.url, settings.ca_file, settings.timeout)
        self._token = ("", 0.0)  # a token of our own, and when it ends
        self._paths = Remembered(settings.cache, self._read)

    async def get(self, reference: str, fresh: bool) -> Secret:
        """The value of ``vault:PATH#FIELD``; raises ``ConfigError`` or ``UpstreamError``."""
        path, field = _taken_apart(reference)
        fields, version = await self._paths.get(path, fresh)
        value = fields.get(field)
        if not isinstance(value, str) or not value:
            what = "no field" if value is None else "no text in the field"
            raise ConfigError(f"needs `{reference}`, and there is {what} `{field}`")
        return Secret(value, version)

    async def aclose(self) -> None:
        await self._paths.aclose()
        await self._api.aclose()

    async def _read(self, path: str) -> tuple[dict[str, Any], int]:
        deadline = asyncio.get_running_loop().time() + self._settings.timeout
        target = f"/v1/{quote(self._settings.mount.strip('/'))}/data/{quote(path)}"
        try:
            response = await self._api.get(target, await self._headers(deadline), deadline)
            if response.status == 403 and self._token[0]:  # what we signed in for may have been revoked
                self._token = ("", 0.0)
                response = await self._api.get(target, await self._headers(deadline), deadline)
        except UpstreamError as error:
            raise UpstreamUnavailable(f"needs `vault:{path}`, and the vault {error.message}") from None
        return _fields(response, path)

    async def _headers(self, deadline: float, signed: bool = True) -> dict[str, str]:
        headers = {"x-vault-request": "true"}
        if self._settings.namespace:
            headers["x-vault-namespace"] = self._settings.namespace
        if signed:
            headers["x-vault-token"] = await self._signed_in(deadline)
        return headers

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
        response = await self._api.post(target, await self._headers(deadline, signed=False), credentials, deadline)
        auth = mapping(mapping(decoded(response)).get("auth")) if response.status == 200 else {}
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
    path, _, field = reference.removeprefix("vault:").partition("#")
    parts = path.split("/")
    if not field or "#" in field or any(not _SEGMENT.fullmatch(part) or part in (".", "..") for part in parts):
        raise ConfigError(f"`{reference}` is not of the form `vault:PATH#FIELD`")
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
    data = mapping(mapping(decoded(response)).get("data"))
    fields, version = data.get("data"), mapping(data.get("metadata")).get("version")
    if not isinstance(fields, dict):
        raise ConfigError(f"needs `vault:{path}`, and the vault's answer is not that of a key/value engine, version 2")
    return fields, version if isinstance(version, int) else 0

"""Signing what callgate says of callers, with the keys of the token service: one key set is published for both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from joserfc import jws

from callgate.identity.oauth.signing import SigningKeys


class Assertions:
    """Signs with ES256. The type is not that of access tokens, so what is said here opens no door of the gateway."""

    def __init__(self, folder: Path, rotation: float, clock: Callable[[], float]) -> None:
        self._keys = SigningKeys(folder, rotation, clock)
        self._reading = asyncio.Lock()

    async def sign(self, claims: Mapping[str, Any]) -> str:
        """The claims as a compact JWT. Raises ConfigError when the keys cannot be used."""
        await self._fresh()
        key = self._keys.signer()
        header = {"alg": "ES256", "typ": "JWT", "kid": key.kid}
        return jws.serialize_compact(header, msgspec.json.encode(claims), key.key, algorithms=["ES256"])

    async def published(self) -> list[dict[str, Any]]:
        """The public keys."""
        await self._fresh()
        return self._keys.published()

    async def _fresh(self) -> None:
        if self._keys.stale():
            async with self._reading:
                if self._keys.stale():
                    await asyncio.to_thread(self._keys.refresh)

"""The settings of one server with their references followed, and what was found so that it can be masked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from callgate.config import STORES, read_here
from callgate.errors import CallgateError, ConfigError

from .masking import Mask

#: Gives the value of a reference to a store, such as ``secret:NAME``. True: not from a cache.
ResolveSecret = Callable[[str, bool], Awaitable[str]]


class References:
    """Follows the references of one server; ``mask`` hides the values that it met."""

    def __init__(self, base: Path, resolve_secret: ResolveSecret) -> None:
        self._base = base
        self._resolve_secret = resolve_secret
        self.mask = Mask()

    async def all(self, values: Mapping[str, str], *, fresh: bool) -> dict[str, str]:
        """``values`` with references replaced by what they lead to; ``ConfigError`` when one leads nowhere."""
        found = await asyncio.gather(*(self._one(value, fresh) for value in values.values()))
        return dict(zip(values, found, strict=True))

    async def _one(self, value: str, fresh: bool) -> str:
        kind, colon, _ = value.partition(":")
        if not colon or kind not in STORES | {"env", "file"}:
            return value
        if kind in STORES:
            found = await self._stored(value, fresh)
        else:
            found = await asyncio.to_thread(lambda: read_here(value, self._base) or "")
        self.mask.learn(found)
        return found

    async def _stored(self, value: str, fresh: bool) -> str:
        try:
            return await self._resolve_secret(value, fresh)
        except CallgateError:
            raise
        except Exception as error:  # a broken secret store must not take callgate down
            raise ConfigError(f"the reference {value} cannot be followed ({type(error).__name__})") from None

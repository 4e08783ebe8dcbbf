"""TLS: one context for each set of certificate authorities, because making one costs 30 ms."""

from __future__ import annotations

import asyncio
import functools
import ssl
from pathlib import Path

from callgate.errors import ConfigError


async def trust(ca_file: str | None) -> ssl.SSLContext:
    """The shared context that trusts ``ca_file`` (PEM), or what the system trusts. A changed file gives a new one."""
    return await asyncio.to_thread(_trust, ca_file)


def _trust(ca_file: str | None) -> ssl.SSLContext:
    try:
        return _context(ca_file, Path(ca_file).stat().st_mtime_ns if ca_file else 0)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"The CA file `{ca_file}` cannot be used: {error}.") from None


@functools.lru_cache(maxsize=64)
def _context(ca_file: str | None, changed: int) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    return context

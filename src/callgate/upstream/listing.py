"""Reading the whole list of tools of a server."""

from __future__ import annotations

from typing import Any, Literal

from callgate.errors import UpstreamError
from callgate.types import JSON, Listing

from .link import Link

MAX_PAGES = 1000
MAX_TOOLS = 50_000


async def read_listing(server: str, link: Link, deadline: float) -> Listing:
    """All pages of ``tools/list``. Endless, repeating or malformed lists are an ``UpstreamError``."""
    hello = link.hello
    tools: list[JSON] = []
    ttl: int | None = None
    public = True
    cursor: str | None = None
    seen: set[str] = set()
    offers_tools = "tools" in hello.capabilities
    for _ in range(MAX_PAGES if offers_tools else 0):
        page = await link.request("tools/list", {} if cursor is None else {"cursor": cursor}, deadline)
        tools += _tools(page)
        if len(tools) > MAX_TOOLS:
            raise UpstreamError(f"lists more than {MAX_TOOLS} tools")
        hint = page.get("ttlMs")
        if isinstance(hint, int):
            ttl = max(hint, 0) if ttl is None else min(ttl, max(hint, 0))
        public = public and page.get("cacheScope") == "public"
        cursor = _cursor(page, seen)
        if cursor is None:
            break
    else:
        if offers_tools:
            raise UpstreamError(f"lists its tools on more than {MAX_PAGES} pages")
    scope: Literal["public", "private"] = "public" if public and offers_tools else "private"
    return Listing(
        server=server,
        tools=tuple(tools),
        era=hello.era,
        version=hello.version,
        capabilities=hello.capabilities,
        server_info=hello.server_info,
        instructions=hello.instructions,
        ttl_ms=ttl or 0,
        scope=scope,
    )


def _tools(page: dict[str, Any]) -> list[JSON]:
    tools = page.get("tools")
    if not isinstance(tools, list) or not all(isinstance(t, dict) and isinstance(t.get("name"), str) for t in tools):
        raise UpstreamError("sent a list of tools that is not one")
    return tools


def _cursor(page: dict[str, Any], seen: set[str]) -> str | None:
    cursor = page.get("nextCursor")
    if cursor is None:
        return None
    if not isinstance(cursor, str):
        raise UpstreamError("sent a cursor that is not a string")
    if cursor in seen:
        raise UpstreamError("sent the same page cursor twice")
    seen.add(cursor)
    return cursor

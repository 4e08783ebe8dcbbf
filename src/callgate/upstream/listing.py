"""Reading what a server offers: all pages of its lists of tools, prompts, resources and resource templates."""

from __future__ import annotations

import logging
from typing import Literal, NamedTuple

from callgate.errors import ConsentNeeded, UpstreamError
from callgate.types import JSON, Listing

from .link import Link

MAX_PAGES = 1000
MAX_TOOLS = 50_000

log = logging.getLogger("callgate.upstream")


class Offer(NamedTuple):
    """A list that a server may have: the method, the member that holds it, what names an entry, the capability."""

    method: str
    member: str
    key: str
    capability: str


TOOLS = Offer("tools/list", "tools", "name", "tools")
PROMPTS = Offer("prompts/list", "prompts", "name", "prompts")
RESOURCES = Offer("resources/list", "resources", "uri", "resources")
TEMPLATES = Offer("resources/templates/list", "resourceTemplates", "uriTemplate", "resources")


class Pages(NamedTuple):
    """A whole list with its caching hints (the shortest lifetime, the narrower scope)."""

    entries: tuple[JSON, ...] = ()
    ttl_ms: int = 0
    scope: Literal["public", "private"] = "private"


async def read_listing(server: str, link: Link, deadline: float) -> Listing:
    """Everything that a server offers. An endless, repeating or malformed list of tools is an ``UpstreamError``;
    one of prompts or resources is only left out.
    """
    hello = link.hello
    tools = await read_pages(link, TOOLS, deadline)
    prompts, resources, templates = others = [
        await _or_nothing(server, link, offer, deadline) for offer in (PROMPTS, RESOURCES, TEMPLATES)
    ]
    lists = zip((TOOLS, PROMPTS, RESOURCES, TEMPLATES), (tools, *others), strict=True)
    return Listing(
        server=server,
        tools=tools.entries,
        era=hello.era,
        version=hello.version,
        capabilities=hello.capabilities,
        server_info=hello.server_info,
        instructions=hello.instructions,
        prompts=prompts.entries,
        resources=resources.entries,
        templates=templates.entries,
        ttl_ms=tools.ttl_ms,
        scope=tools.scope,
        hints={offer.method: (pages.ttl_ms, pages.scope) for offer, pages in lists},
    )


async def read_pages(link: Link, offer: Offer, deadline: float) -> Pages:
    """All pages of one list; nothing where the server does not have it."""
    if offer.capability not in link.hello.capabilities:
        return Pages()
    entries: list[JSON] = []
    ttl: int | None = None
    public = True
    cursor: str | None = None
    seen: set[str] = set()
    for _ in range(MAX_PAGES):
        page = await link.request(offer.method, {} if cursor is None else {"cursor": cursor}, deadline)
        entries += _entries(page, offer)
        if len(entries) > MAX_TOOLS:
            raise UpstreamError(f"lists more than {MAX_TOOLS} {offer.member}")
        hint = page.get("ttlMs")
        if isinstance(hint, int):
            ttl = max(hint, 0) if ttl is None else min(ttl, max(hint, 0))
        public = public and page.get("cacheScope") == "public"
        cursor = _cursor(page, seen)
        if cursor is None:
            return Pages(tuple(entries), ttl or 0, "public" if public else "private")
    raise UpstreamError(f"lists its {offer.member} on more than {MAX_PAGES} pages")


async def _or_nothing(server: str, link: Link, offer: Offer, deadline: float) -> Pages:
    try:
        return await read_pages(link, offer, deadline)
    except (UpstreamError, ConsentNeeded) as error:
        if link.lost:
            raise
        # Some servers declare resources and do not list templates: that takes nothing else away.
        log.info("server %s: %s cannot be listed: it %s", server, offer.member, error.message)
        return Pages()


def _entries(page: JSON, offer: Offer) -> list[JSON]:
    entries = page.get(offer.member)
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and isinstance(e.get(offer.key), str) for e in entries
    ):
        raise UpstreamError(f"sent a list of {offer.member} that is not one")
    return entries


def _cursor(page: JSON, seen: set[str]) -> str | None:
    cursor = page.get("nextCursor")
    if cursor is None:
        return None
    if not isinstance(cursor, str):
        raise UpstreamError("sent a cursor that is not a string")
    if cursor in seen:
        raise UpstreamError("sent the same page cursor twice")
    seen.add(cursor)
    return cursor

"""Notices that a secret was given a new value while the gateway runs, and starts the servers anew that use it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from callgate.errors import CallgateError
from callgate.identity import servers_using

if TYPE_CHECKING:
    from callgate.gateway.house import House

log = logging.getLogger("callgate")

#: Seconds between two looks into the store. Nobody looks when no server uses it.
LOOK_EVERY = 1.0


async def follow_secrets(house: House, every: float = LOOK_EVERY) -> None:
    """Never ends; cancel the task. A store that cannot be read right now is looked at again."""
    seen: dict[str, tuple[int, float]] | None = None
    names: set[str] = set()
    while True:
        used = servers_using(house.settings)
        if used:
            try:
                now = await asyncio.to_thread(house.secrets.versions, used)
            except (CallgateError, OSError, ValueError) as why:
                log.debug("the secrets cannot be looked at: %s", type(why).__name__)
                now = seen or {}
            if seen is not None:
                _renew(house, used, {name for name in names & used.keys() if now.get(name) != seen.get(name)})
            seen, names = now, set(used)
        await asyncio.sleep(every)


def _renew(house: House, used: dict[str, list[str]], changed: set[str]) -> None:
    servers = sorted({server for name in changed for server in used[name]})
    if servers:
        log.info("changed secrets: %s; starts again: %s", ", ".join(sorted(changed)), ", ".join(servers))
        house.upstreams.renew(servers)

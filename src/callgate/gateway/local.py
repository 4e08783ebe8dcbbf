"""Requests that callgate answers itself: lists, discovery, ping, the log level of a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from callgate.errors import ProtocolError
from callgate.gateway import discovery, wire
from callgate.gateway.inbound import Inbound, Reply, result
from callgate.gateway.ladder import LOG_LEVELS
from callgate.gateway.listing import Listed, page
from callgate.gateway.replies import no_method
from callgate.types import Front

if TYPE_CHECKING:
    from callgate.gateway.house import House


async def list_(inbound: Inbound, front: Front, house: House) -> Reply:
    view, method = await house.view_for(front, inbound.principal), inbound.method
    if method != "tools/list" and method not in view.others:
        raise no_method(method, front.era)
    return result(inbound, page(house, Listed(method, view, inbound.principal, front), inbound.params.get("cursor")))


async def discover(inbound: Inbound, front: Front, house: House) -> Reply:
    view = await house.view_for(front, inbound.principal)
    return result(inbound, discovery.discover(house, view, inbound.principal, front))


async def ping(inbound: Inbound, front: Front, house: House) -> Reply:
    return result(inbound, b"{}")


async def set_level(inbound: Inbound, front: Front, house: House) -> Reply:
    level = inbound.params.get("level")
    if level not in LOG_LEVELS or inbound.session is None:
        raise ProtocolError(f"level must be one of {', '.join(LOG_LEVELS)}.", wire.INVALID_PARAMS)
    inbound.session.set_log_level(level)
    return result(inbound, b"{}")

"""What HTTP requests show besides their credential: proofs of keys, certificates (``identity.possession``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request

from callgate.gateway.challenge import path_of
from callgate.identity import Shown

if TYPE_CHECKING:
    from callgate.gateway.house import House
    from callgate.gateway.turn import Turn


def shown_by(request: Request, house: House) -> Shown:
    """What a request to a page shows. Its URL is the public one: the Host header is the sender's to choose."""
    path = request.scope["raw_path"].partition(b"?")[0].decode("latin-1")
    peer = request.client.host if request.client is not None else ""
    return house.recogniser.shown(request.method, house.public_url + path, dict(request.scope["headers"]), peer)


def shown_in(turn: Turn, house: House) -> Shown:
    """What a POST on an MCP endpoint shows; its URL is that of the endpoint."""
    peer = turn.lane.client[0] if turn.lane.client is not None else ""
    return house.recogniser.shown("POST", house.public_url + path_of(turn.door), turn.headers, peer)

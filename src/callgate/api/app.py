"""The admin listener's application."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from callgate.gateway import House


def admin_app(house: House) -> Starlette:
    async def metrics(request: Request) -> Response:
        return Response(house.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return Starlette(routes=[Route("/metrics", metrics)])

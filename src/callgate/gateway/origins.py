"""Answers that pages of an allowed Origin may read: clients that run in a browser need them (the Fetch standard).

The lane refused every other Origin already. Cookies play no part here: no answer allows credentials.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

Handler = Callable[[Request], Awaitable[Response]]
#: What discovery and token requests of clients bring along.
SENT = "authorization, content-type, dpop, mcp-protocol-version"
READ = "dpop-nonce, www-authenticate"


def for_pages(handler: Handler) -> Handler:
    """The handler, whose answers pages may read; it says to them beforehand what they may send."""

    async def answer(request: Request) -> Response:
        origin = request.headers.get("origin")
        if origin is None:
            return await handler(request)
        headers = {"access-control-allow-origin": origin, "vary": "origin"}
        if request.method == "OPTIONS" and "access-control-request-method" in request.headers:
            more = {"access-control-allow-methods": "GET, POST", "access-control-allow-headers": SENT}
            return Response(status_code=204, headers={**headers, **more, "access-control-max-age": "3600"})
        response = await handler(request)
        response.headers.update({**headers, "access-control-expose-headers": READ})
        return response

    return answer

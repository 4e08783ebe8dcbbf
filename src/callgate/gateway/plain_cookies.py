"""Cookies as browsers mean them: what is not plain ASCII is not read at all.

The names of our cookies begin with ``__Host-``, so browsers take them from this very host only. A name that begins with
another kind of blank is none of those to a browser, and any host of the domain may set it; but who strips such blanks,
as Starlette does, reads our name.
"""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Receive, Scope, Send

_PLAIN = re.compile(rb"[\x20-\x7e]*")


class PlainCookies:
    """ASGI middleware: requests without the cookies that have anything else in them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["headers"] = [
                (name, _plain(value) if name == b"cookie" else value) for name, value in scope["headers"]
            ]
        await self._app(scope, receive, send)


def _plain(line: bytes) -> bytes:
    return b";".join(part for part in line.split(b";") if _PLAIN.fullmatch(part))

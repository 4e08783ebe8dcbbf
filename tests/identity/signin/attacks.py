"""What a refused sign-in looks like: nobody is signed in, nothing of the attacker's is on a page or in the log."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.fuzz.raw import Reply
from tests.identity.signin.idp import Browser, Lobby

Attack = Callable[[Lobby], Any]
EVIL = "<script>alert(1)</script>"


def is_refusal(reply: Reply, *statuses: int) -> None:
    """A page that says no, and tells nothing of our insides or of what was sent."""
    assert reply.status in (statuses or range(400, 504)), reply
    assert "location" not in reply.headers and "set-cookie" not in reply.headers
    for word in (b"Traceback", b"File ", b"<script", b"evil", b"exception", b"sqlite"):
        assert word not in reply.body, reply
    if reply.headers["content-type"].startswith("text/html"):
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert reply.headers["cache-control"] == "no-store"


async def refused(stand: Lobby, browser: Browser, reply: Reply, *statuses: int) -> None:
    is_refusal(reply, *statuses)
    assert await stand.person(browser) is None
    await stand.records()
    assert not [row for row in stand.rows() if row["outcome"] == "ok"]
    for row in stand.rows():
        assert row["outcome"] == "refused" and EVIL not in json.dumps(row) and "evil" not in json.dumps(row)


async def at_the_callback(stand: Lobby, browser: Browser, **query: str) -> str:
    """The URL with which the browser is about to come back."""
    await browser.go(stand.url(**query), until="/oauth/callback")
    return browser.at


def with_query(url: str, **changes: str | None) -> str:
    found = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()} | changes
    return url.partition("?")[0] + "?" + urlencode({name: value for name, value in found.items() if value is not None})

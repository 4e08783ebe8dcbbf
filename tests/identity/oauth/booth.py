"""A gateway where people sign in, and terminals that ask for device codes there."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.fuzz.raw import Reply
from tests.identity.oauth.office import basic
from tests.identity.signin.idp import Browser, Lobby, lobby

DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
SCOPES = {"read": "Read things", "write": "Change <things>"}
PAGE = "/oauth/device"


class Terminal:
    """An application without a browser. ``begun`` is what it was told."""

    def __init__(self, stand: Lobby, client: str = "callgate-cli", *, secret: str | None = None) -> None:
        self.stand = stand
        self.client = client
        self.auth = () if secret is None else (("Authorization", basic(client, secret)),)
        self.begun: dict[str, Any] = {}

    async def post(self, path: str, fields: Mapping[str, str], *headers: tuple[str, str]) -> Reply:
        named = {} if self.auth else {"client_id": self.client}
        body = urlencode({**named, **fields}).encode()
        kind = ("Content-Type", "application/x-www-form-urlencoded")
        size = ("Content-Length", str(len(body)))
        return await self.stand.ask(self.stand.page(path, kind, size, *self.auth, *headers, method="POST") + body)

    async def begin(self, **fields: str) -> dict[str, Any]:
        reply = await self.post("/oauth/device_authorization", fields)
        assert reply.status == 200, reply
        self.begun = reply.json
        return self.begun

    async def ask(self, **fields: str) -> Reply:
        """Poll once."""
        form = {"grant_type": DEVICE, "device_code": self.begun["device_code"], **fields}
        return await self.post("/oauth/token", form)

    async def refused(self, **fields: str) -> str:
        reply = await self.ask(**fields)
        assert reply.status == 400 and reply.headers["cache-control"] == "no-store", reply
        assert set(reply.json) == {"error", "error_description"}
        return str(reply.json["error"])


class Someone:
    """A person with a browser, signed in."""

    def __init__(self, stand: Lobby, browser: Browser) -> None:
        self.stand = stand
        self.browser = browser

    async def opens(self, path: str = PAGE) -> Reply:
        return await self.browser.go(path if path.startswith("http") else self.stand.base + path)

    async def token(self) -> str:
        return hidden(await self.opens(), "token")

    async def types(self, code: str, **fields: str) -> Reply:
        """Send the form of the page."""
        form = {"token": await self.token(), "user_code": code, **fields}
        return await self.browser.post(self.stand.base + PAGE, form)

    async def decides(self, code: str, decision: str = "approve") -> Reply:
        question = await self.types(code)
        assert question.status == 200, question
        form = {name: hidden(question, name) for name in ("token", "user_code")}
        return await self.browser.post(self.stand.base + PAGE, {**form, "decision": decision})


def hidden(reply: Reply, name: str) -> str:
    found = re.search(rf'<input type="hidden" name="{name}" value="([^"]*)">', reply.body.decode())
    assert found is not None, reply
    return unescape(found[1])


async def someone(stand: Lobby, user: str = "alice") -> Someone:
    stand.idp.user = user
    return Someone(stand, await stand.sign_in())


@asynccontextmanager
async def booth(folder: Path, settings: Mapping[str, Any] | None = None, **oauth: Any) -> AsyncIterator[Lobby]:
    async with lobby(folder) as stand:
        identity = {**stand.settings["identity"], "oauth": {"scopes": SCOPES, **oauth}}
        await stand.reload(identity=identity, **(settings or {}))
        yield stand

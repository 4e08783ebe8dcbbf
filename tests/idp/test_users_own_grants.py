"""A server whose issuer is ``oidc-provider``: each user signs in there, in Chromium, when a call first needs it."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal

import anyio
import httpx
import httpx2
import pytest
from anyio import to_thread
from joserfc import jwt
from joserfc.jwk import KeySet
from mcp import Client
from mcp.client.context import ClientRequestContext
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp.types import ElicitRequestParams, ElicitRequestURLParams, ElicitResult

from callgate.identity import new_key
from tests.cli.terminal import Shell
from tests.gateway.upstreams import Modern, Script, text
from tests.idp.browser import Browser, browser
from tests.idp.gatehouse import Gatehouse, gatehouse, signs_in
from tests.idp.oidc import OidcProvider, oidc_provider
from tests.processes import free_port
from tests.servers.raw_http import Peer, RawServer, Request
from tests.servers.tls_proxy import Maker, TlsProxy

pytestmark = [pytest.mark.anyio, pytest.mark.servers]
PEOPLE = {"alice.notes": {"name": "Alice at the notes"}, "bob.notes": {"name": "Bob at the notes"}}
PRM = "/.well-known/oauth-protected-resource/mcp"
TTL = 5
PAGES_FIRST = -32042
#: Under which name the gateway is reached from outside, where it has one.
HOST = "gate.example"


class Notes:
    """An MCP server that takes tokens (JWT) of its issuer for itself, and writes down who came with what."""

    def __init__(self) -> None:
        self.issuer = ""
        self.url = ""
        self.keys: KeySet | None = None
        self.server = Modern(Script({"read": text("a note"), "write": text("written")}))
        self.log: list[dict[str, Any]] = []
        self.tokens: list[str] = []

    async def __call__(self, request: Request, peer: Peer) -> None:
        if request.method == "GET":
            said = {"resource": self.url, "authorization_servers": [self.issuer], "scopes_supported": ["notes:read"]}
            peer.json(said, 200 if request.target == PRM else 404)
            return
        claims = self._claims(request.headers.get("authorization", ""))
        if claims is None:
            where = self.url.removesuffix("/mcp") + PRM
            peer.body(b"", 401, more=f'www-authenticate: Bearer resource_metadata="{where}", scope="notes:read"\r\n')
            return
        name = request.message.get("params", {}).get("name")
        if name == "write" and "notes:write" not in claims["scope"].split():
            challenge = 'Bearer error="insufficient_scope", scope="notes:read notes:write"'
            peer.body(b"", 403, more=f"www-authenticate: {challenge}\r\n")
            return
        if request.message.get("method") == "tools/call":
            self.log.append({**claims, "tool": name})
        await self.server(request, peer)

    def _claims(self, header: str) -> dict[str, Any] | None:
        assert self.keys is not None
        token = header.removeprefix("Bearer ")
        try:
            claims: dict[str, Any] = jwt.decode(token, self.keys, algorithms=["RS256"]).claims
        except Exception:
            return None
        good = (claims["iss"], claims["aud"]) == (self.issuer, self.url) and claims["exp"] > time.time()
        if good and token not in self.tokens:
            self.tokens.append(token)
        return claims if good else None


class User:
    """A person with a browser, who does what a client asks for; ``pages`` are what was read on the way. The client
    calls with ``credential``: a token of the sign-in, or a static key, which the page asks for.
    """

    def __init__(self, window: Browser, credential: str) -> None:
        self.window = window
        self.credential = credential
        self.pages: list[str] = []
        #: The issuer of the server knows this browser.
        self.known = False

    async def asked(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        assert isinstance(params, ElicitRequestURLParams)
        await to_thread.run_sync(self.connect, params.url)
        return ElicitResult(action="accept")

    def connect(self, url: str) -> None:
        window = self.window
        window.open(url)
        if window.has("#key"):
            window.fill("#key", self.credential)
            window.click("button.main")
        self.pages.append(window.wait_for_text("Connect to notes?"))
        window.click("button.main")
        if not self.known:
            signs_in(window, "alice.notes")
            self.known = True
        window.wait_for_text("wants to act for you")
        window.click("button")
        self.pages.append(window.wait_for_text("Connected to notes"))


class Scene:
    def __init__(self, house: Gatehouse, notes: Notes, idp: OidcProvider, user: User) -> None:
        self.house = house
        self.notes = notes
        self.idp = idp
        self.user = user

    @asynccontextmanager
    async def client(self, mode: Literal["auto", "legacy"] = "auto") -> AsyncIterator[Client]:
        headers = {"Authorization": f"Bearer {self.user.credential}"}
        async with httpx2.AsyncClient(headers=headers, timeout=60.0) as http:
            transport = streamable_http_client(f"{self.house.inside}/mcp", http_client=http)
            async with Client(transport, mode=mode, elicitation_callback=self.user.asked) as client:
                yield client

    async def call(self, client: Client, tool: str) -> str:
        """Call a tool; a legacy client is told which page comes first, and calls again."""
        try:
            return said(await client.call_tool(tool, {}))
        except MCPError as refused:
            if refused.error.code != PAGES_FIRST:
                raise
            pages: Any = refused.error.data
            for each in pages["elicitations"]:
                await to_thread.run_sync(self.user.connect, each["url"])
            return said(await client.call_tool(tool, {}))


@contextmanager
def _opened(folder: Path, notes: Notes, port: int, public_url: str, maker: Maker | None) -> Iterator[Scene]:
    key, digest = new_key()
    authority = maker.file if maker is not None else None
    issuing: dict[str, Any] = {
        # Without TLS there is no document that the issuer would take, though it takes documents.
        "documents": True,
        "registration": maker is None,
        "token_ttl": TTL,
        "resources": {notes.url: "notes:read notes:write"},
        "default_resource": notes.url,
        "hosts": {HOST: "127.0.0.1"},
    }
    server = {"url": notes.url, "auth": {"type": "oauth"}}
    keys = {"keys": [{"subject": "ann", "sha256": digest}]}
    with (
        oidc_provider([], PEOPLE, authority, **issuing) as idp,
        browser("--ignore-certificate-errors", f"--host-resolver-rules=MAP {HOST} 127.0.0.1") as window,
        ExitStack() as stack,
    ):
        notes.issuer = idp.issuer
        notes.keys = KeySet.import_key_set(httpx.get(idp.jwks_uri, timeout=20).json())
        house = stack.enter_context(
            gatehouse(folder, {"notes": server}, {}, port=port, public_url=public_url, identity=keys)
        )
        # Behind the proxy it is the holder of a key who calls, else a person who signed in.
        yield Scene(house, notes, idp, User(window, key if public_url else house.token(window)))


@asynccontextmanager
async def scene(folder: Path, maker: Maker | None = None) -> AsyncIterator[Scene]:
    """``maker``: the gateway is behind a proxy with a certificate of this authority, and has a document."""
    notes, port = Notes(), free_port()
    async with AsyncExitStack() as stack:
        notes.url = (await stack.enter_async_context(RawServer(notes))).url
        proxy = await stack.enter_async_context(TlsProxy(maker, port)) if maker is not None else None
        public_url = f"https://{HOST}:{proxy.port}" if proxy is not None else ""
        opened = _opened(folder, notes, port, public_url, maker)
        try:
            yield await to_thread.run_sync(opened.__enter__)
        finally:
            await to_thread.run_sync(opened.__exit__, None, None, None)


def said(result: Any) -> str:
    return "".join(block.text for block in result.content)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_user_is_asked_once_and_the_server_sees_who_it_is(
    tmp_path: Path, mode: Literal["auto", "legacy"]
) -> None:
    """callgate registers itself at the issuer."""
    async with scene(tmp_path) as stage, stage.client(mode) as client:
        notes, user = stage.notes, stage.user
        assert await stage.call(client, "notes__read") == "a note"
        assert [(each["sub"], each["aud"], each["scope"]) for each in notes.log] == [
            ("alice.notes", notes.url, "notes:read")
        ]
        assert (
            "notes:read" in user.pages[0]
            and "Alice Ardent" in user.pages[0]
            and "Team chat, an application" in user.pages[0]
        )
        # Now the server shows the user what it has.
        assert "notes__write" in [tool.name for tool in (await client.list_tools()).tools]

        await _refreshes(stage, client)

        # A tool needs more: the user is asked again, for both.
        assert await stage.call(client, "notes__write") == "written"
        assert len(user.pages) == 4 and "notes:write" in user.pages[2]
        assert set(notes.log[-1]["scope"].split()) == {"notes:read", "notes:write"}

        await to_thread.run_sync(_disconnects, stage)
        assert await stage.call(client, "notes__read") == "a note"
        assert len(user.pages) == 6
        await to_thread.run_sync(_check_the_record, stage)


async def _refreshes(stage: Scene, client: Client) -> None:
    """The token ends: another comes without a word to the user."""
    before = len(stage.notes.tokens)
    await anyio.sleep(TTL + 1)
    assert said(await client.call_tool("notes__read", {})) == "a note"
    assert len(stage.notes.tokens) > before and len(stage.user.pages) == 2


def _disconnects(stage: Scene) -> None:
    window = stage.user.window
    window.open(f"{stage.house.base}/oauth/connections")
    assert stage.idp.issuer in window.text
    window.click("button[name=disconnect]")
    window.wait_for_text("not connected")


def _check_the_record(stage: Scene) -> None:
    """The log says who agreed to what, and holds no token."""
    records = stage.house.records()
    told = [each["reason"] for each in records if each["method"] == "oauth/connect" and each["subject"] == "alice"]
    once = ["the user was asked to agree", "the user agreed"]
    assert told == [*once, *once, "the user disconnected", *once]
    assert not any(token in str(records) for token in (*stage.notes.tokens, stage.user.credential))


async def test_callgate_is_known_by_its_document(tmp_path: Path) -> None:
    """The holder of a key connects; the issuer fetches who callgate is."""
    maker = Maker(tmp_path, "authority")
    async with scene(tmp_path, maker) as stage, stage.client() as client:
        assert said(await client.call_tool("notes__read", {})) == "a note"
        assert stage.notes.log[0]["client_id"] == f"{stage.house.base}/oauth/client.json"
        assert stage.notes.log[0]["sub"] == "alice.notes" and "ann" in stage.user.pages[0]
        await _refreshes(stage, client)


async def test_in_a_terminal_the_address_is_shown(tmp_path: Path) -> None:
    async with scene(tmp_path) as stage:
        (tmp_path / "home").mkdir(mode=0o700)
        shell, window = Shell(tmp_path / "home", stage.house.base), stage.user.window
        async with shell.begun("login", "--no-browser") as login:
            url = (await login.says(r"(http://\S+/oauth/authorize\?\S+)"))[1]
            await to_thread.run_sync(window.open, url)
            await to_thread.run_sync(window.click, "button.main")
            assert (await login.ended()).status == 0
        first = await shell.run("call", "notes/read")
        assert first.status == 8 and not first.out
        found = re.search(r"http://\S+/oauth/connect/\S+", first.err)
        assert found is not None, first.err
        await to_thread.run_sync(stage.user.connect, found[0])
        again = await shell.run("call", "notes/read")
        assert again.status == 0 and "a note" in again.out, again.err

"""Real MCP clients are given a URL and nothing else; their user signs in at ``oidc-provider``."""

from __future__ import annotations

import http.server
import json
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, parse_qsl, urlsplit

import anyio
import httpx2
import pytest
from anyio import to_thread
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata
from pydantic import AnyUrl

from tests.conformance.authorization import visit
from tests.conformance.client.authorised import Memory
from tests.flows.office import claims_of
from tests.idp.browser import browser
from tests.idp.gatehouse import Gatehouse, gatehouse, signs_in
from tests.matrix.packages import MODULES, node
from tests.processes import start_fixture
from tests.servers.raw_http import Peer, RawServer, Request
from tests.servers.tls_proxy import Maker

pytestmark = [pytest.mark.anyio, pytest.mark.servers]
TTL = 4.0
SCRIPT = Path(__file__).with_name("client_signs_in.mjs")
EASY, HARD = "web__test_simple_text", "web__test_error_handling"


class Desk:
    """Where the answer of a sign-in comes back to: the callback of a client. ``PATH`` is what ``visit`` ends at."""

    PATH = "/callback"

    def __init__(self) -> None:
        self.answers: list[dict[str, str]] = []

    async def __call__(self, request: Request, peer: Peer) -> None:
        at = urlsplit(request.target)
        if at.path == self.PATH:
            self.answers.append(dict(parse_qsl(at.query)))
        peer.body(b"Go back to your client.", 200, "text/plain")


class Documents(http.server.BaseHTTPRequestHandler):
    """Publishes the document of the client at ``/client.json``."""

    def do_GET(self) -> None:
        server: Any = self.server
        body = json.dumps(server.document).encode()
        server.fetched.append(self.path)
        self.send_response(200 if self.path == "/client.json" else 404)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def published(maker: Maker) -> Iterator[Any]:
    """A web server with the document of a client; ``url`` is the client's id."""
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Documents)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(maker.make("publisher")[0])
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.url = f"https://127.0.0.1:{server.server_address[1]}/client.json"
    server.document, server.fetched = {}, []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gatehouse, Any]]:
    """The gateway in front of the fixture, and where a client publishes its document."""
    folder = tmp_path_factory.mktemp("house")
    maker = Maker(folder, "authority")
    running, url = start_fixture(folder)
    oauth = {
        "token_ttl": f"{TTL}s",
        "registration": True,
        "client_documents": ["127.0.0.1"],
        "scopes": {"use": "Use the tools", "break": "Break something"},
        "required_scopes": {"*/*": ["use"], "web/test_error_handling": ["break"]},
        "apps": {"desk": {"title": "The desk", "redirect_uris": ["http://127.0.0.1/callback"]}},
    }
    with pytest.MonkeyPatch.context() as patch, running, published(maker) as publisher:
        patch.setenv("SSL_CERT_FILE", str(maker.file))
        servers = {"web": {"url": url}}
        with gatehouse(folder, servers, oauth, egress={"allow_private": ["127.0.0.1/32"]}) as house:
            yield house, publisher


class Person:
    """Goes wherever the client sends its user, and brings the answer back. ``visits`` are the addresses."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.visits: list[str] = []

    async def go(self, url: str) -> None:
        self.visits.append(url)
        await to_thread.run_sync(visit, url)

    async def back(self) -> AuthorizationCodeResult:
        answer = self.desk.answers.pop()
        return AuthorizationCodeResult(code=answer["code"], state=answer.get("state"), iss=answer.get("iss"))

    @property
    def asked(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.visits[-1]).query))


Way = Literal["registers itself", "has a document", "is registered"]


@asynccontextmanager
async def client(
    place: tuple[Gatehouse, Any], way: Way, mode: Literal["auto", "legacy"] = "auto"
) -> AsyncIterator[tuple[Client, Person, Memory]]:
    """The Python SDK with its OAuth client, connected by the URL of the gateway."""
    house, publisher = place
    desk, memory = Desk(), Memory()
    async with RawServer(desk) as served:
        callback = f"http://127.0.0.1:{served.port}{Desk.PATH}"
        about = OAuthClientMetadata(client_name="An assistant", redirect_uris=[AnyUrl(callback)])
        person, document = Person(desk), None
        if way == "is registered":
            memory.client = OAuthClientInformationFull(
                client_id="desk", redirect_uris=[AnyUrl(callback)], token_endpoint_auth_method="none"
            )
        elif way == "has a document":
            document = publisher.url
            publisher.document = {
                **about.model_dump(mode="json", exclude_none=True),
                "client_id": document,
                "token_endpoint_auth_method": "none",
            }
        auth = OAuthClientProvider(f"{house.base}/mcp", about, memory, person.go, person.back, document)
        async with httpx2.AsyncClient(auth=auth, timeout=30.0) as http:
            transport = streamable_http_client(f"{house.base}/mcp", http_client=http)
            async with Client(transport, mode=mode) as session:
                yield session, person, memory


def text_of(result: Any) -> str:
    return "".join(block.text for block in result.content)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("way", ["registers itself", "has a document", "is registered"])
async def test_with_nothing_but_the_url(
    place: tuple[Gatehouse, Any], way: Way, mode: Literal["auto", "legacy"]
) -> None:
    house, publisher = place
    async with client(place, way, mode) as (session, person, memory):
        names = [tool.name for tool in (await session.list_tools()).tools]
        assert EASY in names and HARD in names
        assert "simple text" in text_of(await session.call_tool(EASY, {}))
        assert len(person.visits) == 1 and memory.client is not None and memory.tokens is not None
        asked = person.asked
        # A tool that needs more is not what a client begins with.
        assert (asked["scope"], asked["resource"]) == ("use", f"{house.base}/mcp")
        assert asked["client_id"] == memory.client.client_id
        claims = claims_of(memory.tokens.access_token)
    assert claims["sub"] == f"{house.idp.issuer}#alice"
    assert claims["delegation_chain"][0]["sub"] == f"client:{asked['client_id']}"
    if way == "has a document":
        assert asked["client_id"] == publisher.url and "/client.json" in publisher.fetched
    elif way == "is registered":
        assert asked["client_id"] == "desk"
    call = next(each for each in reversed(house.records("tools/call")) if each.get("txn") == claims["txn"])
    assert (call["subject"], call["tool"], call["outcome"]) == ("alice", "test_simple_text", "ok")
    assert [each["sub"] for each in call["chain"]] == [f"client:{asked['client_id']}"]


async def test_a_token_that_ends_is_refreshed_and_nobody_is_asked(place: tuple[Gatehouse, Any]) -> None:
    async with client(place, "registers itself") as (session, person, memory):
        await session.call_tool(EASY, {})
        for _ in range(2):
            assert memory.tokens is not None
            before = memory.tokens
            await anyio.sleep(max(0.0, claims_of(before.access_token)["exp"] - time.time()) + 1.1)
            assert "simple text" in text_of(await session.call_tool(EASY, {}))
            after = memory.tokens
            assert after.access_token != before.access_token and after.refresh_token != before.refresh_token
        assert len(person.visits) == 1


@pytest.mark.parametrize("way", ["registers itself", "has a document", "is registered"])
async def test_a_tool_that_needs_more_sends_the_user_to_agree_once_more(place: tuple[Gatehouse, Any], way: Way) -> None:
    async with client(place, way) as (session, person, memory):
        await session.call_tool(EASY, {})
        assert "break" not in str(memory.tokens)
        result = await session.call_tool(HARD, {})
        assert result.is_error and memory.tokens is not None
        assert [parse_qs(urlsplit(each).query)["scope"] for each in person.visits] == [["use"], ["use break"]]
        assert set(str(memory.tokens.scope).split()) == {"use", "break"}
        await session.call_tool(HARD, {})
        await session.call_tool(EASY, {})
        assert len(person.visits) == 2


async def test_the_typescript_client_registers_itself_refreshes_and_asks_for_more(
    place: tuple[Gatehouse, Any],
) -> None:
    """Its user has Chromium, and is asked by the page that warns of programs nobody has checked."""
    house, _ = place
    done = await to_thread.run_sync(_typescript, house)
    assert EASY in done["tools"] and "simple text" in done["easy"] and done["hard"] is True
    assert done["asked"] == ["use", "use break"]
    assert done["refreshed"] is True and done["registered"].startswith("http") is False


def _typescript(house: Gatehouse) -> dict[str, Any]:
    command = [str(node()), str(SCRIPT), str(MODULES), f"{house.base}/mcp", EASY, HARD, str(TTL)]
    with (
        browser() as window,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child,
    ):
        limit = threading.Timer(120, child.kill)
        limit.start()
        assert child.stdout is not None and child.stderr is not None
        try:
            for number, line in enumerate(child.stdout):
                said: dict[str, Any] = json.loads(line)
                if "open" not in said:
                    return said
                window.open(said["open"])
                if number == 0:
                    signs_in(window)
                window.wait_for_url("/oauth/authorize")
                assert "nobody has checked who it is" in window.text
                window.click("button.main")
                window.wait_for_url("/callback?")
        finally:
            limit.cancel()
            child.kill()
        raise AssertionError(child.stderr.read()[-3000:])

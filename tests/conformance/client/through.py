"""The scenarios in which the suite's server wants tokens, played through callgate: callgate is the OAuth client.

The MCP client knows nothing of all that. It is asked to open a page of callgate's, or its user goes there to see what
there is to connect to; the user agrees there, and at the suite's authorization server, which asks nothing.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcp import Client
from mcp.client.context import ClientRequestContext
from mcp.shared.exceptions import MCPError
from mcp.types import ElicitRequestParams, ElicitRequestURLParams, ElicitResult
from pydantic import ValidationError

from .authorised import DOCUMENT, issuer_of
from .browser import Browser
from .scenarios import Told

Settings = dict[str, Any]
#: How often a user tries to connect to a server that shows nothing.
TRIES = 3
PAGES_FIRST = -32042


class User:
    """The person who uses the client, with a browser."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.browser = Browser()

    async def open(self, url: str) -> None:
        """Open a page and say yes on every page that follows."""
        text = await self.browser.through(url)
        print("user:", " ".join(re.sub("<style.*?</style>|<[^>]*>", " ", text).split())[:300], file=sys.stderr)

    async def connect(self, server: str) -> None:
        text = await self.browser.through(self.root + "/oauth/connections", server)
        print("user:", " ".join(re.sub("<style.*?</style>|<[^>]*>", " ", text).split())[:300], file=sys.stderr)

    async def asked(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        if not isinstance(params, ElicitRequestURLParams):
            return ElicitResult(action="decline")
        await self.open(params.url)
        return ElicitResult(action="accept")


async def through(server: str, endpoint: str, told: Told) -> None:
    """List the tools and call the first one, as often as it takes until the user is connected."""
    user = User(endpoint.partition("/servers/")[0])
    async with Client(endpoint, mode=told.mode, elicitation_callback=user.asked) as client:
        tools = (await client.list_tools()).tools
        for _ in range(TRIES):
            if tools:
                break
            await user.connect(server)
            tools = (await client.list_tools()).tools
        if not tools:
            raise RuntimeError("the server shows its user nothing")
        await call(client, tools[0].name, user)


async def call(client: Client, tool: str, user: User) -> None:
    """Call a tool; what demands that pages are opened first is called again when they were."""
    for _ in range(TRIES):
        try:
            print(tool, await client.call_tool(tool, {}), file=sys.stderr)
            return
        except (MCPError, ValidationError) as refused:
            print(f"{tool}: {refused}", file=sys.stderr)
            pages = refused.error.data if isinstance(refused, MCPError) and refused.error.code == PAGES_FIRST else None
            if not pages:
                return
            for each in pages["elicitations"]:
                await user.open(each["url"])


# The configuration: what the suite tells its client, told to callgate.


class Setting:
    """What is known when callgate is configured for one scenario: the suite's values, and where its server is."""

    def __init__(self, told: Told, url: str, folder: Path) -> None:
        self.context = told.context
        self.url = url
        self.folder = folder

    @property
    def issuer(self) -> str:
        """Who knows the client; the suite says it in some scenarios, and in the server's metadata."""
        return self.context.get("issuer") or asyncio.run(issuer_of(self.url))

    def file(self, name: str, content: str) -> str:
        """A file with this content."""
        path = self.folder / name
        path.write_text(content, "utf-8")
        path.chmod(0o600)
        return str(path)

    def client(self) -> Settings:
        """The client that is registered at the issuer, with its secret."""
        named = {"client_id": self.context["client_id"]}
        if "client_secret" not in self.context:
            return named
        secret = self.file("secret", self.context["client_secret"])
        return {**named, "client_secret": f"file:{secret}", "issuer": self.issuer}


def settings(scenario: str, setting: Setting) -> Settings:
    """The settings of callgate for one scenario: ``server`` goes to the suite's server, the rest beside it."""
    return MADE.get(scenario, _oauth)(setting)


def _oauth(setting: Setting) -> Settings:
    client = setting.client() if "client_id" in setting.context else {}
    return {"server": {"auth": {"type": "oauth", **client}}}


def _document(setting: Setting) -> Settings:
    return {"server": {"auth": {"type": "oauth", "client_id": DOCUMENT}}}


def _dpop(setting: Setting) -> Settings:
    return {"server": {"auth": {"type": "oauth", "dpop": True}}}


def _secret(setting: Setting) -> Settings:
    return {"server": {"auth": {"type": "client_credentials", **setting.client()}}}


def _key(setting: Setting) -> Settings:
    key = setting.file("key", setting.context["private_key_pem"])
    proof = {"client_auth": "private_key_jwt", "client_key": f"file:{key}"}
    return {"server": {"auth": {"type": "client_credentials", **setting.client(), **proof}}}


def _enterprise(setting: Setting) -> Settings:
    context = setting.context
    token = setting.file("id-token", context["idp_id_token"])
    auth = {"type": "enterprise", "provider": "idp", "assertion_file": token, **setting.client()}
    idp = {"issuer": context["idp_issuer"], "client_id": context["idp_client_id"]}
    identity = {"anonymous": True, "oauth": {}, "providers": {"idp": idp}}
    return {"server": {"auth": auth}, "identity": identity}


def _workload(setting: Setting) -> Settings:
    token = setting.file("workload-token", setting.context["valid_jwt"])
    return {"server": {"auth": {"type": "workload", "assertion_file": token, **setting.client()}}}


MADE: dict[str, Callable[[Setting], Settings]] = {
    "auth/basic-cimd": _document,
    "auth/client-credentials-basic": _secret,
    "auth/client-credentials-jwt": _key,
    "auth/dpop": _dpop,
    "auth/dpop-nonce": _dpop,
    "auth/enterprise-managed-authorization": _enterprise,
    "auth/wif-jwt-bearer": _workload,
}

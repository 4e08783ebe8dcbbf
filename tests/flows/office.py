"""The stage of the story: an identity provider, callgate as a process, a lake house with an issuer of its own."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
from anyio import to_thread
from joserfc.jwk import ECKey

from tests.gateway.upstreams import Modern, Script, text
from tests.identity.provider import ec_key
from tests.idp.browser import Browser
from tests.idp.oidc import OidcProvider, oidc_provider
from tests.processes import free_port, start_callgate
from tests.servers.lakehouse import SECRET, Lake, published

AGENTS = {"planner": "the planner's secret", "coder": "the coder's secret", "intern": "the intern's", "outsider": "o"}
TESTER: ECKey = ec_key("the tester's key")
PEOPLE = {
    "alice": {"name": "Alice Ardent", "groups": ["data"], "roles": ["analyst"], "email": "alice@example.org"},
    "bob": {"name": "Bob Brisk", "groups": ["sales"], "roles": [], "email": "bob@example.org"},
}
IDP_SECRET = "the secret of callgate at the office"
#: Where the chat application waits for answers. Nobody listens there: the address bar of the browser is enough.
CHAT = "http://127.0.0.1/answer"
RULES: list[dict[str, Any]] = [
    {"id": "data-people", "allow": ["lake/*"], "to": {"roles": ["data-reader"]}},
    {"id": "nothing-through-interns", "deny": ["lake/*"], "chain_any": {"roles": ["intern"]}},
]


class Office:
    """Where everybody is. ``base`` is callgate's public URL, ``admin`` that of its operators."""

    def __init__(self, idp: OidcProvider, lake: Lake, folder: Path, port: int) -> None:
        self.idp = idp
        self.lake = lake
        self.folder = folder
        self.port, admin = port, free_port()
        self.base, self.admin = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin}"
        self.settings = self._settings(admin)

    def _settings(self, admin: int) -> dict[str, Any]:
        def agent(name: str, **more: Any) -> dict[str, Any]:
            digest = hashlib.sha256(AGENTS[name].encode()).hexdigest()
            return {"roles": [name], "secret_sha256": digest, "scopes": ["lake:read"], **more}

        return {
            "listen": f"127.0.0.1:{self.port}",
            "admin_listen": f"127.0.0.1:{admin}",
            "data_dir": str(self.folder / "data"),
            "log_level": "warning",
            "servers": {"lake": self.lake.config("exchange", client_secret="file:lake.secret")},
            "identity": {
                "providers": {"office": self._provider()},
                "oauth": {
                    "scopes": {"lake:read": "Read the tables", "lake:write": "Change the tables"},
                    "apps": {"chat": {"title": "Team chat", "redirect_uris": [CHAT]}},
                },
                "agents": {
                    "planner": agent("planner", acts_for=[self.idp.issuer], may_delegate_to=["coder", "intern"]),
                    "coder": agent("coder"),
                    "intern": agent("intern"),
                    "outsider": agent("outsider"),
                    "tester": {"public_key": TESTER.as_pem(private=False).decode()},
                },
            },
            "policy": {"version": 1, "default": "deny", "rules": RULES},
        }

    def _provider(self) -> dict[str, Any]:
        return {
            "issuer": self.idp.issuer, "client_id": "callgate", "client_secret": "file:idp.secret",
            "title": "The office", "roles_claim": "groups", "role_map": {"data": ["data-reader"]},
        }  # fmt: skip

    def write(self) -> Path:
        file = self.folder / "callgate.yaml"
        file.write_text(json.dumps(self.settings), "utf-8")
        return file

    # What people and agents do

    def authorization(self, **changes: str | None) -> tuple[str, str]:
        """The address at which the chat application has its user sign in, and the verifier that only it knows."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked: dict[str, str | None] = {
            "response_type": "code", "client_id": "chat", "redirect_uri": CHAT, "state": "abc", "scope": "lake:read",
            "code_challenge": challenge, "code_challenge_method": "S256", "resource": f"{self.base}/mcp",
        }  # fmt: skip
        query = urlencode({name: value for name, value in (asked | changes).items() if value is not None})
        return f"{self.base}/oauth/authorize?{query}", verifier

    def sign_in(self, browser: Browser, person: str = "alice") -> dict[str, Any]:
        """A person signs in at the office and lets the chat application in; what the application gets."""
        url, verifier = self.authorization()
        browser.open(url)
        browser.fill("input[name=login]", person)
        browser.fill("input[name=password]", f"pw-{person}")
        browser.click("button")
        return self.let_in(browser, verifier)

    def let_in(self, browser: Browser, verifier: str) -> dict[str, Any]:
        """A person who has just signed in lets the chat application in; what the application gets."""
        browser.wait_for_url("/oauth/authorize")
        browser.click("button.main")
        answer = parse_qs(urlsplit(browser.wait_for_url(f"{CHAT}?")).query)
        assert answer["iss"] == [self.base] and answer["state"] == ["abc"]
        form = {
            "grant_type": "authorization_code", "code": answer["code"][0], "code_verifier": verifier,
            "client_id": "chat", "redirect_uri": CHAT, "resource": f"{self.base}/mcp",
        }  # fmt: skip
        return self.token(form).json()  # type: ignore[no-any-return]

    def token(self, form: dict[str, str], agent: str = "") -> httpx.Response:
        auth = (agent, AGENTS[agent]) if agent else None
        return httpx.post(f"{self.base}/oauth/token", data=form, auth=auth, timeout=20)

    def exchange(self, agent: str, token: str, **more: str) -> httpx.Response:
        kind = "urn:ietf:params:oauth:token-type:access_token"
        form = {"subject_token": token, "subject_token_type": kind, **more}
        return self.token({"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", **form}, agent)

    def call(self, token: str, tool: str = "lake__count_rows") -> httpx.Response:
        """One call in the modern era."""
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "story", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        message = {
            "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": {}, "_meta": meta},
        }  # fmt: skip
        headers = {
            "Authorization": f"Bearer {token}", "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": tool,
        }  # fmt: skip
        return httpx.post(f"{self.base}/mcp", json=message, headers=headers, timeout=20)

    def records(self) -> list[dict[str, Any]]:
        """The audit log, oldest first."""
        token = (self.folder / "data" / "operator.token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        found = httpx.get(f"{self.admin}/api/v1/calls", params={"limit": "200"}, headers=headers, timeout=20).json()
        return list(reversed(found["calls"]))


@asynccontextmanager
async def office(folder: Path) -> AsyncIterator[Office]:
    """Everything started, and ended on the way out."""
    trusted: dict[str, Any] = {}
    tables = Modern(Script({"count_rows": text("42")}))
    async with Lake(trusts=trusted, server=tables) as lake:
        with ExitStack() as stack:
            place = await to_thread.run_sync(_opened, stack, lake, folder)
            trusted[place.base] = published(folder / "data")
            try:
                yield place
            finally:
                await to_thread.run_sync(stack.close)


def _opened(stack: ExitStack, lake: Lake, folder: Path) -> Office:
    port = free_port()
    (folder / "data").mkdir(mode=0o700)
    for name, secret in (("idp", IDP_SECRET), ("lake", SECRET)):
        file = folder / f"{name}.secret"
        file.touch(mode=0o600)
        file.write_text(secret)
    client = {
        "client_id": "callgate", "client_secret": IDP_SECRET,
        "redirect_uris": [f"http://127.0.0.1:{port}/oauth/callback"],
    }  # fmt: skip
    idp = stack.enter_context(oidc_provider([client], PEOPLE))
    place = Office(idp, lake, folder, port)
    running, base = start_callgate(place.write(), folder)
    stack.enter_context(running)
    assert base == place.base
    return place


def claims_of(token: str) -> dict[str, Any]:
    body = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return found

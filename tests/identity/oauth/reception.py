"""A gateway where people let applications in: a provider to sign in at, a browser, applications of every kind."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.fuzz.raw import Reply
from tests.gateway.upstreams import Modern, Script, http, serve, text
from tests.identity.oauth.office import RULES, Office, agent, secret_of
from tests.identity.signin.idp import Browser, OpenIdProvider, provider

SITE, DESK, PROGRAM, HOUSE = "site", "desk", "program", "house"
SCOPES = {"read": "Read your things", "write": "Change your things", "admin": "Do everything"}
Fields = Mapping[str, str | None]


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


APPS: dict[str, Any] = {
    SITE: {"title": "The Site", "redirect_uris": ["https://site.example/cb"], "scopes": ["read", "write"]},
    DESK: {"redirect_uris": ["https://desk.example/cb?x=1"], "secret_sha256": digest(secret_of(DESK))},
    PROGRAM: {"redirect_uris": ["http://127.0.0.1/cb", "http://localhost/cb", "http://[::1]/cb"]},
    HOUSE: {"redirect_uris": ["https://house.example/cb"], "trusted": True},
}
WHERE = {
    SITE: "https://site.example/cb", DESK: "https://desk.example/cb?x=1", PROGRAM: "http://127.0.0.1:7777/cb",
    HOUSE: "https://house.example/cb",
}  # fmt: skip


class Reception(Office):
    """The office, with people who sign in at ``idp`` in ``browser``."""

    idp: OpenIdProvider
    browser: Browser

    def fields(self, app: str = SITE, **changes: str | None) -> dict[str, str]:
        """A good authorization request; a change to ``None`` leaves the parameter out."""
        self.verifier = secrets.token_urlsafe(48)
        good: dict[str, str | None] = {
            "response_type": "code", "client_id": app, "redirect_uri": WHERE.get(app, ""), "state": "the state",
            "code_challenge": challenge(self.verifier), "code_challenge_method": "S256",
        }  # fmt: skip
        return {name: value for name, value in {**good, **changes}.items() if value is not None}

    async def visit(self, app: str = SITE, *, raw: str = "", browser: Browser | None = None, **changes: Any) -> Reply:
        """What the browser sees at the authorization endpoint, on this host."""
        query = raw or urlencode(self.fields(app, **changes))
        return await (browser or self.browser).get(f"{self.base}/oauth/authorize?{query}")

    async def sign_in(self, browser: Browser | None = None) -> Browser:
        browser = browser or self.browser
        reply = await browser.go(f"{self.base}/oauth/sign-in")
        assert reply.status == 200, reply
        return browser

    async def decide(self, shown: Reply, decision: str = "allow", browser: Browser | None = None, **more: str) -> Reply:
        """Press a button of the consent page."""
        fields = {**hidden(shown), "decision": decision, **more}
        return await (browser or self.browser).post(f"{self.base}/oauth/consent", fields, ("Origin", self.base))

    async def code(self, app: str = SITE, *, browser: Browser | None = None, **changes: Any) -> str:
        """A code that the person agreed to; ``self.verifier`` goes with it."""
        reply = await self.visit(app, browser=browser, **changes)
        if reply.status == 200:
            reply = await self.decide(reply, browser=browser)
        assert reply.status == 303, reply
        return answer(reply)["code"]

    async def redeem(self, given: str, app: str = SITE, /, *, client: str = "", **changes: str | None) -> Reply:
        """Exchange a code, as the client authenticates: ``desk`` with its secret."""
        good: dict[str, str | None] = {
            "grant_type": "authorization_code", "code": given, "code_verifier": self.verifier,
            "redirect_uri": WHERE.get(app, ""), "client_id": app,
        }  # fmt: skip
        fields = {name: value for name, value in {**good, **changes}.items() if value is not None}
        return await self.post(fields, client=client or (DESK if app == DESK else ""))

    async def tokens(self, app: str = SITE, **changes: Any) -> dict[str, Any]:
        """Access and refresh token, in the name of the person in the browser."""
        reply = await self.redeem(await self.code(app, **changes), app, redirect_uri=changes.get("redirect_uri"))
        assert reply.status == 200, reply
        found: dict[str, Any] = reply.json
        return found

    async def refresh(self, token: str, app: str = SITE, **more: str) -> Reply:
        fields = {"grant_type": "refresh_token", "refresh_token": token, "client_id": app, **more}
        return await self.post(fields, client=DESK if app == DESK else "")


def challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def hidden(reply: Reply) -> dict[str, str]:
    """The hidden fields of a page."""
    assert reply.status == 200, reply
    found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', reply.body.decode())
    return {name: unescape(value) for name, value in found}


def answer(reply: Reply) -> dict[str, str]:
    """The parameters of the answer to the application."""
    assert reply.status == 303, reply
    return {name: values[0] for name, values in parse_qs(urlsplit(reply.headers["location"]).query).items()}


def on_a_page(reply: Reply, status: int = 400) -> str:
    """The words of a page of ours that refuses: nothing was sent anywhere, and nothing of our insides is said."""
    assert reply.status == status and "location" not in reply.headers, reply
    assert reply.headers["cache-control"] == "no-store" and "frame-ancestors 'none'" in policy_of(reply)
    assert b"Traceback" not in reply.body and b'File "' not in reply.body
    return unescape(reply.body.decode())


def declined(reply: Reply, stand: Reception, state: str | None = "the state") -> str:
    """The error that the application is told, with everything that belongs to it."""
    found = answer(reply)
    assert found["iss"] == stand.base and found.get("state") == state and "code" not in found, found
    assert reply.headers["cache-control"] == "no-store" and reply.headers["referrer-policy"] == "no-referrer"
    return found["error"]


def policy_of(reply: Reply) -> str:
    return reply.headers["content-security-policy"]


class Publisher(OpenIdProvider):
    """A host on loopback that publishes documents of applications: ``documents`` by path, each as bytes or JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.documents: dict[str, Any] = {}

    def pages(self) -> dict[str, Any]:
        return {path: lambda query, headers, body, path=path: self._bring(path) for path in self.documents}

    def _bring(self, path: str) -> tuple[int, Any, str]:
        return 200, self.documents[path], ""

    def publish(self, path: str = "/client.json", **changes: Any) -> str:
        """A good document, changed; returns its URL."""
        url = self.issuer + path
        good = {"client_id": url, "client_name": "Example", "redirect_uris": ["http://127.0.0.1/cb"]}
        known = {"grant_types": ["authorization_code", "refresh_token"], **good, **changes}
        self.documents[path] = {name: value for name, value in known.items() if value is not None}
        return url


@asynccontextmanager
async def reception(
    folder: Path, oauth: Mapping[str, Any] | None = None, identity: Mapping[str, Any] | None = None, **settings: Any
) -> AsyncIterator[Reception]:
    """A reception whose only server ``u`` has the tools ``hello`` and ``delete_all``; alice is signed in."""
    script = Script({"hello": text("hello"), "delete_all": text("gone")})
    async with OpenIdProvider() as idp, serve(Modern(script)) as server:
        stand = Reception(folder, {"u": http(server, "modern")})
        stand.idp, stand.browser = idp, Browser()
        agents = {
            "planner": agent("planner", scopes=["read", "write"], acts_for=[idp.issuer], may_delegate_to=["coder"]),
            "coder": agent("coder", scopes=["read"]),
            "outsider": agent("outsider", scopes=["read"]),
        }
        known = {
            "oauth": {"scopes": SCOPES, "apps": APPS, **(oauth or {})}, "providers": {"main": provider(idp)},
            "agents": agents, **(identity or {}),
        }  # fmt: skip
        policy = {"version": 1, "default": "deny", "rules": RULES}
        known = json.loads(json.dumps(known))  # tests change it
        stand.write(identity=known, policy=policy, virtual_servers={"coder": {"tools": ["u/*"]}}, **settings)
        async with stand:
            await stand.sign_in()
            yield stand

"""A gateway with a token service, an identity provider beside it, three agents, and a client for its endpoints."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from joserfc.jwk import ECKey

from tests.fuzz.raw import Reply
from tests.gateway.stand import Stand, allow, calling, deny
from tests.gateway.upstreams import Modern, Script, http, serve, text
from tests.identity.provider import Clock, Provider, ec_key, sign

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS = "urn:ietf:params:oauth:token-type:access_token"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
KEY: ECKey = ec_key("tester's key")
RULES = [
    allow("*/*", to={"roles": ["planner", "coder", "dev", "tester"]}),
    deny("*/delete_*", id="no-deletes-through-interns", chain_any={"roles": ["intern"]}),
]


def secret_of(name: str) -> str:
    return f"the secret: of {name} % +"


def agent(name: str, **more: Any) -> dict[str, Any]:
    digest = hashlib.sha256(secret_of(name).encode()).hexdigest()
    return {"roles": [name], "secret_sha256": digest, "audiences": ["/mcp", "/mcp/*", "/servers/*/mcp"], **more}


def agents(idp: Provider, **more: Any) -> dict[str, Any]:
    public = KEY.as_pem(private=False).decode()
    return {
        "planner": agent(
            "planner", owner="platform", scopes=["read", "write", "admin"], acts_for=[idp.issuer],
            may_delegate_to=["coder", "intern", "tester"],
        ),
        "coder": agent("coder", scopes=["read", "write"], may_delegate_to=["tester", "planner"]),
        "intern": agent("intern", scopes=["read"]),
        "tester": {"roles": ["tester"], "public_key": public, "audiences": ["mcp"], "scopes": ["read"]},
        "outsider": agent("outsider", scopes=["read"]),
        **more,
    }  # fmt: skip


class Office(Stand):
    """The stand with the token service switched on."""

    idp: Provider

    def identity(self, **more: Any) -> dict[str, Any]:
        jwt = [{"issuer": self.idp.issuer, "audience": "callgate", "jwks_uri": self.idp.jwks_uri}]
        return {"jwt": jwt, "oauth": {}, "agents": agents(self.idp), **more}

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def user(self, **claims: Any) -> str:
        """A token of the identity provider for alice."""
        return self.idp.token(ec_key("first"), **{"scope": "read write", "roles": ["dev"], **claims})

    async def post(
        self, fields: Mapping[str, str] | str, *headers: tuple[str, str], path: str = "/oauth/token", client: str = ""
    ) -> Reply:
        body = fields if isinstance(fields, str) else urlencode(fields)
        kind = () if any(name.lower() == "content-type" for name, _ in headers) else (
            ("Content-Type", "application/x-www-form-urlencoded"),
        )  # fmt: skip
        auth = (("Authorization", basic(client)),) if client else ()
        size = ("Content-Length", str(len(body.encode())))
        return await self.ask(self.page(path, *kind, *auth, size, *headers, method="POST") + body.encode())

    async def own(self, client: str, **fields: str) -> str:
        """The client's own token."""
        return token_in(await self.post({"grant_type": "client_credentials", **fields}, client=client))

    async def exchange(self, client: str, subject: str, **fields: str) -> Reply:
        form = {"grant_type": EXCHANGE, "subject_token": subject, "subject_token_type": ACCESS, **fields}
        return await self.post(form, client=client)

    async def through(self, *clients: str, subject: str | None = None, **fields: str) -> str:
        """The user's token through these agents, one after the other."""
        token = subject or self.user()
        for client in clients:
            token = token_in(await self.exchange(client, token, **fields))
        return token

    async def call_with(self, token: str, tool: str = "u__hello", path: str = "/mcp") -> Reply:
        return await self.ask(self.request(calling(tool, {}), ("Authorization", f"Bearer {token}"), path=path))

    async def get(self, path: str, *headers: tuple[str, str], method: str = "GET") -> Reply:
        return await self.ask(self.page(path, *headers, method=method))


@asynccontextmanager
async def office(folder: Path, identity: Mapping[str, Any] | None = None, **settings: Any) -> AsyncIterator[Office]:
    """An office whose only server ``u`` has the tools ``hello`` and ``delete_all``."""
    script = Script({"hello": text("hello"), "delete_all": text("gone")})
    async with Provider(Clock(), ec_key("first")) as idp, serve(Modern(script)) as server:
        stand = Office(folder, {"u": http(server, "modern")})
        stand.idp = idp
        policy = {"version": 1, "default": "deny", "rules": RULES}
        virtual = {"coder": {"tools": ["u/*"]}}
        stand.write(identity=stand.identity(**(identity or {})), policy=policy, virtual_servers=virtual, **settings)
        async with stand:
            yield stand


def basic(client: str, secret: str | None = None) -> str:
    secret = secret_of(client) if secret is None else secret
    pair = f"{quote(client, safe='')}:{quote(secret, safe='')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def token_in(reply: Reply) -> str:
    assert reply.status == 200, reply
    return str(reply.json["access_token"])


def claims_of(token: str) -> dict[str, Any]:
    body = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return found


def error_of(reply: Reply) -> tuple[int, str]:
    """Status and error code; every refusal is JSON, is not stored, and tells nothing of our insides."""
    assert reply.headers["cache-control"] == "no-store", reply
    assert set(reply.json) == {"error", "error_description"}, reply
    assert b"Traceback" not in reply.body and b"File " not in reply.body
    return reply.status, reply.json["error"]


def assertion(audience: str, header: dict[str, Any] | None = None, **changes: Any) -> str:
    """A client assertion of the agent ``tester``; a change to ``None`` removes the claim."""
    now = int(time.time())
    good = {"iss": "tester", "sub": "tester", "aud": audience, "iat": now, "exp": now + 60, "jti": f"j{time.time_ns()}"}
    claims = {name: value for name, value in {**good, **changes}.items() if value is not None}
    return sign(KEY, {"alg": "ES256", **(header or {})}, claims)

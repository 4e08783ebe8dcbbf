"""Keycloak as what organisations use it for: people sign in there, its tokens open the door, it issues for a server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio import to_thread
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.flows.office import AGENTS, PEOPLE, Office, claims_of
from tests.gateway.upstreams import Modern, Script, text
from tests.idp.browser import Browser, browser
from tests.idp.keycloak import Keycloak, keycloak
from tests.idp.oidc import oidc_provider
from tests.processes import free_port, start_callgate
from tests.servers.lakehouse import Lake
from tests.servers.raw_http import Peer, RawServer, Request

pytestmark = [pytest.mark.anyio, pytest.mark.servers]
SECRET = "the secret of callgate at keycloak"


def mapper(kind: str, **config: Any) -> dict[str, Any]:
    flags = {"id.token.claim": "true", "access.token.claim": "true", "userinfo.token.claim": "true"}
    name = config.get("claim.name", kind)
    return {"name": name, "protocol": "openid-connect", "protocolMapper": kind, "config": flags | config}


def realm(port: int) -> dict[str, Any]:
    mappers = [
        mapper("oidc-group-membership-mapper", **{"claim.name": "groups", "full.path": "false"}),
        mapper("oidc-usermodel-realm-role-mapper", **{"claim.name": "roles", "multivalued": "true"}),
        mapper("oidc-audience-mapper", **{"included.client.audience": "callgate"}),
    ]
    base = f"http://127.0.0.1:{port}"
    callgate = {
        "clientId": "callgate", "secret": SECRET, "redirectUris": [f"{base}/oauth/callback"],
        "protocolMappers": mappers, "directAccessGrantsEnabled": True, "serviceAccountsEnabled": True,
        "attributes": {"pkce.code.challenge.method": "S256", "standard.token.exchange.enabled": "true"},
    }  # fmt: skip
    person = {
        "username": "alice", "enabled": True, "email": "alice@example.org", "emailVerified": True, "firstName": "Alice",
        "lastName": "Ardent", "groups": ["data"], "realmRoles": ["analyst"],
        "credentials": [{"type": "password", "value": "pw-alice"}],
    }  # fmt: skip
    return {
        "groups": [{"name": "data"}], "roles": {"realm": [{"name": "analyst"}]}, "users": [person],
        "clients": [callgate, {"clientId": "warehouse", "secret": "w"}],
    }  # fmt: skip


class Warehouse:
    """An MCP server that takes tokens of the realm, checks them with its published keys, and writes down who came."""

    def __init__(self, server: Keycloak) -> None:
        self._idp = server
        self._keys = KeySet.import_key_set(httpx.get(server.jwks_uri, timeout=20).json())
        self._server = Modern(Script({"count_rows": text("42")}))
        self.log: list[dict[str, Any]] = []

    async def __call__(self, request: Request, peer: Peer) -> None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        try:
            claims = jwt.decode(token, self._keys, algorithms=["RS256"]).claims
            if claims["iss"] != self._idp.issuer or claims["exp"] < time.time():
                raise ValueError
        except Exception:
            peer.body(b"", 401, more='www-authenticate: Bearer error="invalid_token"\r\n')
            return
        if request.message.get("method") == "tools/call":
            self.log.append(claims)
        await self._server(request, peer)


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[int, Keycloak]]:
    port = free_port()
    with keycloak(realm(port)) as server:
        yield port, server


def settings(office: Office, server: Keycloak, url: str) -> None:
    """The office of the story, with Keycloak beside its own provider and as the issuer of the warehouse."""
    identity = office.settings["identity"]
    identity["providers"]["keycloak"] = {
        "issuer": server.issuer, "client_id": "callgate", "client_secret": "file:kc.secret", "title": "Keycloak",
        "role_map": {"analyst": ["data-reader"]},
    }  # fmt: skip
    identity["jwt"] = [{"issuer": server.issuer, "audience": "callgate", "jwks_uri": server.jwks_uri}]
    identity["agents"]["planner"]["acts_for"].append(server.issuer)
    office.settings["servers"]["lake"] = {
        "url": url,
        "auth": {
            "type": "exchange", "subject_token": "caller", "subject_issuers": [server.issuer],
            "token_endpoint": server.token_endpoint, "issuer": server.issuer, "client_id": "callgate",
            "client_secret": "file:kc.secret", "resource": "",
        },
    }  # fmt: skip
    office.settings["policy"]["rules"][0]["to"] = {"roles": ["data-reader", "analyst"]}


async def test_sign_in_token_and_exchange(place: tuple[int, Keycloak], tmp_path: Path) -> None:
    port, server = place
    warehouse = await to_thread.run_sync(Warehouse, server)
    async with RawServer(warehouse) as served, Lake() as lake:
        await to_thread.run_sync(_at_the_gateway, port, server, tmp_path, (served.url, lake))
    assert [each["preferred_username"] for each in warehouse.log] == ["alice"]
    assert warehouse.log[0]["azp"] == "callgate"


def _at_the_gateway(port: int, server: Keycloak, folder: Path, there: tuple[str, Lake]) -> None:
    (folder / "data").mkdir(mode=0o700)
    for name, secret in (("idp", "o" * 32), ("kc", SECRET)):
        file = folder / f"{name}.secret"
        file.touch(mode=0o600)
        file.write_text(secret)
    client = {
        "client_id": "callgate", "client_secret": "o" * 32, "redirect_uris": [f"http://127.0.0.1:{port}/oauth/callback"],
    }  # fmt: skip
    with oidc_provider([client], PEOPLE) as idp:
        office = Office(idp, there[1], folder, port)
        settings(office, server, there[0])
        running, _ = start_callgate(office.write(), folder)
        with running:
            with browser() as window:
                _signs_in(office, server, window, folder)
            _exchanges(office, server)


def _signs_in(office: Office, server: Keycloak, window: Browser, folder: Path) -> None:
    """Two providers: the person is asked which."""
    url, verifier = office.authorization()
    window.open(url)
    assert "Keycloak" in window.text and "The office" in window.text
    window.click("[value=keycloak], [href*='provider=keycloak']")
    window.fill("#username", "alice")
    window.fill("#password", "pw-alice")
    window.click("#kc-login")
    token = office.let_in(window, verifier)["access_token"]
    claims = claims_of(token)
    assert claims["sub"].startswith(f"{server.issuer}#")
    assert (claims["roles"], claims["groups"]) == (["data-reader"], ["data"])
    assert (
        office.call(token).status_code == 200
    )  # the call itself is refused: the warehouse wants the person's own token
    assert "error" in office.call(token).json()


def _exchanges(office: Office, server: Keycloak) -> None:
    """Keycloak's own token opens the door, is exchanged by an agent, and at Keycloak for the warehouse."""
    token = server.password_token("alice", "pw-alice", "callgate", SECRET)
    answer = office.call(token)
    assert '"42"' in answer.text, answer.text
    exchanged = office.exchange("planner", token)
    claims = claims_of(exchanged.json()["access_token"])
    assert claims["sub"] == f"{server.issuer}#{claims_of(token)['sub']}"
    assert [each["sub"] for each in claims["delegation_chain"]] == ["agent:planner"]
    assert "planner" in AGENTS and json.dumps(claims).count(server.issuer)

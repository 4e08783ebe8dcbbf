"""The identity providers and the browser that other tests stand on do what those tests take for granted."""

from __future__ import annotations

import httpx
import pytest

from tests.idp.browser import browser
from tests.idp.keycloak import keycloak
from tests.idp.oidc import oidc_provider

pytestmark = pytest.mark.servers
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_a_browser_signs_in_at_oidc_provider() -> None:
    client = {"client_id": "c", "client_secret": "s" * 32, "redirect_uris": ["http://127.0.0.1:9/back"]}
    with oidc_provider([client], {"alice": {"name": "Alice"}}) as idp, browser() as window:
        found = httpx.get(f"{idp.issuer}/.well-known/openid-configuration").json()
        assert found["issuer"] == idp.issuer and found["authorization_response_iss_parameter_supported"]
        query = f"client_id=c&response_type=code&redirect_uri=http://127.0.0.1:9/back&scope=openid&code_challenge={CHALLENGE}"
        window.open(f"{idp.issuer}/auth?{query}&code_challenge_method=S256&state=x")
        window.fill("input[name=login]", "alice")
        window.fill("input[name=password]", "wrong")
        window.click("button")
        window.wait_for_text("Wrong name or password")
        window.fill("input[name=login]", "alice")
        window.fill("input[name=password]", "pw-alice")
        window.click("button")
        assert "state=x" in window.wait_for_url("/back?code=")


def test_keycloak_gives_tokens_for_its_realm() -> None:
    people = [{"username": "alice", "enabled": True, "credentials": [{"type": "password", "value": "pw-alice"}]}]
    client = {"clientId": "c", "secret": "s", "directAccessGrantsEnabled": True, "standardFlowEnabled": False}
    with keycloak({"users": people, "clients": [client]}) as server:
        told = httpx.get(f"{server.issuer}/.well-known/openid-configuration").json()
        assert told["issuer"] == server.issuer and told["jwks_uri"] == server.jwks_uri
        form = {"grant_type": "client_credentials", "client_id": "c", "client_secret": "other"}
        assert server.token(**form)["error"] == "unauthorized_client"

"""What a client finds out with nothing but the URL: who issues tokens, for what, and with which keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.gateway.stand import Stand
from tests.identity.oauth.office import Office, office

pytestmark = pytest.mark.anyio
RESOURCE = "/.well-known/oauth-protected-resource"


@pytest.mark.rule("RS-1", "RS-2", "RS-6")
@pytest.mark.key("identity.agents.scopes")
async def test_every_endpoint_has_its_own_resource(stand: Office) -> None:
    registry = stand.identity()
    registry["agents"]["coder"]["scopes"].append("offline_access")
    await stand.reload(identity=registry)
    for path in ("", "/mcp", "/mcp/coder", "/servers/u/mcp"):
        document = (await stand.get(RESOURCE + path)).json
        assert document["resource"] == stand.base + path
        assert document["authorization_servers"] == [stand.idp.issuer, stand.base]
        assert document["bearer_methods_supported"] == ["header"]
        assert document["scopes_supported"] == ["admin", "read", "write"]
    for path in ("/mcp/unknown", "/servers/unknown/mcp", "/oauth/token", "/mcp/coder/more"):
        assert (await stand.get(RESOURCE + path)).status == 404


@pytest.mark.rule("RS-2", "RS-3", "RS-6", "RS-9")
async def test_a_401_says_where_to_go(stand: Office) -> None:
    for path in ("/mcp", "/mcp/coder", "/servers/u/mcp"):
        for method in ("POST", "GET", "DELETE"):
            more = ("Authorization", "Bearer wrong") if method != "POST" else ("X-Nothing", "1")
            reply = (
                await stand.modern("tools/list", path=path)
                if method == "POST"
                else await stand.get(path, more, method=method)
            )
            challenge = reply.headers["www-authenticate"]
            assert reply.status == 401 and challenge.startswith('Bearer realm="callgate"')
            assert f'resource_metadata="{stand.base}{RESOURCE}{path}"' in challenge
            assert 'scope="admin read write"' in challenge
            assert ('error="invalid_token"' in challenge) == (method != "POST")


async def test_without_tokens_there_is_no_metadata(tmp_path: Path) -> None:
    async with Stand(tmp_path, identity={"anonymous": False, "keys": []}) as stand:
        reply = await stand.modern("tools/list")
        assert reply.headers["www-authenticate"] == 'Bearer realm="callgate"'
        assert (await stand.ask(stand.page(RESOURCE))).status == 404


async def test_with_a_provider_alone_it_is_the_only_server(tmp_path: Path) -> None:
    async with office(tmp_path, {"oauth": None, "agents": {}}) as stand:
        document = (await stand.get(RESOURCE + "/mcp")).json
        assert document["authorization_servers"] == [stand.idp.issuer] and "scopes_supported" not in document


async def test_the_server_and_its_keys(stand: Office) -> None:
    document = (await stand.get("/.well-known/oauth-authorization-server")).json
    assert document == (await stand.get("/.well-known/openid-configuration")).json
    assert document["issuer"] == stand.base
    for key in ("token_endpoint", "jwks_uri", "introspection_endpoint", "revocation_endpoint"):
        assert document[key].startswith(f"{stand.base}/oauth/")
    assert "none" not in json.dumps(document)
    keys = (await stand.get("/oauth/jwks")).json["keys"]
    assert [key["alg"] for key in keys] == ["ES256"] and not any("d" in key for key in keys)


@pytest.mark.key("public_url", "identity.oauth.issuer")
async def test_the_public_url_and_the_issuer(tmp_path: Path) -> None:
    identity = {"oauth": {"issuer": "https://tokens.example.org"}}
    async with office(tmp_path, identity, public_url="https://mcp.example.org/") as stand:
        document = (await stand.get(RESOURCE + "/mcp")).json
        assert document["resource"] == "https://mcp.example.org/mcp"
        assert document["authorization_servers"][1] == "https://tokens.example.org"
        token = await stand.own("planner")
        assert (await stand.call_with(token)).status == 200
        request = b"GET /healthz HTTP/1.1\r\nHost: mcp.example.org\r\n\r\n"
        assert (await stand.ask(request)).status == 200
        assert (await stand.ask(request.replace(b"mcp.example", b"evil.example"))).status == 421

"""What a server's settings do, seen from the front door: authorities, proxies, eras, processes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.egress.test_proxy_and_tls import certificate
from tests.fuzz.messages import modern
from tests.gateway.stand import Stand, keys, refused
from tests.gateway.upstreams import Legacy, Modern, Script, http, serve, text
from tests.identity.provider import Clock, Provider, ec_key
from tests.servers.raw_http import RawServer
from tests.upstream.house import SCRIPT

pytestmark = pytest.mark.anyio


@pytest.mark.key("servers.ca_file")
async def test_a_server_with_an_authority_of_ones_own(tmp_path: Path) -> None:
    context, ca_file = certificate(tmp_path)
    async with RawServer(Modern(), context) as server:
        servers = {"known": http(server, ca_file=ca_file), "strange": http(server)}
        async with Stand(tmp_path, servers) as stand:
            assert (await stand.call("known__echo")).status == 200
            reply = refused(await stand.call("strange__echo"), 200, -31503)
            assert "Server `strange` is not available" in reply.json["error"]["message"]


@pytest.mark.key("servers.proxy")
async def test_a_server_behind_a_proxy(tmp_path: Path) -> None:
    async with serve(Modern()) as proxy:
        through = proxy.url.removesuffix("/mcp")
        servers = {"far": {"url": "http://far.invalid:81/mcp", "proxy": through, "protocol": "modern"}}
        async with Stand(tmp_path, servers) as stand:
            assert (await stand.call("far__echo")).status == 200
            assert proxy.requests[-1].target == "http://far.invalid:81/mcp"


@pytest.mark.key("servers.protocol")
@pytest.mark.parametrize("behind", [Modern, Legacy])
async def test_both_eras_in_front_of_both_behind(tmp_path: Path, behind: Any) -> None:
    script = Script({"hi": text("done")})
    async with serve(behind(script)) as server, Stand(tmp_path, {"u": http(server, "auto")}) as stand:
        [status] = stand.house.statuses()
        assert status.era == ("modern" if behind is Modern else "legacy")
        result = await stand.result("u__hi")
        assert (result["content"][0]["text"], result["resultType"]) == ("done", "complete")
        session = await stand.legacy()
        reply = await session.call("u__progress", _meta={"progressToken": "t"})
        assert reply.json["result"]["content"][0]["text"] == "done"
        assert (await session.call("u__hi")).json["result"]["content"][0]["text"] == "done"
        assert b'"progressToken":"t"' in reply.body


@pytest.mark.key("servers.isolation", "servers.command", "servers.args")
@pytest.mark.parametrize(("isolation", "same"), [("shared", True), ("principal", False)])
async def test_callers_share_a_process_or_do_not(tmp_path: Path, isolation: str, same: bool) -> None:
    server = {"command": sys.executable, "args": ["-S", SCRIPT], "protocol": "legacy", "isolation": isolation}
    async with Stand(tmp_path, {"p": server}, identity={"keys": keys("ann", "bob")}) as stand:
        pids = [(await stand.result("p__pid", who=who))["pid"] for who in ("ann", "bob", "ann")]
        assert pids[0] == pids[2]
        assert (pids[0] == pids[1]) == same


@pytest.mark.key("identity.jwt.issuer", "identity.jwt.audience", "identity.jwt.jwks_uri")
@pytest.mark.rule("RS-7")
async def test_a_token_of_an_identity_provider(tmp_path: Path) -> None:
    key = ec_key("first")
    async with Provider(Clock(), key) as provider:
        jwt = {"issuer": provider.issuer, "audience": "callgate", "jwks_uri": provider.jwks_uri}
        async with Stand(tmp_path, identity={"jwt": [jwt]}) as stand:
            good = provider.token(key)
            other = provider.token(key, aud="somebody else")
            for token, status in ((good, 200), (good, 200), (good[:-6] + "AAAAAA", 401), (other, 401), ("", 401)):
                header = [("Authorization", f"Bearer {token}")] if token else []
                assert (await stand.ask(stand.request(modern("tools/list"), *header))).status == status
        assert provider.requests <= 2

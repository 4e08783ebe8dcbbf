"""What servers, agents and apps try at a whole gateway, to get at what a user has at a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conformance.client.browser import form_of
from tests.fuzz.messages import dump, initialize, modern, post, rpc
from tests.gateway.consenting import Tab, path_of
from tests.gateway.stand import calling
from tests.gateway.test_personal import personal
from tests.identity.oauth.office import Office, agents, token_in
from tests.identity.provider import Clock, Provider, ec_key
from tests.identity.signin.idp import Lobby, OpenIdProvider, provider
from tests.servers.authority import Authority
from tests.servers.mcp_http import ModernServer

pytestmark = pytest.mark.anyio
LIST = "/oauth/connections"


@pytest.mark.rule("ELI-2")
async def test_a_server_that_changes_its_mind_after_the_page_was_read_is_read_about_again(tmp_path: Path) -> None:
    """The page names a sign-in that the user trusts; the button must not lead to another one."""
    async with personal(tmp_path) as (stand, authority), Authority() as evil:
        said = await stand.result("notes__echo")
        tab = Tab(stand)
        page = await tab.get(path_of(said["_meta"]["callgate/consent"]["url"]))
        assert f"Go on to 127.0.0.1:{authority.idp.port}".encode() in page.body
        authority.prm["authorization_servers"] = [evil.issuer]
        stand.house.connections._servers["notes"].discovery._until = 0.0  # as after a 401
        again = await tab.submit(page)
        assert again.status == 200 and f"Go on to 127.0.0.1:{evil.idp.port}".encode() in again.body
        assert evil.registered == {} == authority.registered
        gone = await tab.submit(again)
        assert gone.status == 303 and gone.headers["location"].startswith(evil.issuer)


@pytest.mark.rule("ELI-2")
async def test_what_a_server_says_is_text_on_the_page(tmp_path: Path) -> None:
    async with personal(tmp_path) as (stand, authority):
        bad = "<script>alert(1)</script>"
        authority.prm["scopes_supported"] = [bad, "a<b>&c"]
        said = await stand.result("notes__echo")
        page = await Tab(stand).get(path_of(said["_meta"]["callgate/consent"]["url"]))
        assert page.status == 200 and b"<script" not in page.body and b"a&lt;b&gt;&amp;c" in page.body
        authority.prm["authorization_servers"] = ["https://evil.example/<img src=x>"]
        stand.house.connections._servers["notes"].discovery._until = 0.0
        page = await Tab(stand).get(path_of(said["_meta"]["callgate/consent"]["url"]))
        assert page.status == 502 and b"<img" not in page.body


@pytest.mark.rule("ELI-2", "ELI-4")
async def test_an_app_cannot_be_its_user_with_a_token_of_the_provider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where people sign in here, a token that some client of the provider holds is no proof of who sits there: the
    client would connect an account of its own to its user.
    """
    monkeypatch.setenv("IDP_SECRET", "s3cret: %+")
    async with OpenIdProvider() as idp, Authority() as authority:
        at = Lobby(tmp_path, {"notes": {"url": authority.url, "auth": {"type": "oauth"}}})
        jwt = [{"issuer": idp.issuer, "audience": "callgate", "jwks_uri": idp.jwks_uri}]
        at.write(identity={"providers": {"main": provider(idp)}, "jwt": jwt, "oauth": {}})
        async with at:
            token = idp.token(idp.key, sub=idp.user)
            tab = Tab(at)
            page = await tab.get(f"{LIST}?key")
            sent = await tab.submit(page, key=token)
            assert sent.status == 401, sent
            assert (await tab.get(LIST)).headers["location"].startswith("/oauth/sign-in")


@pytest.mark.rule("SEC-9")
async def test_an_agent_reaches_nothing_of_its_user_that_it_may_not_use(tmp_path: Path) -> None:
    """The user is connected, the agent acts for the user by an exchange, and `through` does not list it: whatever it
    asks for, by name or by list, in either era, the server never sees the user's token.
    """
    async with Provider(Clock(), ec_key("first")) as idp, Authority(server=ModernServer()) as authority:
        jwt = [{"issuer": idp.issuer, "audience": "callgate", "jwks_uri": idp.jwks_uri}]
        rules = [{"id": "all", "allow": ["*/*"]}]
        settings: dict[str, Any] = {
            "identity": {"jwt": jwt, "oauth": {}, "agents": agents(idp)},
            "policy": {"version": 1, "default": "deny", "rules": rules},
        }
        servers = {"notes": {"url": authority.url, "auth": {"type": "oauth", "through": ["coder"]}}}
        stand = Office(tmp_path, servers, **settings)
        stand.idp = idp
        async with stand:
            user = stand.user()
            tab = Tab(stand)
            await tab.submit(await tab.get(LIST), key=user)
            page = await tab.get((await tab.submit(await tab.get(LIST), button="connect")).headers["location"])
            answer = authority.browse((await tab.submit(page)).headers["location"])
            done = await tab.get(f"/oauth/connect/callback?{'&'.join(f'{a}={b}' for a, b in answer.items())}")
            assert b"Connected" in done.body
            mine = await stand.ask(stand.request(calling("notes__echo"), ("Authorization", f"Bearer {user}")))
            assert "echo" in mine.json["result"], mine
            listed = await stand.ask(stand.request(modern("tools/list"), ("Authorization", f"Bearer {user}")))
            assert listed.json["result"]["tools"]

            agent = token_in(await stand.exchange("planner", user))
            bearer = ("Authorization", f"Bearer {agent}")
            before = len(authority.shown)
            listed = await stand.ask(stand.request(modern("tools/list"), bearer))
            assert listed.json["result"]["tools"] == []
            ref = {"ref": {"type": "ref/prompt", "name": "notes__p"}, "argument": {"name": "a", "value": "x"}}
            for method, params in (
                ("tools/call", {"name": "notes__echo", "arguments": {}}),
                ("prompts/get", {"name": "notes__p"}),
                ("resources/read", {"uri": "mcp+notes://x"}),
                ("completion/complete", ref),
                ("tasks/get", {"taskId": "x"}),
            ):
                for path in ("/mcp", "/servers/notes/mcp"):
                    reply = await stand.ask(stand.request(modern(method, dict(params)), bearer, path=path))
                    assert reply.json.get("result", {}).get("isError", True), (method, reply)
            opened = await stand.ask(post(stand.port, dump(initialize()), [bearer]))
            session = ("Mcp-Session-Id", opened.headers["mcp-session-id"])
            for message in (rpc("tools/list", {}), rpc("tools/call", {"name": "notes__echo", "arguments": {}}, 2)):
                reply = await stand.ask(post(stand.port, dump(message), [bearer, session]))
                assert not reply.json.get("result", {}).get("tools") and "echo" not in reply.json.get("result", {})
            assert authority.shown[before:] == []


async def test_the_form_of_a_page_is_bound_to_what_is_read_there(tmp_path: Path) -> None:
    async with personal(tmp_path) as (stand, authority):
        said = await stand.result("notes__echo")
        tab = Tab(stand)
        page = await tab.get(path_of(said["_meta"]["callgate/consent"]["url"]))
        found = form_of(page.body.decode())
        assert found is not None and found[1]["agreed"]
        assert (await tab.submit(page, agreed="")).status == 200 and authority.registered == {}


@pytest.mark.rule("ELI-2")
async def test_an_answer_that_somebody_else_is_made_to_bring_binds_nothing_and_is_recorded(tmp_path: Path) -> None:
    """Login CSRF both ways: mallory begins, and the victim's browser is led through the issuer and back to us."""
    async with personal(tmp_path) as (stand, authority):
        said = await stand.result("notes__echo")
        mallory, victim = Tab(stand), Tab(stand)
        gone = await mallory.submit(await mallory.get(path_of(said["_meta"]["callgate/consent"]["url"])))
        answer = "&".join(f"{a}={b}" for a, b in authority.browse(gone.headers["location"]).items())
        back = f"/oauth/connect/callback?{answer}"
        assert (await victim.get(back)).status == 403
        assert (await mallory.get(back)).status == 404  # the state is used up
        assert authority.forms == [] and b"not connected" in (await victim.get(LIST)).body
        rows = [row for row in await stand.records() if row["outcome"] == "refused"]
        assert [(row["server"], row["method"]) for row in rows] == [("notes", "oauth/connect"), ("", "oauth/connect")]

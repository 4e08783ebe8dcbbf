"""People sign in, stay signed in, and leave."""

from __future__ import annotations

import asyncio
import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import KeySet

from callgate.identity import sign_in_at
from tests.fuzz.raw import Reply
from tests.identity.signin.idp import CLIENT, SECRET, Browser, lobby

pytestmark = pytest.mark.anyio


def form_token(reply: Reply) -> str:
    return re.search(rb'name="token" value="([0-9a-f]{64})"', reply.body)[1].decode()  # type: ignore[index]


def links(reply: Reply) -> list[str]:
    return [unescape(each) for each in re.findall(r'href="([^"]*)"', reply.body.decode())]


@pytest.mark.rule("OC-3")
@pytest.mark.key("identity.providers", "identity.providers.issuer", "identity.providers.client_id")
async def test_a_person_signs_in(tmp_path: Path) -> None:
    async with lobby(tmp_path) as stand:
        browser = Browser()
        reply = await browser.go(stand.url())
        person = await stand.person(browser)
        assert reply.status == 200 and b"Alice" in reply.body, (reply, browser.seen)
        assert (person.issuer, person.subject, person.provider) == (stand.idp.issuer, "alice", "main")
        assert (person.roles, person.groups, person.name) == (("dev",), ("staff",), "Alice")
        assert person.qualified == f"{stand.idp.issuer}#alice"
        assert person.claims.keys() == {"sub", "name", "roles", "groups", "auth_time"}
        asked = stand.idp.asked[0]
        assert asked["code_challenge_method"] == "S256" and "prompt" not in asked
        assert asked["client_id"] == CLIENT and asked["redirect_uri"] == stand.url("/oauth/callback")
        assert stand.idp.client == (CLIENT, SECRET)
        record = (await stand.records(1))[-1]
        assert (record["method"], record["outcome"], record["args"]) == (
            "oauth/sign-in",
            "ok",
            {"provider": "main"},
        )
        assert record["subject"] == "alice" and record["issuer"] == stand.idp.issuer


async def test_the_browser_comes_back_to_where_it_was(tmp_path: Path) -> None:
    async with lobby(tmp_path) as stand:
        browser, back = Browser(), "/healthz?state=a%26b&redirect_uri=http%3A%2F%2F127.0.0.1%3A1%2Fcb"
        await browser.go(stand.base + sign_in_at(back))
        assert browser.at == stand.base + back
        assert await stand.person(browser) is not None
        again = await browser.get(stand.base + sign_in_at("/readyz"))
        assert (again.status, again.headers["location"]) == (303, "/readyz")  # who is signed in goes on
        assert len(stand.idp.asked) == 1


async def test_one_of_several_providers_is_chosen(tmp_path: Path) -> None:
    async with lobby(tmp_path, two=True) as stand:
        browser = Browser()
        reply = await browser.get(stand.url(back="/healthz"))
        assert reply.status == 200 and b"Other &amp; Sons" in reply.body
        [main, other] = links(reply)
        await browser.go(stand.base + other)
        assert browser.at.endswith("/healthz")
        person = await stand.person(browser)
        assert (person.provider, person.subject, person.issuer) == ("other", "mallory", stand.other.issuer)
        await browser.go(stand.base + main)  # and now with the other one, in the same browser
        assert (await stand.person(browser)).provider == "main"


async def test_another_account_is_asked_for_only_on_demand(tmp_path: Path) -> None:
    async with lobby(tmp_path) as stand:
        browser = await stand.sign_in()
        stand.idp.user = "bob"
        account = await browser.get(stand.url())
        [link] = [each for each in links(account) if "prompt" in each]
        await browser.go(stand.base + link)
        assert stand.idp.asked[-1]["prompt"] == "select_account"
        assert (await stand.person(browser)).subject == "bob"


@pytest.mark.key("identity.providers.title")
async def test_the_title_is_on_the_pages(tmp_path: Path) -> None:
    async with lobby(tmp_path, two=True, title="The <Firm>") as stand:
        assert b"The &lt;Firm&gt;" in (await Browser().get(stand.url())).body


@pytest.mark.key("identity.providers.scopes")
async def test_scopes_are_asked_for_and_openid_is_among_them(tmp_path: Path) -> None:
    async with lobby(tmp_path, scopes=["email", "groups"]) as stand:
        await stand.sign_in()
        assert stand.idp.asked[0]["scope"] == "openid email groups"


@pytest.mark.key("identity.providers.client_auth", "identity.providers.client_secret")
@pytest.mark.parametrize("way", ["client_secret_basic", "client_secret_post", "none", "private_key_jwt"])
async def test_callgate_proves_itself(tmp_path: Path, way: str) -> None:
    secret = "env:IDP_SECRET" if way.startswith("client_secret") else None
    async with lobby(tmp_path, client_auth=way, client_secret=secret) as stand:
        await stand.sign_in()
        form, headers = stand.idp.posted[0]
        assert ("authorization" in headers) == (way == "client_secret_basic")
        assert form.get("client_secret") == (SECRET if way == "client_secret_post" else None)
        assert form.get("client_id") == (None if way == "client_secret_basic" else CLIENT)
        if way == "private_key_jwt":
            published = (await Browser().get(stand.url("/oauth/jwks"))).json
            checked = jws.deserialize_compact(form["client_assertion"], KeySet.import_key_set(published))
            claims = json.loads(checked.payload)
            assert claims["iss"] == claims["sub"] == CLIENT and claims["aud"] == stand.idp.issuer
            assert claims["exp"] - claims["iat"] == 60 and claims["jti"]


async def test_an_older_provider_wants_another_audience(tmp_path: Path) -> None:
    async with lobby(tmp_path, client_auth="private_key_jwt", client_secret=None) as stand:
        stand.idp.audience = f"{stand.idp.issuer}/token"
        await stand.sign_in()
        first, second = (form["client_assertion"] for form, _ in stand.idp.posted)
        assert first != second
        stand.idp.audience = "nobody can guess"
        assert (await Browser().go(stand.url())).status == 502
        assert len(stand.idp.posted) == 4


@pytest.mark.key("identity.providers.subject_claim")
async def test_another_claim_names_the_person(tmp_path: Path) -> None:
    async with lobby(tmp_path, subject_claim="oid") as stand:
        stand.idp.changes = {"oid": "0a1b"}
        assert (await stand.person(await stand.sign_in())).subject == "0a1b"


@pytest.mark.key("identity.providers.roles_claim", "identity.providers.groups_claim", "identity.providers.role_map")
async def test_roles_and_groups_are_mapped(tmp_path: Path) -> None:
    more: dict[str, Any] = {
        "roles_claim": "realm_access.roles",
        "groups_claim": "teams",
        "role_map": {"admins": ["dev", "ops"], "r1": ["dev"]},
    }
    async with lobby(tmp_path, **more) as stand:
        stand.idp.changes = {"realm_access": {"roles": ["r1", "r2"]}, "teams": ["admins", "x"]}
        person = await stand.person(await stand.sign_in())
        assert (person.roles, person.groups) == (("dev", "ops"), ("admins", "x"))


@pytest.mark.key("identity.providers.required_claims")
async def test_required_claims_let_in(tmp_path: Path) -> None:
    async with lobby(tmp_path, required_claims={"hd": "example.org", "email": "a@example.org"}) as stand:
        stand.idp.changes = {"hd": "example.org", "email": "a@example.org", "email_verified": True}
        assert await stand.person(await stand.sign_in()) is not None


async def test_what_the_id_token_lacks_comes_from_the_userinfo_endpoint(tmp_path: Path) -> None:
    async with lobby(tmp_path) as stand:
        stand.idp.changes = {"roles": None, "groups": None}
        stand.idp.info = {"sub": "alice", "groups": ["team"], "name": "Somebody else", "roles": ["dev"]}
        person = await stand.person(await stand.sign_in())
        assert (person.roles, person.groups, person.name) == (("dev",), ("team",), "Alice")


async def test_the_userinfo_endpoint_is_not_asked_in_vain(tmp_path: Path) -> None:
    async with lobby(tmp_path) as stand:
        stand.idp.info = {"sub": "alice"}
        await stand.sign_in()
        assert "/userinfo" not in stand.idp.paths


@pytest.mark.rule("OC-5")
@pytest.mark.parametrize(("promised", "sent"), [(True, True), (False, True), (False, False)])
async def test_iss_of_the_answer_as_it_should_be(tmp_path: Path, promised: bool, sent: bool) -> None:
    async with lobby(tmp_path) as stand:
        stand.idp.said = {"authorization_response_iss_parameter_supported": promised}
        stand.idp.back = {"iss": stand.idp.issuer} if sent else {}
        assert await stand.person(await stand.sign_in()) is not None


@pytest.mark.rule("OC-3")
async def test_a_provider_that_does_not_speak_of_pkce_is_asked_with_pkce(tmp_path: Path) -> None:
    async with lobby(tmp_path) as stand:  # Entra ID
        stand.idp.said = {"code_challenge_methods_supported": None}
        await stand.sign_in()
        assert stand.idp.asked[0]["code_challenge_method"] == "S256"


async def test_discovery_is_asked_once_for_all_who_wait(tmp_path: Path) -> None:
    async with lobby(tmp_path) as stand:
        stand.idp.pause = 0.05
        replies = await asyncio.gather(*(Browser().get(stand.url()) for _ in range(5)))
        assert {reply.status for reply in replies} == {303}
        assert stand.idp.paths.count("/.well-known/openid-configuration") == 1


async def test_two_tabs_sign_in_at_once(tmp_path: Path) -> None:
    async with lobby(tmp_path) as stand:
        browser = Browser()
        await browser.go(stand.url(back="/healthz"), until="/oauth/callback")
        first = browser.at
        await browser.go(stand.url(back="/readyz"), until="/oauth/callback")
        second = browser.at
        assert (await browser.get(first)).headers["location"] == "/healthz"
        assert (await browser.get(second)).headers["location"] == "/readyz"


# Signed in


@pytest.mark.key("identity.oauth.session_ttl")
async def test_the_session_lasts_as_long_as_configured(tmp_path: Path) -> None:
    async with lobby(tmp_path) as stand:
        identity = {**stand.settings["identity"], "oauth": {"session_ttl": "1h"}}
        await stand.reload(identity=identity)
        browser = await stand.sign_in()
        person = await stand.person(browser)
        assert person.expires - person.at == 3600
        assert "Max-Age=3600" in browser.set[f"callgate-{stand.port}"]


async def test_the_session_survives_a_restart(tmp_path: Path) -> None:
    async with lobby(tmp_path) as stand:
        browser = await stand.sign_in()
        await stand.gateway.aclose()
        stand.write(listen=f"127.0.0.1:{stand.port}")
        await stand.start()
        assert (await stand.person(browser)).subject == "alice"


async def test_cookies_on_loopback(tmp_path: Path) -> None:
    async with lobby(tmp_path) as stand:
        browser = await stand.sign_in()
        line = browser.set[f"callgate-{stand.port}"]
        assert (
            "; HttpOnly; SameSite=Lax" in line and "; Path=/" in line and "Secure" not in line and "Domain" not in line
        )
        value = browser.cookies(stand.base)[f"callgate-{stand.port}"]
        files = [each for each in (tmp_path / "data").rglob("*") if each.is_file()]
        assert not any(value.encode() in each.read_bytes() for each in files)


async def test_cookies_behind_tls(tmp_path: Path) -> None:
    """A proxy speaks TLS; the gateway hears its public name."""
    async with lobby(tmp_path, settings={"public_url": "https://mcp.example.org"}) as stand:
        browser = Browser({"mcp.example.org": stand.port})
        reply = await browser.go("https://mcp.example.org/oauth/sign-in")
        assert reply.status == 200 and b"Alice" in reply.body
        assert "; HttpOnly; SameSite=Lax; Secure" in browser.set["__Host-callgate"]
        assert "; Path=/" in browser.set["__Host-callgate"] and "Domain" not in browser.set["__Host-callgate"]
        token = form_token(reply)
        own = ("Origin", "https://mcp.example.org")  # browsers send it with forms; it is not that of the listener
        left = await browser.post("https://mcp.example.org/oauth/sign-out", {"token": token}, own)
        assert left.status == 200 and not await stand.person(browser)


async def test_another_name_of_loopback_is_led_to_the_own_one(tmp_path: Path) -> None:
    async with lobby(tmp_path) as stand:
        reply = await Browser().get(f"http://localhost:{stand.port}/oauth/sign-in?back=%2Fhealthz")
        assert (reply.status, reply.headers["location"]) == (303, f"{stand.base}/oauth/sign-in?back=%2Fhealthz")

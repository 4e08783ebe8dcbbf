"""People let applications in: from nothing but the URL to a call, and what the application gets for it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.identity.oauth.office import claims_of, error_of
from tests.identity.oauth.reception import (
    DESK,
    HOUSE,
    PROGRAM,
    SITE,
    Reception,
    answer,
    declined,
    hidden,
    on_a_page,
    policy_of,
    reception,
)
from tests.identity.signin.idp import SECRET, Browser

pytestmark = pytest.mark.anyio


@pytest.fixture
async def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reception]:
    monkeypatch.setenv("IDP_SECRET", SECRET)
    async with reception(tmp_path) as stand:
        yield stand


@pytest.mark.rule("AS-1", "AS-5", "AS-6", "AS-7")
@pytest.mark.key("identity.oauth.apps", "identity.oauth.scopes", "identity.oauth.apps.redirect_uris")
async def test_from_the_url_to_a_call(stand: Reception) -> None:
    shown = await stand.visit(SITE, scope="read")
    page = shown.body.decode()
    for words in ("The Site", "site.example", "Read your things", "Alice", f"{stand.base}/mcp", "Not you?"):
        assert words in page
    assert "Change your things" not in page
    reply = await stand.decide(shown)
    found = answer(reply)
    assert reply.headers["location"].startswith("https://site.example/cb?code=")
    assert found["state"] == "the state" and found["iss"] == stand.base
    tokens = (await stand.redeem(found["code"])).json
    assert tokens["token_type"] == "Bearer" and tokens["scope"] == "read" and tokens["expires_in"] == 300
    claims = claims_of(tokens["access_token"])
    assert claims["sub"] == f"{stand.idp.issuer}#alice" and claims["client_id"] == SITE
    assert claims["delegation_chain"] == [{"sub": "client:site", "iss": stand.base, "profile": "client"}]
    assert claims["roles"] == ["dev"] and claims["groups"] == ["staff"] and "act" not in claims
    called = await stand.call_with(tokens["access_token"])
    assert called.status == 200 and called.json["result"]["content"][0]["text"] == "hello"


@pytest.mark.rule("AS-8", "RS-1", "RS-6", "AS-6")
async def test_the_metadata_says_what_is_on(stand: Reception) -> None:
    document = (await stand.get("/.well-known/oauth-authorization-server")).json
    assert document == (await stand.get("/.well-known/openid-configuration")).json
    assert document["authorization_endpoint"] == f"{stand.base}/oauth/authorize"
    assert document["response_types_supported"] == ["code"] and document["response_modes_supported"] == ["query"]
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert document["authorization_response_iss_parameter_supported"] is True
    assert document["client_id_metadata_document_supported"] is True
    assert {"authorization_code", "refresh_token", "client_credentials"} <= set(document["grant_types_supported"])
    assert "none" in document["token_endpoint_auth_methods_supported"]
    assert "none" not in document["introspection_endpoint_auth_methods_supported"]
    assert document["scopes_supported"] == ["admin", "read", "write"]
    assert "registration_endpoint" not in document
    resource = (await stand.get("/.well-known/oauth-protected-resource/mcp")).json
    assert resource["authorization_servers"] == [stand.base]
    before = stand.settings["identity"]
    off: dict[str, Any]
    for off in ({"providers": {}, "oauth": {}}, {"oauth": {"client_documents": []}}):
        await stand.reload(identity={**before, "agents": {}, **off})
        document = (await stand.get("/.well-known/oauth-authorization-server")).json
        assert document.get("client_id_metadata_document_supported", False) is False
        assert ("authorization_endpoint" in document) == ("providers" not in off)


@pytest.mark.rule("RS-6")
async def test_there_is_no_offline_access(stand: Reception) -> None:
    identity = stand.settings["identity"]
    identity["oauth"]["scopes"] = {"read": "Read", "offline_access": "Stay"}
    identity["oauth"]["apps"] = {SITE: {"redirect_uris": ["https://site.example/cb"]}}
    await stand.reload(identity=identity)
    server = (await stand.get("/.well-known/oauth-authorization-server")).json
    assert "offline_access" not in server["scopes_supported"]
    challenge = (await stand.modern("tools/list")).headers["www-authenticate"]
    assert 'scope="read"' in challenge
    assert declined(await stand.visit(SITE, scope="read offline_access"), stand) == "invalid_scope"
    assert "refresh_token" in await stand.tokens()  # for which no scope is needed


async def test_a_client_is_told_of_the_scopes_that_people_can_have(stand: Reception) -> None:
    identity = stand.settings["identity"]
    identity["agents"]["coder"]["scopes"] = ["robots"]
    await stand.reload(identity=identity)
    assert 'scope="admin read write"' in (await stand.modern("tools/list")).headers["www-authenticate"]
    document = (await stand.get("/.well-known/oauth-protected-resource")).json
    assert document["scopes_supported"] == ["admin", "read", "write"]
    server = (await stand.get("/.well-known/oauth-authorization-server")).json
    assert "robots" in server["scopes_supported"]
    # Some clients ask for all that the server has: what is for agents only is left out.
    assert (await stand.tokens(PROGRAM, scope="read robots"))["scope"] == "read"


async def test_without_a_scope_it_is_all_that_the_application_may_have(stand: Reception) -> None:
    assert (await stand.tokens(SITE))["scope"] == "read write"
    assert (await stand.tokens(PROGRAM))["scope"] == "read write admin"


@pytest.mark.key("identity.oauth.apps.trusted")
async def test_an_application_of_the_organisation_itself_asks_nobody(stand: Reception) -> None:
    reply = await stand.visit(HOUSE)
    assert reply.headers["location"].startswith("https://house.example/cb?code=")
    tokens = await stand.redeem(answer(reply)["code"], HOUSE)
    assert tokens.status == 200
    record = next(each for each in await stand.records() if each["method"] == "oauth/authorize")
    assert record["reason"] == "the application was let in (trusted)" and record["subject"] == "alice"


async def test_a_person_is_asked_once(stand: Reception) -> None:
    await stand.code(SITE, scope="read")
    assert (await stand.visit(SITE, scope="read")).status == 303
    assert (await stand.visit(SITE, scope="read write")).status == 200  # more than before
    assert (await stand.visit(SITE, scope="read", resource="/mcp/coder")).status == 200  # another endpoint
    assert (await stand.visit(SITE, scope="read", prompt="consent")).status == 200
    assert (await stand.visit(PROGRAM, scope="read")).status == 200  # another application
    await stand.code(SITE, scope="write")
    assert (await stand.visit(SITE, scope="read write")).status == 303  # each was agreed to


@pytest.mark.rule("AS-5")
async def test_a_program_on_a_computer_is_asked_for_every_time(stand: Reception) -> None:
    for _ in range(2):
        shown = await stand.visit(PROGRAM)
        assert "any program there can use its name" in shown.body.decode()
        assert (await stand.decide(shown)).status == 303


async def test_somebody_else_is_asked_again(stand: Reception) -> None:
    await stand.code(SITE)
    stand.idp.user = "mallory"
    browser = await stand.sign_in(Browser())
    assert (await stand.visit(SITE, browser=browser)).status == 200


async def test_who_is_not_signed_in_comes_back_to_the_same_request(stand: Reception) -> None:
    browser = Browser()
    reply = await stand.visit(SITE, browser=browser, scope="read", state="a&b=c? %")
    assert reply.status == 303 and reply.headers["location"].startswith("/oauth/sign-in?back=%2Foauth%2Fauthorize")
    shown = await browser.go(stand.base + reply.headers["location"])
    assert b"The Site" in shown.body and b"Read your things" in shown.body
    found = answer(await stand.decide(shown, browser=browser))
    assert found["code"]


async def test_a_state_comes_back_as_it_was(stand: Reception) -> None:
    for state in ("a&b=c? %+#/", "x" * 2048, '"><script>'):
        found = answer(await stand.decide(await stand.visit(PROGRAM, state=state)))
        assert found["state"] == state
    assert "state" not in answer(await stand.decide(await stand.visit(PROGRAM, state=None)))


async def test_the_longest_request_travels_through_the_sign_in(stand: Reception) -> None:
    browser, state = Browser(), "%" * 2048
    reply = await stand.visit(SITE, browser=browser, state=state)
    shown = await browser.go(stand.base + reply.headers["location"])
    assert answer(await stand.decide(shown, browser=browser))["state"] == state
    on_a_page(await stand.visit(SITE, state=state, nonce="%" * 400))


async def test_the_request_may_be_posted(stand: Reception) -> None:
    shown = await stand.browser.post(f"{stand.base}/oauth/authorize", stand.fields(SITE), ("Origin", stand.base))
    assert answer(await stand.decide(shown))["code"]


async def test_prompts(stand: Reception) -> None:
    assert declined(await stand.visit(SITE, browser=Browser(), prompt="none"), stand) == "login_required"
    assert declined(await stand.visit(SITE, prompt="none"), stand) == "consent_required"
    await stand.code(SITE)
    assert answer(await stand.visit(SITE, prompt="none"))["code"]
    for prompt in ("none login", "sing", "none none consent"):
        assert declined(await stand.visit(SITE, prompt=prompt), stand) == "invalid_request"


async def test_a_new_sign_in_is_made_once(stand: Reception) -> None:
    before = len(stand.idp.asked)
    reply = await stand.visit(SITE, prompt="login consent")
    shown = await stand.browser.go(stand.base + reply.headers["location"])
    assert len(stand.idp.asked) == before + 1 and stand.idp.asked[-1]["prompt"] == "select_account"
    assert answer(await stand.decide(shown))["code"]
    reply = await stand.visit(SITE, browser=Browser(), prompt="login")
    assert reply.headers["location"].startswith("/oauth/sign-in?back=")


async def test_an_old_sign_in_is_no_new_one(stand: Reception) -> None:
    reply = await stand.visit(HOUSE, callgate_since=str(int(time.time()) + 100))
    assert reply.headers["location"].startswith("/oauth/sign-in?prompt=select_account&back=")
    assert "callgate_since" in reply.headers["location"]


async def test_not_you(stand: Reception) -> None:
    shown = await stand.visit(SITE)
    page = shown.body.decode()
    link = page[page.index('href="') + 6 :].partition('"')[0].replace("&amp;", "&")
    stand.idp.user = "bob"
    shown = await stand.browser.go(stand.base + link)
    assert b"Bob" in shown.body and b"The Site" in shown.body


async def test_no(stand: Reception) -> None:
    assert declined(await stand.decide(await stand.visit(SITE), "deny"), stand) == "access_denied"
    assert declined(await stand.decide(await stand.visit(SITE), "whatever"), stand) == "access_denied"
    records = [each for each in await stand.records() if each["method"] == "oauth/authorize"]
    assert [each["outcome"] for each in records] == ["ok", "denied", "ok", "denied"]


@pytest.mark.rule("RS-7")
@pytest.mark.key("identity.oauth.apps.audiences")
async def test_a_token_is_for_the_endpoint_that_was_agreed_to(stand: Reception) -> None:
    token = (await stand.tokens(SITE, resource=f"{stand.base}/mcp/coder"))["access_token"]
    assert claims_of(token)["aud"] == f"{stand.base}/mcp/coder"
    assert (await stand.call_with(token, path="/mcp/coder")).status == 200
    assert (await stand.call_with(token)).status == 401
    identity = stand.settings["identity"]
    identity["oauth"]["apps"][SITE]["audiences"] = ["/mcp/coder"]
    await stand.reload(identity=identity)
    assert declined(await stand.visit(SITE), stand) == "invalid_target"


@pytest.mark.key("identity.oauth.apps.status")
async def test_a_suspended_application_gets_nothing_and_its_tokens_end(stand: Reception) -> None:
    shown = await stand.visit(SITE)
    tokens = await stand.tokens(SITE)
    code = await stand.code(SITE)
    assert (await stand.call_with(tokens["access_token"])).status == 200
    delegated = await stand.through("planner", subject=tokens["access_token"])
    identity = stand.settings["identity"]
    identity["oauth"]["apps"][SITE]["status"] = "suspended"
    await stand.reload(identity=identity)
    assert (await stand.call_with(tokens["access_token"])).status == 401
    assert (await stand.call_with(delegated)).status == 401
    assert error_of(await stand.refresh(tokens["refresh_token"])) == (401, "invalid_client")
    assert error_of(await stand.redeem(code)) == (401, "invalid_client")
    on_a_page(await stand.visit(SITE))
    on_a_page(await stand.decide(shown))


@pytest.mark.key("identity.oauth.apps.scopes", "identity.oauth.apps.title", "identity.oauth.apps.secret_sha256")
async def test_an_application_with_a_secret(stand: Reception) -> None:
    shown = await stand.visit(DESK, scope="admin")
    assert b"Do everything" in shown.body and b"<h1>Let desk in?" in shown.body
    reply = await stand.decide(shown)
    assert reply.headers["location"].startswith("https://desk.example/cb?x=1&code=")
    code = answer(reply)["code"]
    assert error_of(await stand.post({"grant_type": "authorization_code", "code": code, "client_id": DESK})) == (
        401,
        "invalid_client",
    )
    assert (await stand.redeem(code, DESK)).status == 200
    assert declined(await stand.visit(SITE, scope="admin"), stand) == "invalid_scope"


@pytest.mark.rule("AS-5")
async def test_the_page_can_be_framed_by_nobody_and_leads_nowhere_else(stand: Reception) -> None:
    shown = await stand.visit(SITE)
    policy = policy_of(shown)
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "base-uri 'none'" in policy
    assert "form-action 'self' https://site.example;" in policy
    assert shown.headers["x-frame-options"] == "DENY" and shown.headers["cache-control"] == "no-store"
    assert shown.headers["referrer-policy"] == "same-origin" and b"<script" not in shown.body
    for where, source in (("http://127.0.0.1:7777/cb", "http://127.0.0.1:7777;"), ("http://[::1]:7777/cb", "http:;")):
        assert f"form-action 'self' {source}" in policy_of(await stand.visit(PROGRAM, redirect_uri=where))


async def test_what_is_written_down(stand: Reception) -> None:
    stand.write(audit={"arguments": "full"})
    await stand.gateway.aclose()
    await stand.start()
    await stand.sign_in()
    tokens = await stand.tokens(SITE, scope="read")
    assert (await stand.refresh(tokens["refresh_token"])).status == 200
    records = await stand.records()
    told = [(each["method"], each.get("reason", "")) for each in records if each["method"] != "oauth/sign-in"]
    assert told == [
        ("oauth/authorize", "asked the person"), ("oauth/authorize", "the application was let in (now)"),
        ("oauth/token", ""), ("oauth/token", ""),
    ]  # fmt: skip
    assert [each["args"]["grant"] for each in records[-2:]] == ["authorization_code", "refresh_token"]
    approved = records[-3]
    assert approved["args"] | {"consent": "now", "client": SITE, "scope": "read"} == approved["args"]
    written = str(records)
    for secret in (
        tokens["access_token"],
        tokens["refresh_token"],
        stand.verifier,
        hidden(await stand.visit(PROGRAM))["ticket"],
    ):
        assert secret not in written


async def test_nobody_signs_in_without_providers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDP_SECRET", SECRET)
    async with reception(tmp_path) as stand:
        await stand.reload(identity={"oauth": {}, "agents": {}})
        on_a_page(await stand.visit(SITE), 404)
        reply = await stand.post({}, path="/oauth/register")
        assert reply.status == 404

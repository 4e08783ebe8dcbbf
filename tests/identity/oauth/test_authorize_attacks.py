"""Attacks on the authorization endpoint and the consent page (RFC 9700, RFC 6819, MCP security best practices)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from tests.identity.oauth.office import Office
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
    reception,
)
from tests.identity.signin.idp import SECRET, Browser

pytestmark = pytest.mark.anyio


@pytest.fixture
async def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reception]:
    monkeypatch.setenv("IDP_SECRET", SECRET)
    async with reception(tmp_path) as stand:
        yield stand


# Where the answer goes

ELSEWHERE = {
    "another host": "https://evil.example/cb",
    "a prefix": "https://site.example/cb/more",
    "a shorter path": "https://site.example/c",
    "no path": "https://site.example",
    "a subdomain": "https://evil.site.example/cb",
    "a suffix": "https://site.example.evil.example/cb",
    "another host in front": "https://evilsite.example/cb",
    "path traversal": "https://site.example/cb/../evil",
    "traversal to itself": "https://site.example/x/../cb",
    "encoded traversal": "https://site.example/cb%2f..%2fevil",
    "user information": "https://site.example@evil.example/cb",
    "user information before the host": "https://evil@site.example/cb",
    "a fragment": "https://site.example/cb#evil",
    "an empty fragment": "https://site.example/cb#",
    "one more parameter": "https://site.example/cb?next=https://evil.example",
    "an empty query": "https://site.example/cb?",
    "a slash at the end": "https://site.example/cb/",
    "two slashes": "https://site.example//cb",
    "upper case in the path": "https://site.example/CB",
    "upper case in the host": "https://SITE.example/cb",
    "upper case in the scheme": "HTTPS://site.example/cb",
    "an encoded letter": "https://site.example/%63b",
    "another port": "https://site.example:444/cb",
    "the port written out": "https://site.example:443/cb",
    "without TLS": "http://site.example/cb",
    "backslashes": "https://evil.example\\@site.example/cb",
    "a backslash for a slash": "https:\\\\site.example\\cb",
    "a line break": "https://site.example/cb\r\nSet-Cookie: x=1",
    "a tab": "https://site.example/\tcb",
    "a null byte": "https://site.example/cb\x00",
    "a full-width dot": "https://site.example\uff0eevil.example/cb",
    "a dot at the end of the host": "https://site.example./cb",
    "no scheme": "//site.example/cb",
    "a path": "/cb",
    "javascript": "javascript:alert(document.cookie)//https://site.example/cb",
    "data": "data:text/html,<script>alert(1)</script>",
    "a file": "file:///etc/passwd",
    "loopback": "http://127.0.0.1/cb",
    "a private scheme": "com.example.site:/cb",
    "a wildcard": "https://*.example/cb",
    "another application's": "https://house.example/cb",
    "very long": "https://site.example/cb?" + "a" * 4000,
}


@pytest.mark.rule("AS-1")
@pytest.mark.parametrize("uri", ELSEWHERE.values(), ids=ELSEWHERE)
async def test_the_answer_goes_nowhere_else(stand: Reception, uri: str) -> None:
    said = on_a_page(await stand.visit(SITE, redirect_uri=uri))
    assert uri not in said
    on_a_page(await stand.visit(HOUSE, redirect_uri=uri if "house" not in uri else ELSEWHERE["another host"]))


OFF_THE_MACHINE = {
    "another path": "http://127.0.0.1:7777/other",
    "a prefix": "http://127.0.0.1:7777/cb/more",
    "a query": "http://127.0.0.1:7777/cb?x=1",
    "another loopback address": "http://127.0.0.2:7777/cb",
    "a short form": "http://127.1:7777/cb",
    "a number": "http://2130706433:7777/cb",
    "with TLS": "https://127.0.0.1:7777/cb",
    "any address": "http://0.0.0.0:7777/cb",
    "a name that begins so": "http://127.0.0.1.evil.example:7777/cb",
    "localhost of somebody": "http://localhost.evil.example:7777/cb",
    "user information": "http://127.0.0.1:7777@evil.example/cb",
    "no number": "http://127.0.0.1:port/cb",
    "a port that is none": "http://127.0.0.1:77777/cb",
    "port zero": "http://127.0.0.1:0/cb",
    "an empty port": "http://127.0.0.1:/cb",
    "a fragment": "http://127.0.0.1:7777/cb#x",
    "mapped IPv6": "http://[::ffff:127.0.0.1]:7777/cb",
    "upper case": "http://LOCALHOST:7777/cb",
}


@pytest.mark.rule("AS-1")
@pytest.mark.parametrize("uri", OFF_THE_MACHINE.values(), ids=OFF_THE_MACHINE)
async def test_of_loopback_addresses_only_the_port_is_free(stand: Reception, uri: str) -> None:
    on_a_page(await stand.visit(PROGRAM, redirect_uri=uri))


@pytest.mark.rule("AS-1")
async def test_of_loopback_addresses_the_port_is_free(stand: Reception) -> None:
    for uri in ("http://127.0.0.1:1/cb", "http://localhost:65535/cb", "http://[::1]:7/cb", "http://127.0.0.1/cb"):
        reply = await stand.decide(await stand.visit(PROGRAM, redirect_uri=uri))
        assert reply.headers["location"].startswith(uri + "?code=")


# Who asks

NOBODY = {
    "nobody": None,
    "an unknown name": "unknown",
    "an agent": "planner",
    "another case": "SITE",
    "a space": "site ",
    "markup": "<script>alert(1)</script>",
    "a line break": "site\r\nx",
    "not ASCII": "s\u0456te",
    "a subject": "client:site",
    "an operator": "operator",
    "very long": "s" * 3000,
    "not registered": "app-AAAAAAAAAAAAAAAAAAAAAAAA",
    "a path": "../site",
}


@pytest.mark.parametrize("id", NOBODY.values(), ids=NOBODY)
async def test_nobody_else_asks(stand: Reception, id: str | None) -> None:
    said = on_a_page(await stand.visit(SITE, client_id=id))
    assert id is None or id == "site " or id not in said


@pytest.mark.rule("AS-1")
async def test_what_decides_where_the_answer_goes_is_there_once(stand: Reception) -> None:
    good = urlencode(stand.fields(SITE))
    evil = quote("https://evil.example/cb")
    for more in (f"&redirect_uri={evil}", "&client_id=house", "&redirect_uri=", "&client_id=site"):
        on_a_page(await stand.visit(raw=good + more))
        on_a_page(await stand.visit(raw=more[1:] + "&" + good))
    on_a_page(await stand.visit(SITE, redirect_uri=None))


# What is asked for, of an application that is known: it is told, with state and issuer

ERRORS = {
    "an implicit grant": ({"response_type": "token"}, "unsupported_response_type"),
    "a hybrid flow": ({"response_type": "code id_token"}, "unsupported_response_type"),
    "no response type": ({"response_type": None}, "invalid_request"),
    "a fragment": ({"response_mode": "fragment"}, "invalid_request"),
    "a posted answer": ({"response_mode": "form_post"}, "invalid_request"),
    "no PKCE": ({"code_challenge": None, "code_challenge_method": None}, "invalid_request"),
    "no challenge": ({"code_challenge": None}, "invalid_request"),
    "no method, which means plain": ({"code_challenge_method": None}, "invalid_request"),
    "plain": ({"code_challenge_method": "plain"}, "invalid_request"),
    "another case": ({"code_challenge_method": "s256"}, "invalid_request"),
    "a short challenge": ({"code_challenge": "a" * 42}, "invalid_request"),
    "a long challenge": ({"code_challenge": "a" * 44}, "invalid_request"),
    "a challenge of other signs": ({"code_challenge": "+" * 43}, "invalid_request"),
    "an unknown scope": ({"scope": "read everything"}, "invalid_scope"),
    "more scope than the application may have": ({"scope": "read admin"}, "invalid_scope"),
    "another resource": ({"resource": "https://evil.example/mcp"}, "invalid_target"),
    "a longer name": ({"resource": "HERE.evil.example/mcp"}, "invalid_target"),
    "the admin API": ({"resource": "/api/v1"}, "invalid_target"),
    "a path that is none of ours": ({"resource": "/mcp/../servers/u/mcp"}, "invalid_target"),
    "the gateway as a whole": ({"resource": "/"}, "invalid_target"),
    "a request object": ({"request": "e30."}, "request_not_supported"),
    "a request by reference": ({"request_uri": "https://evil.example/request"}, "request_not_supported"),
    "an unknown prompt": ({"prompt": "none consent"}, "invalid_request"),
    "a key that is none": ({"dpop_jkt": "x"}, "invalid_request"),
}


@pytest.mark.rule("AS-6", "AS-1")
@pytest.mark.parametrize(("changes", "error"), ERRORS.values(), ids=ERRORS)
async def test_an_application_is_told_what_is_wrong(stand: Reception, changes: dict[str, Any], error: str) -> None:
    changes = {name: value and value.replace("HERE", stand.base) for name, value in changes.items()}
    for app in (SITE, HOUSE) if error != "invalid_scope" else (SITE,):
        assert declined(await stand.visit(app, **changes), stand) == error
        # Nobody has to sign in to hear it, and nobody is asked first.
        assert declined(await stand.visit(app, browser=Browser(), **changes), stand) == error


async def test_parameters_occur_once(stand: Reception) -> None:
    good = urlencode(stand.fields(SITE))
    for more in ("scope=read&scope=write", "code_challenge=" + "a" * 43, "response_type=code", "state=other"):
        reply = await stand.visit(raw=f"{good}&{more}")
        assert declined(reply, stand, answer(reply).get("state")) == "invalid_request"
    assert declined(await stand.visit(raw=f"{good}&resource=/mcp&resource=/mcp/coder"), stand) == "invalid_target"


SPLITTING = {
    "a header": "x\r\nSet-Cookie: session=evil",
    "a line feed": "x\nLocation: https://evil.example",
    "a null byte": "x\x00",
    "text that is not ASCII": "\u202ex",
    "very long": "x" * 2049,
}


@pytest.mark.parametrize("state", SPLITTING.values(), ids=SPLITTING)
async def test_a_state_splits_no_answer(stand: Reception, state: str) -> None:
    reply = await stand.visit(SITE, state=state)
    assert declined(reply, stand, None) == "invalid_request"
    assert set(reply.headers) <= {
        "location", "cache-control", "pragma", "referrer-policy", "content-length", "date", "server", "connection",
    }  # fmt: skip
    assert "\r" not in reply.headers["location"] and state not in reply.headers["location"]


async def test_a_state_adds_no_parameters(stand: Reception) -> None:
    found = answer(await stand.decide(await stand.visit(SITE, state="x&code=stolen&iss=https://evil.example#")))
    assert found["state"] == "x&code=stolen&iss=https://evil.example#" and found["code"] != "stolen"
    assert found["iss"] == stand.base


TOO_MUCH = {
    "a large request": "&x=" + "a" * 7000,
    "many parameters": "".join(f"&x{number}=1" for number in range(60)),
    "no form": "&;",
    "bytes that are not text": "&x=%ff%fe",
}


@pytest.mark.parametrize("more", TOO_MUCH.values(), ids=TOO_MUCH)
async def test_requests_that_are_too_much(stand: Reception, more: str) -> None:
    on_a_page(await stand.visit(raw=urlencode(stand.fields(SITE)) + more))


async def test_a_posted_request_is_read_as_strictly(stand: Reception) -> None:
    at, form = f"{stand.base}/oauth/authorize", "application/x-www-form-urlencoded"
    body = urlencode(stand.fields(SITE)).encode()
    for kind, url, content in (
        ("application/json", at, b"{}"),
        (form, f"{at}?client_id=house", body),
        ("multipart/form-data", at, body),
        (form, at, body + b"&redirect_uri=https%3A%2F%2Fevil.example"),
        (form, at, b"a=" + b"b" * 70_000),
    ):
        on_a_page(await stand.browser.get(url, ("Content-Type", kind), method="POST", body=content))
    for method in ("PUT", "DELETE", "PATCH"):
        assert (await stand.browser.get(at, method=method, body=b"x")).status == 405


# The consent page


async def pressed(
    stand: Reception, fields: dict[str, str], *headers: tuple[str, str], browser: Browser | None = None
) -> int:
    """The status of an answer to a consent page that gives nothing away."""
    reply = await (browser or stand.browser).post(f"{stand.base}/oauth/consent", fields, *headers)
    assert "location" not in reply.headers and b"Traceback" not in reply.body
    return reply.status


@pytest.mark.rule("AS-7")
async def test_a_foreign_page_cannot_press_the_button(stand: Reception) -> None:
    fields = {**hidden(await stand.visit(SITE)), "decision": "allow"}
    assert await pressed(stand, fields, ("Origin", "https://evil.example")) == 403
    assert await pressed(stand, fields, ("Origin", "null")) == 403
    assert await pressed(stand, {**fields, "token": ""}) == 400
    assert await pressed(stand, {**fields, "token": "0" * 64}) == 400
    assert await pressed(stand, {"decision": "allow", "token": fields["token"]}) == 400
    assert await pressed(stand, {**fields, "ticket": "x" * 43}) == 400
    reply = await stand.browser.get(f"{stand.base}/oauth/consent?{urlencode(fields)}")
    assert reply.status == 405  # a link or an image cannot agree
    assert answer(await stand.decide(await stand.visit(SITE)))["code"]


@pytest.mark.rule("AS-7")
async def test_a_page_is_answered_once(stand: Reception) -> None:
    shown = await stand.visit(SITE)
    assert answer(await stand.decide(shown))["code"]
    on_a_page(await stand.decide(shown))
    refused = await stand.visit(PROGRAM)
    assert answer(await stand.decide(refused, "deny"))["error"] == "access_denied"
    on_a_page(await stand.decide(refused))


async def test_of_two_presses_at_once_one_counts(stand: Reception) -> None:
    shown = await stand.visit(SITE)
    replies = await asyncio.gather(*(stand.decide(shown) for _ in range(5)))
    assert sorted(each.status for each in replies) == [303, 400, 400, 400, 400]


@pytest.mark.rule("AS-7")
async def test_a_page_of_somebody_else(stand: Reception) -> None:
    """An attacker has the victim's browser send the form of a page that the attacker was shown, or the other way."""
    stand.idp.user = "mallory"
    mallory = await stand.sign_in(Browser())
    attackers = {**hidden(await stand.visit(SITE, browser=mallory)), "decision": "allow"}
    victims = {**hidden(await stand.visit(SITE)), "decision": "allow"}
    assert await pressed(stand, attackers) == 400
    assert await pressed(stand, {**attackers, "token": victims["token"]}) == 400
    again = {**hidden(await stand.visit(SITE, browser=mallory)), "decision": "allow"}
    assert await pressed(stand, {**again, "ticket": victims["ticket"]}, browser=mallory) == 400
    assert await pressed(stand, again, browser=Browser()) == 400


async def test_a_page_from_before_another_sign_in(stand: Reception) -> None:
    fields = {**hidden(await stand.visit(SITE)), "decision": "allow"}
    await stand.browser.go(f"{stand.base}/oauth/sign-in?prompt=select_account")
    token = hidden(await stand.visit(SITE))["token"]
    assert await pressed(stand, fields) == 400
    assert await pressed(stand, {**fields, "token": token}) == 400


async def test_the_form_cannot_change_the_request(stand: Reception) -> None:
    shown = await stand.visit(SITE, scope="read")
    reply = await stand.decide(
        shown, scope="read write", redirect_uri="https://evil.example/", client_id=HOUSE, resource="/mcp/coder"
    )
    assert reply.headers["location"].startswith("https://site.example/cb?")
    tokens = (await stand.redeem(answer(reply)["code"])).json
    assert tokens["scope"] == "read"


async def test_a_consent_does_not_count_for_another_application(stand: Reception) -> None:
    await stand.code(SITE)
    for app in (PROGRAM, DESK):
        assert (await stand.visit(app)).status == 200
        assert declined(await stand.visit(app, prompt="none"), stand) == "consent_required"


async def test_a_consent_does_not_move_with_the_application(stand: Reception) -> None:
    """Whoever takes over where the answers of an application go is asked about anew."""
    await stand.code(SITE)
    identity = stand.settings["identity"]
    identity["oauth"]["apps"][SITE]["redirect_uris"].append("https://evil.example/cb")
    await stand.reload(identity=identity)
    assert (await stand.visit(SITE, redirect_uri="https://evil.example/cb")).status == 200
    assert (await stand.visit(SITE)).status == 303


async def test_a_page_for_an_address_that_is_gone(stand: Reception) -> None:
    shown = await stand.visit(SITE)
    identity = stand.settings["identity"]
    identity["oauth"]["apps"][SITE]["redirect_uris"] = ["https://site.example/new"]
    await stand.reload(identity=identity)
    on_a_page(await stand.decide(shown))


async def test_titles_are_text(stand: Reception) -> None:
    identity = stand.settings["identity"]
    title = "<img src=x onerror=alert(1)>\"'\u202eevil\u2066\x07"
    identity["oauth"]["apps"][SITE]["title"] = title
    identity["oauth"]["scopes"]["read"] = "<b>read</b>"
    await stand.reload(identity=identity)
    page = (await stand.visit(SITE)).body.decode()
    assert "<img" not in page and "<b>" not in page and not re.search("[\u202e\u2066\x07]", page)
    assert "&lt;img src=x" in page


async def test_the_way_back_from_the_sign_in_leads_only_here(stand: Reception) -> None:
    """The request travels through the sign-in as one value: nothing in it becomes an address of its own."""
    reply = await stand.visit(SITE, browser=Browser(), state="//evil.example&back=https://evil.example")
    location = reply.headers["location"]
    assert location.startswith("/oauth/sign-in?back=%2Foauth%2Fauthorize%3F") and location.count("back=") == 1


async def test_no_code_without_a_sign_in(stand: Reception) -> None:
    for app in (SITE, HOUSE):
        reply = await stand.visit(app, browser=Browser())
        assert "code=" not in reply.headers["location"].partition("?")[0] and "sign-in" in reply.headers["location"]


async def test_a_token_is_no_sign_in(stand: Reception) -> None:
    token = (await stand.tokens(SITE))["access_token"]
    query = urlencode(stand.fields(HOUSE))
    for header in (("Authorization", f"Bearer {token}"), ("Cookie", f"callgate-{stand.port}={token}")):
        reply = await Office.get(stand, f"/oauth/authorize?{query}", header)
        assert reply.headers["location"].startswith("/oauth/sign-in")


async def test_visits_are_bounded(stand: Reception) -> None:
    raw = urlencode(stand.fields(SITE, client_id="unknown"))
    found = {(await stand.visit(raw=raw)).status for _ in range(700)}
    assert found == {400, 429}

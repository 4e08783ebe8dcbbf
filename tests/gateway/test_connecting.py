"""The pages on which users connect to servers, and what attackers try there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from starlette.requests import Request

from callgate.errors import UpstreamError
from callgate.gateway.connecting import ConnectingPages
from callgate.identity import Throttle
from callgate.identity.keys import principal_key
from tests.conformance.client.browser import form_of
from tests.fuzz.raw import Reply
from tests.gateway.askers import Client
from tests.gateway.consenting import CODE, IDP, Consenting, Nobody, People, Tab, consenting, state_of, with_keys
from tests.gateway.stand import Stand, key_of
from tests.identity.oauth.office import ACCESS, EXCHANGE, agents, basic
from tests.identity.provider import Clock, Provider, ec_key

pytestmark = pytest.mark.anyio

LIST = "/oauth/connections"


@pytest.fixture
async def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Consenting]:
    """Its callers have keys: ann and bob."""
    async with consenting(tmp_path, monkeypatch, **with_keys("ann", "bob")) as stand:
        yield stand


@pytest.fixture
async def signing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Consenting]:
    """Its people sign in: ann and bob of the identity provider."""
    async with consenting(tmp_path, monkeypatch, **with_keys("robot")) as stand:
        house: Any = stand.house
        house.people = People()
        yield stand


async def page_for(stand: Consenting, who: str) -> str:
    """The path of the page that a call of this holder of a key leads to."""
    reply = await Client(stand, {}, who=who).call("u__hello")
    url: str = reply.json["result"]["_meta"]["callgate/consent"]["url"]
    return url.partition(f":{stand.port}")[2]


async def invited(stand: Consenting, name: str) -> str:
    """The path of the page for a person of the identity provider."""
    from callgate.types import Principal

    who = Principal(name, principal_key(IDP, name), issuer=IDP, via="jwt")
    return "/oauth/connect/" + await stand.connections.invite("u", who)


async def proved(stand: Consenting, who: str, path: str) -> tuple[Tab, Reply]:
    """A browser that showed its key, and the page it came for."""
    tab = Tab(stand)
    sent = await tab.submit(await tab.get(path), key=key_of(who))
    assert (sent.status, sent.headers["location"]) == (303, path), sent
    return tab, await tab.get(path)


def locked(reply: Reply) -> bool:
    """Whether no other site can frame a page, run anything in it, or keep it."""
    policy = reply.headers["content-security-policy"]
    return (
        "frame-ancestors 'none'" in policy
        and "default-src 'none'" in policy
        and "script" not in policy
        and reply.headers["x-frame-options"] == "DENY"
        and reply.headers["cache-control"] == "no-store"
        and reply.headers["referrer-policy"] == "same-origin"
    )


# The good way.


@pytest.mark.rule("ELI-2")
async def test_the_holder_of_a_key_shows_it_to_us_and_connects(stand: Consenting) -> None:
    path = await page_for(stand, "ann")
    tab, page = await proved(stand, "ann", path)
    body = page.body.decode()
    assert page.status == 200 and locked(page)
    assert all(word in body for word in ("Connect to u?", "as.example.net", "<code>read</code>", "ann"))
    gone = await tab.submit(page)
    assert CODE not in repr(gone) and key_of("ann") not in repr(gone)
    done = await tab.come_back(gone)
    assert (done.status, b"Connected to u" in done.body, locked(done)) == (200, True, True)
    assert stand.connections.grants == {("u", principal_key("", "ann"))}


@pytest.mark.rule("ELI-2")
async def test_a_person_signs_in_first_and_comes_back_to_the_page(signing: Consenting) -> None:
    path = await invited(signing, "ann")
    away = await Tab(signing).get(path)
    assert away.status == 303
    where, _, back = away.headers["location"].partition("?back=")
    assert (where, unquote(back)) == ("/oauth/sign-in", path)
    tab = Tab(signing, who="ann")
    done = await tab.come_back(await tab.submit(await tab.get(path)))
    assert b"Connected to u" in done.body
    rows = await signing.records()
    assert [(row["subject"], row["reason"]) for row in rows if row["method"] == "oauth/connect"] == [
        ("ann", "the user agreed")
    ]


async def test_on_a_gateway_of_one_s_own_the_ticket_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with consenting(tmp_path, monkeypatch) as stand:
        reply = await Client(stand, {}).call("u__hello")
        done = await Tab(stand).agree(reply.json["result"]["_meta"]["callgate/consent"]["url"])
        assert b"Connected to u" in done.body


@pytest.mark.rule("ELI-2")
async def test_whoever_calls_with_a_token_of_somebody_else_s_shows_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An issuer at which nobody signs in here: the token of the client proves who its user is."""
    async with Provider(Clock(), ec_key("first")) as idp:
        jwt = [{"issuer": idp.issuer, "audience": "callgate", "jwks_uri": idp.jwks_uri}]
        rules = [{"id": "all", "allow": ["*/*"]}]
        settings: dict[str, Any] = {
            "identity": {"jwt": jwt},
            "policy": {"version": 1, "default": "deny", "rules": rules},
        }
        async with consenting(tmp_path, monkeypatch, **settings) as stand:
            token, other = idp.token(ec_key("first"), sub="alice"), idp.token(ec_key("first"), sub="mallory")
            client = Client(stand, {})
            message = stand.request(client.message("u__hello"), ("Authorization", f"Bearer {token}"))
            url = (await stand.ask(message)).json["result"]["_meta"]["callgate/consent"]["url"]
            path = url.partition(f":{stand.port}")[2]
            tab = Tab(stand)
            await tab.submit(await tab.get(path), key=other)
            assert (await tab.get(path)).status == 403
            tab = Tab(stand)
            await tab.submit(await tab.get(path), key=token)
            done = await tab.come_back(await tab.submit(await tab.get(path)))
            assert b"Connected to u" in done.body
            assert token not in repr(tab.cookies)


@pytest.mark.rule("ELI-2")
async def test_the_user_agrees_to_what_an_agent_asks_for_and_the_agent_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Provider(Clock(), ec_key("first")) as idp:
        jwt = [{"issuer": idp.issuer, "audience": "callgate", "jwks_uri": idp.jwks_uri}]
        rules = [{"id": "all", "allow": ["*/*"]}]
        settings: dict[str, Any] = {
            "identity": {"jwt": jwt, "oauth": {}, "agents": agents(idp)},
            "policy": {"version": 1, "default": "deny", "rules": rules},
        }
        async with consenting(tmp_path, monkeypatch, **settings) as stand:
            user = idp.token(ec_key("first"), sub="alice", scope="read", roles=["dev"])
            form = {"grant_type": EXCHANGE, "subject_token": user, "subject_token_type": ACCESS}
            given = await Tab(stand).post("/oauth/token", form, ("Authorization", basic("planner")))
            agent = given.json["access_token"]
            client = Client(stand, {"elicitation": {"url": {}}})

            async def call(**more: Any) -> Any:
                message = client.message("u__hello", **more)
                bearer = ("Authorization", f"Bearer {agent}")
                return (await stand.ask(stand.request(message, bearer))).json["result"]

            first = await call()
            path = first["inputRequests"]["sign_in"]["params"]["url"].partition(f":{stand.port}")[2]
            back = asyncio.create_task(
                call(inputResponses={"sign_in": {"action": "accept"}}, requestState=first["requestState"])
            )
            tab = Tab(stand)
            assert (await tab.submit(await tab.get(path), key=agent)).status == 401
            await tab.submit(await tab.get(path), key=user)
            page = await tab.get(path)
            assert page.status == 200 and b"agent:planner" in page.body and b"alice" in page.body
            await tab.come_back(await tab.submit(page))
            assert (await back)["content"] == [{"type": "text", "text": "hello"}]


async def test_whoever_cancels_is_not_connected(stand: Consenting) -> None:
    tab, page = await proved(stand, "ann", await page_for(stand, "ann"))
    said = await tab.submit(page, button="no")
    assert (said.status, b"Not connected" in said.body) == (200, True)
    assert stand.connections.grants == set() and stand.connections.ways == {}
    rows = await stand.records()
    assert rows[-1]["outcome"] == "denied" and rows[-1]["reason"] == "the user did not agree"


async def test_connections_are_listed_and_ended_by_their_user(stand: Consenting) -> None:
    tab, page = await proved(stand, "ann", LIST)
    assert b'name="connect" value="u"' in page.body
    gone = await tab.submit(page, button="connect")
    page = await tab.get(gone.headers["location"])
    await tab.come_back(await tab.submit(page))
    page = await tab.get(LIST)
    assert b'name="disconnect" value="u"' in page.body and b'name="connect"' not in page.body
    assert (await tab.submit(page, button="disconnect")).headers["location"] == LIST
    assert stand.connections.grants == set()
    rows = await stand.records()
    assert rows[-1]["reason"] == "the user disconnected"


async def test_a_server_that_policy_keeps_from_somebody_is_not_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = with_keys("ann", "bob")
    rule = {"id": "ann", "allow": ["*/*"], "to": {"subjects": ["ann"]}}
    settings["policy"] = {"version": 1, "default": "deny", "rules": [rule]}
    async with consenting(tmp_path, monkeypatch, **settings) as stand:
        tab, page = await proved(stand, "bob", LIST)
        assert b'value="u"' not in page.body
        forced = await tab.post(
            LIST, {"connect": "u", "token": token_for(tab, principal_key("", "bob"))}, origin(stand)
        )
        assert forced.status == 404


async def test_the_client_document_is_served(stand: Consenting) -> None:
    reply = await Tab(stand).get("/oauth/client.json")
    assert (reply.status, reply.json["client_name"]) == (200, "callgate")


async def test_a_gateway_without_such_servers_has_no_such_pages(tmp_path: Path) -> None:
    async with Stand(tmp_path) as stand:
        for path in (LIST, "/oauth/connect/x", "/oauth/connect/callback", "/oauth/client.json"):
            assert (await Tab(stand).get(path)).status == 404


# Attacks.


def origin(stand: Stand) -> tuple[str, str]:
    return "Origin", f"http://127.0.0.1:{stand.port}"


def token_for(tab: Tab, purpose: str) -> str:
    """The token that a form of this browser would carry."""
    import hashlib
    import hmac

    browser = next(value for name, value in tab.cookies.items() if "browser" in name)
    return hmac.new(browser.encode(), purpose.encode(), hashlib.sha256).hexdigest()


@pytest.mark.rule("ELI-2")
async def test_another_user_who_opens_the_page_is_refused_and_recorded(stand: Consenting) -> None:
    path = await page_for(stand, "ann")
    tab, page = await proved(stand, "bob", path)
    assert page.status == 403 and locked(page)
    assert b"as.example.net" not in page.body and b"ann" not in page.body
    assert form_of(page.body.decode()) is None
    forced = await tab.post(path, {"go": "yes", "token": token_for(tab, path.rpartition("/")[2])}, origin(stand))
    assert forced.status == 403
    assert stand.connections.ways == {}
    row = next(row for row in await stand.records() if row["outcome"] == "refused")
    assert (row["subject"], row["method"], row["server"]) == ("bob", "oauth/connect", "u")
    assert row["reason"] == "the page of another user was opened"


@pytest.mark.rule("ELI-2")
async def test_another_person_who_is_signed_in_is_refused(signing: Consenting) -> None:
    path = await invited(signing, "ann")
    tab = Tab(signing, who="bob")
    page = await tab.get(path)
    assert page.status == 403 and b"ann" not in page.body.lower()
    assert b"prompt=select_account" in page.body


@pytest.mark.rule("ELI-2", "ELI-4")
async def test_a_ticket_alone_opens_nothing(stand: Consenting) -> None:
    path = await page_for(stand, "ann")
    tab = Tab(stand)
    page = await tab.get(path)
    assert b"as.example.net" not in page.body and b'name="key" type="password"' in page.body
    forced = await tab.post(path, {"go": "yes", "token": token_for(tab, path.rpartition("/")[2])}, origin(stand))
    assert (forced.status, stand.connections.ways) == (200, {})
    assert b'type="password"' in forced.body  # asked who it is, again


async def test_a_ticket_works_once(stand: Consenting) -> None:
    path = await page_for(stand, "ann")
    tab, page = await proved(stand, "ann", path)
    assert (await tab.submit(page)).status == 303
    assert (await tab.submit(page)).status == 404
    assert (await tab.get(path)).status == 404


async def test_a_ticket_ends_with_its_time(stand: Consenting) -> None:
    stand.connections.lasts = -1.0
    path = await page_for(stand, "ann")
    page = await Tab(stand).get(path)
    assert page.status == 404 and path.rpartition("/")[2].encode() not in page.body


@pytest.mark.parametrize("ticket", ["x", "x" * 2000, "%2e%2e", "..%2fcallback", "%00", "<script>", "é"])
async def test_a_ticket_that_never_was(stand: Consenting, ticket: str) -> None:
    page = await Tab(stand).get(f"/oauth/connect/{ticket}")
    assert page.status in (400, 404) and b"<script>" not in page.body


async def test_a_form_of_a_foreign_page_is_refused(stand: Consenting) -> None:
    path = await page_for(stand, "ann")
    tab, _ = await proved(stand, "ann", path)
    for token in ("", "x", token_for(tab, "another purpose")):
        assert (await tab.post(path, {"go": "yes", "token": token}, origin(stand))).status == 403
    # A browser says where a form comes from.
    good = {"go": "yes", "token": token_for(tab, path.rpartition("/")[2])}
    assert (await tab.post(path, good, ("Origin", "https://evil.example"))).status == 403
    assert stand.connections.ways == {}


async def test_a_token_of_another_browser_is_refused(stand: Consenting) -> None:
    path = await page_for(stand, "ann")
    tab, _ = await proved(stand, "ann", path)
    _, page = await proved(stand, "ann", path)
    found = form_of(page.body.decode())
    assert found is not None
    assert (await tab.post(path, found[1], origin(stand))).status == 403


async def test_nobody_can_be_made_to_show_an_attacker_s_key(stand: Consenting) -> None:
    """Login CSRF: the victim's browser must not become the attacker, and connect the victim's account to it."""
    victim = Tab(stand)
    await victim.get(LIST)
    for token in ("", token_for(Tab(stand, browser="x" * 43), "prove")):
        sent = await victim.post("/oauth/prove", {"key": key_of("bob"), "back": LIST, "token": token}, origin(stand))
        assert sent.status == 403
    assert b"password" in (await victim.get(LIST)).body


@pytest.mark.parametrize(
    "back",
    [
        "https://evil.example",
        "//evil.example",
        "/oauth/connect//evil.example",
        "/\\evil",
        "/mcp",
        "",
        "/oauth/connect/\\x",
    ],
)
async def test_a_proof_leads_nowhere_else(stand: Consenting, back: str) -> None:
    tab = Tab(stand)
    await tab.get(LIST)
    form = {"key": key_of("ann"), "back": back, "token": token_for(tab, "prove")}
    reply = await tab.post("/oauth/prove", form, origin(stand))
    assert reply.status == 404 and "location" not in reply.headers


async def test_a_wrong_key_is_recorded_and_guessing_ends(stand: Consenting) -> None:
    tab = Tab(stand)
    page = await tab.get(LIST)
    first = await tab.submit(page, key="cg_wrong")
    assert first.status == 401 and b"cg_wrong" not in first.body
    statuses = [(await tab.submit(page, key="cg_wrong")).status for _ in range(12)]
    assert statuses[-1] == 429
    rows = [row for row in await stand.records() if row["outcome"] == "refused"]
    assert rows and "cg_wrong" not in repr(rows)
    assert rows[0]["reason"] == "a key or token on our page does not hold"


@pytest.mark.parametrize("key", ["", " ", "x" * 20_000, "ä", "a\nb", "operator"])
async def test_what_is_no_key_proves_nothing(stand: Consenting, key: str) -> None:
    tab = Tab(stand)
    reply = await tab.submit(await tab.get(LIST), key=key)
    assert reply.status in (400, 401, 413)
    assert b"password" in (await tab.get(LIST)).body


async def test_a_key_that_was_taken_back_proves_nothing_any_more(stand: Consenting) -> None:
    tab, _ = await proved(stand, "ann", LIST)
    settings = with_keys("bob")
    await stand.reload(identity=settings["identity"])
    assert b"password" in (await tab.get(LIST)).body


async def test_a_proof_is_sealed_and_ends(stand: Consenting, monkeypatch: pytest.MonkeyPatch) -> None:
    tab, _ = await proved(stand, "ann", LIST)
    name = next(name for name in tab.cookies if "holder" in name)
    stolen = Tab(stand, **{name: tab.cookies[name]})  # without the browser that it was made for
    assert b"password" in (await stolen.get(LIST)).body
    broken = Tab(stand, **{**tab.cookies, name: tab.cookies[name][:-3] + "abc"})
    assert b"password" in (await broken.get(LIST)).body
    now = time.time
    monkeypatch.setattr("callgate.gateway.proving.time.time", lambda: now() + 1000)
    assert b"password" in (await tab.get(LIST)).body


@pytest.mark.rule("ELI-2")
async def test_the_answer_in_another_browser_is_refused(stand: Consenting) -> None:
    path = await page_for(stand, "ann")
    tab, page = await proved(stand, "ann", path)
    gone = await tab.submit(page)
    other = Tab(stand)
    reply = await other.get(f"/oauth/connect/callback?state={state_of(gone)}&code={CODE}")
    assert reply.status == 403 and stand.connections.grants == set()


async def test_an_attacker_cannot_give_its_account_to_somebody_else(stand: Consenting) -> None:
    """Bob begins, and sends ann the answer of the issuer with his own code."""
    bob, page = await proved(stand, "bob", await page_for(stand, "bob"))
    gone = await bob.submit(page)
    ann, _ = await proved(stand, "ann", LIST)
    reply = await ann.get(f"/oauth/connect/callback?state={state_of(gone)}&code={CODE}")
    assert reply.status == 403
    assert not stand.connections.grants


@pytest.mark.parametrize(
    "query", ["", "state=x&code=y", "code=y", "state=a&state=b&code=c", "state=%ff&code=x", "state=" + "x" * 20_000]
)
async def test_a_forged_answer_leads_nowhere(stand: Consenting, query: str) -> None:
    reply = await Tab(stand).get(f"/oauth/connect/callback?{query}")
    assert reply.status in (400, 403) and stand.connections.grants == set()


async def test_an_answer_is_taken_once(stand: Consenting) -> None:
    tab, page = await proved(stand, "ann", await page_for(stand, "ann"))
    gone = await tab.submit(page)
    assert (await tab.come_back(gone)).status == 200
    assert (await tab.come_back(gone)).status == 403


async def test_what_only_the_operator_can_mend_is_in_the_log_too(
    stand: Consenting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: object) -> None:
        raise UpstreamError("Server u has an issuer that nobody reaches.", hint="Set auth.issuer.")

    tab, page = await proved(stand, "ann", await page_for(stand, "ann"))
    monkeypatch.setattr(stand.connections, "begin", fails)
    reply = await tab.submit(page)
    assert b"Server u has an issuer that nobody reaches. Set auth.issuer." in reply.body
    assert "somebody could not connect to a server: Server u has an issuer that nobody reaches." in caplog.text


async def test_what_an_issuer_says_is_not_repeated(stand: Consenting) -> None:
    tab, page = await proved(stand, "ann", await page_for(stand, "ann"))
    gone = await tab.submit(page)
    evil = {"code": "", "error": "<script>alert(1)</script>", "error_description": "call 555", "error_uri": "https://e"}
    reply = await tab.come_back(gone, **evil)
    assert reply.status == 403
    for word in (b"script>", b"555", b"https://e"):
        assert word not in reply.body
    row = (await stand.records())[-1]
    assert (row["subject"], row["server"], row["outcome"]) == ("ann", "u", "refused")
    assert "555" not in repr(row)


async def test_the_ticket_leaves_in_no_referer_and_the_page_is_not_framed(stand: Consenting) -> None:
    path = await page_for(stand, "ann")
    tab, page = await proved(stand, "ann", path)
    assert locked(page)
    gone = await tab.submit(page)
    assert gone.headers["referrer-policy"] == "same-origin"  # nothing of it to the issuer
    assert path.rpartition("/")[2] not in gone.headers["location"]


async def test_nobody_ends_the_connections_of_others(stand: Consenting) -> None:
    ann, bob = principal_key("", "ann"), principal_key("", "bob")
    stand.connections.grants |= {("u", ann)}
    tab, _ = await proved(stand, "bob", LIST)
    sent = await tab.post(LIST, {"disconnect": "u", "token": token_for(tab, bob), "user": ann}, origin(stand))
    assert sent.status == 303
    refused = await tab.post(LIST, {"disconnect": "u", "token": token_for(tab, ann)}, origin(stand))
    assert refused.status == 403
    assert stand.connections.grants == {("u", ann)}


async def test_a_foreign_page_ends_no_connection(stand: Consenting) -> None:
    stand.connections.grants |= {("u", principal_key("", "ann"))}
    tab, _ = await proved(stand, "ann", LIST)
    assert (await tab.post(LIST, {"disconnect": "u"}, origin(stand))).status == 403
    assert (await Tab(stand).post(LIST, {"disconnect": "u"}, origin(stand))).status == 403
    assert stand.connections.grants


async def test_names_of_others_are_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with consenting(tmp_path, monkeypatch) as stand:
        stand.connections.scopes = ("<img src=x onerror=alert(1)>", '"><script>')
        reply = await Client(stand, {}).call("u__hello")
        url = reply.json["result"]["_meta"]["callgate/consent"]["url"]
        page = await Tab(stand).get(url.partition(f":{stand.port}")[2])
        assert page.status == 200
        assert b"<img" not in page.body and b"<script" not in page.body


@pytest.mark.rule("ELI-3")
async def test_these_pages_sign_nobody_in_to_the_gateway(stand: Consenting) -> None:
    """Callers without a credential get 401 and no page; a page that somebody used opens nothing at the gateway."""
    reply = await Client(stand, {"elicitation": {"url": {}}}).call("u__hello")
    assert reply.status == 401 and b"elicitation" not in reply.body and b"/oauth/connect" not in reply.body
    tab, page = await proved(stand, "ann", await page_for(stand, "ann"))
    await tab.come_back(await tab.submit(page))
    cookies = "; ".join(f"{name}={value}" for name, value in tab.cookies.items())
    message = Client(stand, {}).message("u__hello")
    assert (await stand.ask(stand.request(message, ("Cookie", cookies)))).status == 401


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_other_methods_do_nothing(stand: Consenting, method: str) -> None:
    path = await page_for(stand, "ann")
    assert (await stand.ask(stand.page(path, method=method))).status == 405


def tight(usual: Any) -> Any:
    """Pages that take three visits."""

    def init(self: ConnectingPages, desk: Any, signs_in: bool = True) -> None:
        usual(self, desk, signs_in)
        self.throttle = Throttle(requests=3)

    return init


def visit() -> Request:
    client, headers = ("10.0.0.1", 1), [(b"host", b"127.0.0.1")]
    return Request(
        {"type": "http", "method": "GET", "path": LIST, "query_string": b"", "headers": headers, "client": client}
    )


async def test_too_many_requests_are_refused(stand: Consenting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ConnectingPages, "__init__", tight(ConnectingPages.__init__))
    pages = ConnectingPages(stand.gateway._front.desk)
    answer = pages.page(pages.list)
    statuses = [(await answer(visit())).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]


async def test_without_https_there_are_no_pages_off_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with consenting(tmp_path, monkeypatch, public_url="http://gateway.example.org") as stand:
        reply = await Tab(stand).get(LIST)
        assert reply.status == 403 and b"https" in reply.body


async def test_behind_https_cookies_are_for_this_host_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with consenting(tmp_path, monkeypatch, public_url="https://gateway.example.org") as stand:
        house: Any = stand.house
        house.people = Nobody()
        cookie = (await Tab(stand).get(LIST)).headers["set-cookie"]
        assert cookie.startswith("__Host-callgate-browser=")
        assert all(word in cookie for word in ("Path=/", "HttpOnly", "SameSite=Lax", "Secure"))

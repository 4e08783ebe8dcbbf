"""Attacks on the device grant. Each is refused, and none learns anything by it."""

from __future__ import annotations

import asyncio
import copy
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest

from callgate.identity.oauth import devices, throttle
from tests.gateway.stand import calling
from tests.identity.oauth.booth import DEVICE, PAGE, Someone, Terminal, booth, hidden, someone
from tests.identity.oauth.office import claims_of, secret_of
from tests.identity.signin.idp import Browser, Lobby

pytestmark = pytest.mark.anyio
APPS = {
    "printer": {"title": "The <b>printer</b>", "scopes": ["read"], "audiences": ["/mcp"]},
    "signage": {"secret_sha256": hashlib.sha256(secret_of("signage").encode()).hexdigest()},
}


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDP_SECRET", "s3cret: %+")
    monkeypatch.setattr(devices, "INTERVAL", 0.0)


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Lobby]:
    async with booth(tmp_path, apps=copy.deepcopy(APPS)) as stand:
        yield stand


async def approved(stand: Lobby, client: str = "callgate-cli", **fields: str) -> tuple[Terminal, Someone]:
    terminal, alice = Terminal(stand, client), await someone(stand)
    await alice.decides((await terminal.begin(**fields))["user_code"])
    return terminal, alice


# The terminal's side


async def test_a_device_code_of_another_client_is_worth_nothing_and_keeps_its_worth(stand: Lobby) -> None:
    terminal, _ = await approved(stand)
    thief = Terminal(stand, "printer")
    thief.begun = terminal.begun
    assert await thief.refused() == "invalid_grant"
    assert (await terminal.ask()).status == 200


async def test_a_client_with_a_secret_must_prove_itself(stand: Lobby) -> None:
    owner = Terminal(stand, "signage", secret=secret_of("signage"))
    alice = await someone(stand)
    await alice.decides((await owner.begin())["user_code"])
    for thief in (Terminal(stand, "signage"), Terminal(stand, "signage", secret="guessed")):
        thief.begun = owner.begun
        reply = await thief.ask()
        assert (reply.status, reply.json["error"]) == (401, "invalid_client")
        assert (await thief.post("/oauth/device_authorization", {})).status == 401
    assert (await owner.ask()).status == 200


async def test_a_device_code_that_comes_twice_ends_what_it_gave(stand: Lobby) -> None:
    """One of the two who have it is a thief."""
    terminal, _ = await approved(stand)
    answer = (await terminal.ask()).json
    assert await terminal.refused() == "invalid_grant"
    refresh = {"grant_type": "refresh_token", "refresh_token": answer["refresh_token"]}
    assert (await terminal.post("/oauth/token", refresh)).json["error"] == "invalid_grant"
    bearer = ("Authorization", f"Bearer {answer['access_token']}")
    assert (await stand.ask(stand.request(calling("u__hello"), bearer))).status == 401
    assert any("device code was used before" in row.get("reason", "") for row in await stand.records())


async def test_of_two_who_ask_at_the_same_time_at_most_one_gets_a_token(stand: Lobby) -> None:
    terminal, _ = await approved(stand)
    replies = await asyncio.gather(*(terminal.ask() for _ in range(8)))
    assert sum(reply.status == 200 for reply in replies) == 1


@pytest.mark.parametrize("code", ["", "cgd_", "cgd_guess", "' OR 1=1 --", "x" * 5000, "BCDF-GHJK", "\u00e4"])
async def test_a_device_code_that_nobody_gave_out(stand: Lobby, code: str) -> None:
    terminal, _ = await approved(stand)
    reply = await terminal.post("/oauth/token", {"grant_type": DEVICE, "device_code": code})
    assert reply.status == 400 and reply.json["error"] == ("invalid_request" if not code else "invalid_grant")


async def test_the_user_code_is_no_device_code(stand: Lobby) -> None:
    terminal, _ = await approved(stand)
    for code in (terminal.begun["user_code"], terminal.begun["user_code"].replace("-", "")):
        assert (await terminal.post("/oauth/token", {"grant_type": DEVICE, "device_code": code})).status == 400


async def test_more_than_was_agreed_to_is_refused(stand: Lobby) -> None:
    terminal, _ = await approved(stand, scope="read")
    assert await terminal.refused(scope="read write") == "invalid_scope"
    other, _ = await approved(stand, scope="read")
    assert await other.refused(resource=stand.base) == "invalid_target"


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"scope": "read write"}, "invalid_scope"),
        ({"scope": "admin"}, "invalid_scope"),
        ({"resource": "https://evil.example/mcp"}, "invalid_target"),
        ({"resource": "{base}"}, "invalid_target"),
        ({"resource": "{base}/servers/u/mcp"}, "invalid_target"),
    ],
)
async def test_an_application_asks_for_what_it_may_not_have(stand: Lobby, fields: dict[str, str], error: str) -> None:
    asked = {name: value.format(base=stand.base) for name, value in fields.items()}
    reply = await Terminal(stand, "printer").post("/oauth/device_authorization", asked)
    assert (reply.status, reply.json["error"]) == (400, error)


@pytest.mark.parametrize("client", ["nobody", "", "agent:planner", "client:callgate-cli", "http://127.0.0.1/x"])
async def test_an_application_that_nobody_knows(stand: Lobby, client: str) -> None:
    reply = await Terminal(stand, client).post("/oauth/device_authorization", {})
    assert reply.status in (400, 401) and reply.json["error"] in ("invalid_client", "invalid_request")


async def test_a_suspended_application_gets_nothing_not_even_what_was_approved(stand: Lobby) -> None:
    terminal, alice = await approved(stand, "printer")
    waiting = Terminal(stand, "printer")
    begun = await waiting.begin()
    identity = stand.settings["identity"]
    identity["oauth"]["apps"]["printer"]["status"] = "suspended"
    await stand.reload(identity=identity)
    assert (await terminal.ask()).status == 401
    assert (await waiting.post("/oauth/device_authorization", {})).status == 401
    assert (await alice.types(begun["user_code"])).status == 400


async def test_parameters_in_the_address_or_twice_are_refused(stand: Lobby) -> None:
    terminal = Terminal(stand)
    reply = await terminal.post("/oauth/device_authorization?client_id=callgate-cli", {})
    assert reply.json["error"] == "invalid_request"
    body = b"client_id=callgate-cli&client_id=printer"
    more = (("Content-Type", "application/x-www-form-urlencoded"), ("Content-Length", str(len(body))))
    reply = await stand.ask(stand.page("/oauth/device_authorization", *more, method="POST") + body)
    assert reply.json["error"] == "invalid_request"
    assert (await stand.ask(stand.page("/oauth/device_authorization"))).status == 405


async def test_nobody_fills_the_gateway_with_codes(stand: Lobby, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(stand)
    statuses = [(await terminal.post("/oauth/device_authorization", {})).status for _ in range(125)]
    assert statuses.index(429) == 120 and set(statuses[120:]) == {429}


# The person's side


async def test_user_codes_cannot_be_guessed(stand: Lobby) -> None:
    """34 bits, ten minutes, and ten wrong ones a minute, whoever types them from wherever."""
    begun, mallory = await Terminal(stand).begin(), await someone(stand, "mallory")
    token = await mallory.token()
    statuses = []
    for number in range(14):
        guess = f"BCDFGH{'BCDFGHJKLMNPQRSTVWXZ'[number]}B"
        form = {"token": token, "user_code": guess}
        statuses.append((await mallory.browser.post(stand.base + PAGE, form)).status)
    assert statuses == [400] * throttle.CLIENT_FAILURES + [429] * (14 - throttle.CLIENT_FAILURES)
    again = Someone(stand, await stand.sign_in())  # another browser, the same person
    assert (await again.types(begun["user_code"])).status == 429
    alice = await someone(stand)
    assert (await alice.types(begun["user_code"])).status == 200  # nobody else is locked out


async def test_one_address_guesses_no_more_with_many_people(stand: Lobby) -> None:
    begun = await Terminal(stand).begin()
    people = [await someone(stand, f"puppet-{number}") for number in range(6)]
    wrong = 0
    for person in people:
        token = await person.token()
        for _ in range(9):
            form = {"token": token, "user_code": "BCDFGHJK"}
            wrong += (await person.browser.post(stand.base + PAGE, form)).status == 400
    assert wrong == throttle.ADDRESS_FAILURES
    assert (await people[-1].types(begun["user_code"])).status == 429


async def test_guesses_without_a_sign_in_lead_to_the_sign_in(stand: Lobby) -> None:
    begun = await Terminal(stand).begin()
    for code in (begun["user_code"], "BCDF-GHJK"):  # the right one looks like the wrong one
        reply = await Browser().post(stand.base + PAGE, {"user_code": code, "decision": "approve"})
        assert reply.status == 303 and reply.headers["location"] == "/oauth/sign-in?back=%2Foauth%2Fdevice"


@pytest.mark.parametrize("token", ["", "0" * 64, "of another session"])
async def test_an_approval_by_a_foreign_page_is_refused(stand: Lobby, token: str) -> None:
    """CSRF: a page of somebody else posts the form with the cookies of the person."""
    terminal, alice = Terminal(stand), await someone(stand)
    begun = await terminal.begin()
    token = await (await someone(stand, "mallory")).token() if token.startswith("of") else token
    form = {"token": token, "user_code": begun["user_code"], "decision": "approve"}
    assert (await alice.browser.post(stand.base + PAGE, form)).status == 403
    assert await terminal.refused() == "authorization_pending"


async def test_another_origin_may_not_post_at_all(stand: Lobby) -> None:
    terminal, alice = Terminal(stand), await someone(stand)
    begun = await terminal.begin()
    form = {"token": await alice.token(), "user_code": begun["user_code"], "decision": "approve"}
    for origin in ("https://evil.example", "null"):
        assert (await alice.browser.post(stand.base + PAGE, form, ("Origin", origin))).status == 403
    assert await terminal.refused() == "authorization_pending"


async def test_the_cookie_is_not_sent_by_foreign_pages(stand: Lobby) -> None:
    alice = await someone(stand)
    [session] = [line for name, line in alice.browser.set.items() if "sign-in" not in name]
    assert "SameSite=Lax" in session and "HttpOnly" in session


async def test_a_link_with_a_decision_in_it_decides_nothing(stand: Lobby) -> None:
    terminal, alice = Terminal(stand), await someone(stand)
    begun = await terminal.begin()
    token = await alice.token()
    await alice.opens(f"{PAGE}?user_code={begun['user_code']}&decision=approve&token={token}")
    assert await terminal.refused() == "authorization_pending"


async def test_a_decision_is_made_once(stand: Lobby) -> None:
    terminal, alice = Terminal(stand), await someone(stand)
    begun = await terminal.begin()
    mallory = await someone(stand, "mallory")
    await alice.decides(begun["user_code"])
    for reply in (
        await mallory.types(begun["user_code"], decision="approve"),
        await mallory.types(begun["user_code"], decision="deny"),
        await alice.types(begun["user_code"], decision="approve"),
    ):
        assert reply.status == 400
    assert claims_of((await terminal.ask()).json["access_token"])["sub"].endswith("#alice")


async def test_of_two_who_decide_at_the_same_time_one_does(stand: Lobby) -> None:
    terminal, alice = Terminal(stand), await someone(stand)
    mallory = await someone(stand, "mallory")
    begun = await terminal.begin()
    replies = await asyncio.gather(
        *(each.types(begun["user_code"], decision="approve") for each in (alice, mallory, alice, mallory))
    )
    assert sorted(reply.status for reply in replies) == [200, 400, 400, 400]
    assert sum(row["method"] == "oauth/device" and row["outcome"] == "ok" for row in await stand.records()) == 1


async def test_a_browser_that_signed_out_decides_nothing(stand: Lobby) -> None:
    terminal, alice = Terminal(stand), await someone(stand)
    begun = await terminal.begin()
    question = await alice.types(begun["user_code"])
    form = {"token": hidden(question, "token"), "user_code": begun["user_code"], "decision": "approve"}
    await stand.house.people.leave(alice.browser.cookies(stand.base))
    assert (await alice.browser.post(stand.base + PAGE, form)).status == 303
    assert await terminal.refused() == "authorization_pending"


async def test_who_was_revoked_between_the_decision_and_the_token_gets_none(stand: Lobby) -> None:
    terminal, _ = await approved(stand)
    await asyncio.sleep(0.01)
    stand.house.recogniser.revoke(stand.idp.issuer, "alice")
    assert await terminal.refused() == "invalid_grant"


async def test_a_provider_that_was_taken_away_gives_no_token(tmp_path: Path) -> None:
    async with booth(tmp_path) as stand:
        terminal, _ = await approved(stand)
        identity = stand.settings["identity"]
        identity["providers"]["another"] = identity["providers"].pop("main")
        await stand.reload(identity=identity)
        assert await terminal.refused() == "invalid_grant"


MEANINGS: tuple[dict[str, object], ...] = (
    {"required_claims": {"hd": "example.org"}}, {"subject_claim": "oid"}, {"role_map": {"dev": []}},
)  # fmt: skip


@pytest.mark.parametrize("change", MEANINGS, ids=lambda change: next(iter(change)))
async def test_who_came_in_by_other_settings_gets_no_token_and_no_refresh(
    tmp_path: Path, change: dict[str, object]
) -> None:
    """The operator says that only the domain may come in, or who is who: that is for terminals, too."""
    async with booth(tmp_path) as stand:
        before, _ = await approved(stand)
        token = (await before.ask()).json["refresh_token"]
        waiting, _ = await approved(stand)
        identity = stand.settings["identity"]
        identity["providers"]["main"] |= {"title": "Another name", "scopes": ["openid"]}
        await stand.reload(identity=identity)
        reply = await before.post("/oauth/token", {"grant_type": "refresh_token", "refresh_token": token})
        assert reply.status == 200
        identity["providers"]["main"] |= change
        await stand.reload(identity=identity)
        token = reply.json["refresh_token"]
        reply = await before.post("/oauth/token", {"grant_type": "refresh_token", "refresh_token": token})
        assert (reply.status, reply.json["error"]) == (400, "invalid_grant")
        assert await waiting.refused() == "invalid_grant"


async def test_what_an_application_calls_itself_is_text(stand: Lobby) -> None:
    terminal, alice = Terminal(stand, "printer"), await someone(stand)
    question = await alice.types((await terminal.begin())["user_code"])
    assert b"The &lt;b&gt;printer&lt;/b&gt;" in question.body and b"<b>" not in question.body


@pytest.mark.parametrize(
    "code", ['"><script>alert(1)</script>', "BCDF-GHJK\r\nSet-Cookie: a=b", "%22%3E", "\u202eBCDFGHJK"]
)
async def test_what_is_typed_is_not_repeated(stand: Lobby, code: str) -> None:
    alice = await someone(stand)
    for reply in (await alice.opens(f"{PAGE}?user_code={quote(code)}"), await alice.types(code.replace("\r\n", " "))):
        assert b"<script" not in reply.body and "set-cookie" not in reply.headers and b"a=b" not in reply.body
        assert b"BCDF" not in reply.body and "\u202e".encode() not in reply.body


async def test_the_way_to_the_sign_in_carries_nothing_but_a_code(stand: Lobby) -> None:
    for query in ("user_code=//evil.example", "user_code=BCDFGHJK&x=1", "back=https://evil.example", "user_code=%00"):
        reply = await Browser().get(f"{stand.base}{PAGE}?{query}")
        assert reply.status == 303
        assert reply.headers["location"] in (
            "/oauth/sign-in?back=%2Foauth%2Fdevice",
            "/oauth/sign-in?back=%2Foauth%2Fdevice%3Fuser_code%3DBCDF-GHJK",
        )


async def test_the_pages_cannot_be_framed_and_run_no_scripts(stand: Lobby) -> None:
    alice, begun = await someone(stand), await Terminal(stand).begin()
    for reply in (await alice.opens(), await alice.types(begun["user_code"])):
        policy = reply.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy and "default-src 'none'" in policy
        assert reply.headers["x-frame-options"] == "DENY" and reply.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("decision", ["yes", "APPROVE", "approve deny"])
async def test_a_decision_that_is_none_decides_nothing(stand: Lobby, decision: str) -> None:
    terminal, alice = Terminal(stand), await someone(stand)
    begun = await terminal.begin()
    assert (await alice.types(begun["user_code"], decision=decision)).status == 400
    assert await terminal.refused() == "authorization_pending"


@pytest.mark.parametrize("body", [b"", b"token", b"a=1&a=2", b"x" * 70_000, b"\xff=1"])
async def test_a_form_that_is_none(stand: Lobby, body: bytes) -> None:
    alice = await someone(stand)
    kind = ("Content-Type", "application/x-www-form-urlencoded")
    reply = await alice.browser.get(stand.base + PAGE, kind, method="POST", body=body or b"a")
    assert 400 <= reply.status < 500 and b"Traceback" not in reply.body


async def test_refused_guesses_are_recorded_without_the_code(stand: Lobby) -> None:
    alice = await someone(stand)
    await alice.types("BCDF-GHJK")
    [row] = [each for each in await stand.records() if each["method"] == "oauth/device"]
    assert (row["outcome"], row["subject"]) == ("refused", "alice") and "BCDF" not in str(row)


async def test_every_refusal_of_the_page_is_recorded(stand: Lobby) -> None:
    terminal, alice = Terminal(stand), await someone(stand)
    code, token = (await terminal.begin())["user_code"], await alice.token()
    page = stand.base + PAGE
    kind = ("Content-Type", "application/x-www-form-urlencoded")
    await alice.browser.post(page, {"token": token, "user_code": code, "decision": "maybe"})
    await alice.browser.get(page, kind, method="POST", body=b"a=1&a=2")
    await alice.decides(code)
    await alice.browser.post(page, {"token": token, "user_code": code, "decision": "approve"})
    for _ in range(throttle.CLIENT_FAILURES):
        await alice.browser.post(page, {"token": token, "user_code": "BCDFGHJK"})
    rows = await stand.records()
    said = [row["reason"] for row in rows if row["method"] == "oauth/device" and row["outcome"] == "refused"]
    assert said[:2] == ["The form is broken.", "A name occurs twice."], said
    assert said[-1] == "Too many attempts; wait a minute." and len(said) == 3 + throttle.CLIENT_FAILURES
    assert {row["subject"] for row in rows if row["method"] == "oauth/device"} == {"alice"}


async def test_a_full_audit_log_lets_nobody_in(stand: Lobby, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, alice = Terminal(stand), await someone(stand)
    begun = await terminal.begin()
    monkeypatch.setattr(stand.house, "strict", True)
    monkeypatch.setattr(type(stand.house.journal), "full", property(lambda journal: True))
    reply = await terminal.post("/oauth/device_authorization", {})
    assert (reply.status, reply.json["error"]) == (503, "temporarily_unavailable")
    assert (await alice.types(begun["user_code"], decision="approve")).status == 503
    monkeypatch.undo()
    assert isinstance(await terminal.refused(), str)

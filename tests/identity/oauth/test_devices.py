"""The device grant: a terminal without a browser, and a person with one elsewhere (RFC 8628)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from callgate.identity.oauth import devices, user_codes
from tests.gateway.stand import calling
from tests.identity.oauth.booth import DEVICE, PAGE, Someone, Terminal, booth, someone
from tests.identity.oauth.office import claims_of
from tests.identity.signin.idp import Browser, Lobby

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDP_SECRET", "s3cret: %+")


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Lobby]:
    async with booth(tmp_path) as stand:
        yield stand


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal may ask as often as it likes."""
    monkeypatch.setattr(devices, "INTERVAL", 0.0)


async def test_a_terminal_is_signed_in(stand: Lobby, at_once: None) -> None:
    terminal, alice = Terminal(stand), await someone(stand)
    begun = await terminal.begin(scope="read", resource=stand.base)
    assert await terminal.refused() == "authorization_pending"
    question = await alice.types(begun["user_code"])
    for told in (begun["user_code"], "callgate on the command line", stand.base, "127.0.0.1", "Read things", "Alice"):
        assert told.encode() in question.body, told
    assert b"Change" not in question.body
    assert await terminal.refused() == "authorization_pending"  # to look is not to decide
    done = await alice.decides(begun["user_code"])
    assert done.status == 200 and b"Go back to your terminal" in done.body
    answer = (await terminal.ask()).json
    claims = claims_of(answer["access_token"])
    assert (claims["sub"], claims["client_id"]) == (f"{stand.idp.issuer}#alice", "callgate-cli")
    assert (claims["aud"], claims["scope"], claims["roles"], claims["groups"]) == (
        stand.base,
        "read",
        ["dev"],
        ["staff"],
    )
    assert [each["sub"] for each in claims["delegation_chain"]] == ["client:callgate-cli"]
    assert (answer["token_type"], answer["scope"]) == ("Bearer", "read")
    bearer = ("Authorization", f"Bearer {answer['access_token']}")
    assert (await stand.ask(stand.request(calling("u__hello"), bearer))).status == 200
    refresh = {"grant_type": "refresh_token", "refresh_token": answer["refresh_token"]}
    again = await terminal.post("/oauth/token", refresh)
    assert again.status == 200 and claims_of(again.json["access_token"])["sub"] == claims["sub"]


async def test_what_a_terminal_is_told(stand: Lobby) -> None:
    begun = await Terminal(stand).begin()
    assert re.fullmatch(r"[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}", begun["user_code"])
    assert len(begun["device_code"]) >= 43 + 4
    assert (begun["expires_in"], begun["interval"]) == (600, 5)
    assert begun["verification_uri"] == stand.base + PAGE
    assert begun["verification_uri_complete"] == f"{stand.base}{PAGE}?user_code={begun['user_code']}"
    metadata = (await stand.ask(stand.page("/.well-known/oauth-authorization-server"))).json
    assert metadata["device_authorization_endpoint"] == f"{stand.base}/oauth/device_authorization"
    assert DEVICE in metadata["grant_types_supported"]


async def test_two_terminals_have_nothing_in_common(stand: Lobby) -> None:
    one, other = await Terminal(stand).begin(), await Terminal(stand).begin()
    assert one["user_code"] != other["user_code"] and one["device_code"] != other["device_code"]


@pytest.mark.parametrize(
    "write", [str.lower, lambda code: code.replace("-", ""), lambda code: f" {code.replace('-', ' ')} "]
)
async def test_a_code_is_typed_as_people_type(stand: Lobby, write: object) -> None:
    begun, alice = await Terminal(stand).begin(), await someone(stand)
    question = await alice.types(write(begun["user_code"]))  # type: ignore[operator]
    assert b"Sign in this terminal?" in question.body


async def test_the_complete_address_fills_in_the_code_and_has_it_compared(stand: Lobby) -> None:
    begun = await Terminal(stand).begin()
    browser = Browser()
    reply = await browser.go(begun["verification_uri_complete"])  # signs in, and comes back
    assert browser.at == begun["verification_uri_complete"]
    assert f'value="{begun["user_code"]}"'.encode() in reply.body
    assert b"Is this exactly the code on your terminal?" in reply.body and b"close this page" in reply.body
    assert b"approve" not in reply.body  # a link alone leads to no decision


async def test_the_pages_warn_of_codes_that_somebody_sent(stand: Lobby) -> None:
    """RFC 8628, section 5.4: whoever sends a code of theirs wants to act as whoever types it."""
    begun, alice = await Terminal(stand).begin(), await someone(stand)
    for reply in (await alice.opens(), await alice.types(begun["user_code"])):
        assert b"Only go on if you started this yourself" in reply.body


async def test_the_person_says_no(stand: Lobby, at_once: None) -> None:
    terminal, alice = Terminal(stand), await someone(stand)
    begun = await terminal.begin()
    reply = await alice.decides(begun["user_code"], "deny")
    assert b"Refused" in reply.body
    assert [await terminal.refused(), await terminal.refused()] == ["access_denied"] * 2
    assert (await alice.types(begun["user_code"])).status == 400  # and that cannot be taken back


async def test_a_terminal_that_does_not_wait_is_slowed_down(stand: Lobby) -> None:
    terminal = Terminal(stand)
    await terminal.begin()
    assert [await terminal.refused() for _ in range(3)] == ["authorization_pending", "slow_down", "slow_down"]
    own = stand.house.recogniser.own
    assert own is not None and own.devices is not None
    device = await own.devices.find(terminal.begun["user_code"].replace("-", ""))
    assert device is not None and device.interval == 15.0


async def test_a_code_gets_too_old(stand: Lobby, monkeypatch: pytest.MonkeyPatch, at_once: None) -> None:
    terminal, alice = Terminal(stand), await someone(stand)
    monkeypatch.setattr(devices, "LIFETIME", 0.3)
    begun = await terminal.begin()
    await asyncio.sleep(0.35)
    assert await terminal.refused() == "expired_token"
    assert (await alice.types(begun["user_code"])).status == 400


async def test_what_was_approved_too_late_to_be_fetched_is_gone(
    stand: Lobby, monkeypatch: pytest.MonkeyPatch, at_once: None
) -> None:
    terminal, alice = Terminal(stand), await someone(stand)
    monkeypatch.setattr(devices, "LIFETIME", 0.6)
    await alice.decides((await terminal.begin())["user_code"])
    await asyncio.sleep(0.65)
    assert await terminal.refused() == "expired_token"


async def test_the_audit_log_has_all_of_it(stand: Lobby, at_once: None) -> None:
    terminal, alice = Terminal(stand), await someone(stand)
    begun = await terminal.begin(scope="read", resource=stand.base)
    await terminal.refused()
    await alice.decides(begun["user_code"])
    answer = (await terminal.ask()).json
    other = Terminal(stand)
    await alice.decides((await other.begin())["user_code"], "deny")
    rows = [
        row for row in await stand.records() if row["method"].startswith("oauth/") and row["method"] != "oauth/sign-in"
    ]
    assert [(row["method"], row["outcome"]) for row in rows] == [
        ("oauth/device_authorization", "ok"), ("oauth/device", "ok"), ("oauth/token", "ok"),
        ("oauth/device_authorization", "ok"), ("oauth/device", "denied"),
    ]  # fmt: skip
    approved = rows[1]
    assert approved["subject"] == "alice" and approved["args"] == {
        "client": "callgate-cli", "scope": "read", "audience": stand.base, "device_address": "127.0.0.1",
    }  # fmt: skip
    text = str(rows)
    for secret in (
        begun["user_code"],
        begun["user_code"].replace("-", ""),
        begun["device_code"],
        answer["refresh_token"],
    ):
        assert secret not in text


async def test_nothing_in_the_database_can_be_presented(stand: Lobby, tmp_path: Path) -> None:
    begun = await Terminal(stand).begin()
    content = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    for secret in (begun["device_code"], begun["user_code"], begun["user_code"].replace("-", "")):
        assert secret.encode() not in content


async def test_a_terminal_waits_over_a_restart(tmp_path: Path, at_once: None) -> None:
    async with booth(tmp_path) as stand:
        terminal, alice = Terminal(stand), await someone(stand)
        begun = await terminal.begin()
        await stand.gateway.aclose()
        stand.write(listen=f"127.0.0.1:{stand.port}")
        await stand.start()
        await Someone(stand, alice.browser).decides(begun["user_code"])
        assert (await terminal.ask()).status == 200


async def test_where_nobody_signs_in_there_are_no_codes(tmp_path: Path) -> None:
    from tests.identity.oauth.office import office

    async with office(tmp_path) as stand:
        assert (await stand.get(PAGE)).status == 404
        reply = await stand.post({}, path="/oauth/device_authorization", client="planner")
        assert reply.json["error"] == "unauthorized_client"
        document = (await stand.get("/.well-known/oauth-authorization-server")).json
        assert "device_authorization_endpoint" not in document and DEVICE not in document["grant_types_supported"]


def test_user_codes_have_only_letters_that_nobody_confuses() -> None:
    codes = {user_codes.new_user_code() for _ in range(500)}
    assert len(codes) == 500
    assert set("".join(codes)) == set("BCDFGHJKLMNPQRSTVWXZ") and {len(code) for code in codes} == {8}

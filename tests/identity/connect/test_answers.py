"""The way through the browser, attacked: tickets, states, issuers that answer for another (OC-4 to OC-6)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from callgate.errors import CallgateError, Denied, NotFound, UpstreamError
from tests.identity.connect.scene import ALICE, BOB, Scene, scene
from tests.servers.authority import Authority

pytestmark = pytest.mark.anyio


async def leave(at: Scene) -> tuple[dict[str, str], str]:
    """Alice is at the issuer: what it would answer, and the cookie of her browser."""
    started = await at.connections.begin(await at.needs(), ALICE.key)
    return at.authority.browse(started.url), started.cookie


async def refused(at: Scene, params: dict[str, str], cookie: str) -> CallgateError:
    """Nothing comes of this answer: no token request, no grant."""
    before = len(at.authority.forms)
    with pytest.raises((Denied, NotFound)) as found:
        await at.connections.finish(params, cookie)
    assert len(at.authority.forms) == before and not await at.connections.connections(ALICE.key)
    for said in params.values():
        assert not said or said == "access_denied" or said not in f"{found.value.message} {found.value.hint}"
    return found.value


@pytest.mark.rule("OC-5")
@pytest.mark.parametrize(
    ("advertised", "iss", "taken"),
    [
        (True, "right", True),
        (True, None, False),
        (None, "right", True),
        (None, None, True),
        (False, None, True),
        (True, "https://evil.example", False),
        (None, "https://evil.example", False),
        (False, "", False),
        (True, "{issuer}/", False),
        (True, "{upper}", False),
        (True, "{issuer}:80", False),
        ("true", None, True),
    ],
)
async def test_the_table_of_iss(tmp_path: Path, advertised: Any, iss: str | None, taken: bool) -> None:
    authority = Authority(meta={"authorization_response_iss_parameter_supported": advertised})
    async with scene(tmp_path, authority) as at:
        if iss is not None:
            iss = iss.format(issuer=authority.issuer, upper=authority.issuer.replace("http", "HTTP"))
        authority.iss = iss
        params, cookie = await leave(at)
        if taken:
            assert (await at.connections.finish(params, cookie)).server == "notes"
        else:
            assert "did not come from the issuer" in (await refused(at, params, cookie)).message


@pytest.mark.rule("OC-6")
@pytest.mark.parametrize("iss", ["https://evil.example", None])
async def test_the_error_of_another_issuer_is_not_shown(tmp_path: Path, iss: str | None) -> None:
    async with scene(tmp_path, Authority(iss=iss)) as at:
        params, cookie = await leave(at)
        bait = {
            "error": "login_required",
            "error_description": "call 555-1234",
            "error_uri": "https://evil.example/help",
        }
        error = await refused(at, {**params, **bait}, cookie)
        assert not any(said in f"{error.message} {error.hint} {error.data}" for said in bait.values())


async def test_the_error_of_the_issuer_is_named_and_nothing_else_of_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        params, cookie = await leave(at)
        said = {**params, "error": "access_denied", "error_description": "call 555-1234"}
        assert "access_denied" in (await refused(at, said, cookie)).message
        params, cookie = await leave(at)
        assert "<b>" not in (await refused(at, {**params, "error": "<b>bold</b>"}, cookie)).message


async def test_a_state_works_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        params, cookie = await leave(at)
        await at.connections.finish(params, cookie)
        await at.connections.disconnect(ALICE.key, "notes")
        assert isinstance(await refused(at, params, cookie), NotFound)


@pytest.mark.parametrize("state", ["", "x", "../../etc", "a" * 10_000, "\ud800"])
async def test_a_state_that_nobody_gave_leads_nowhere(tmp_path: Path, state: str) -> None:
    async with scene(tmp_path) as at:
        params, cookie = await leave(at)
        with pytest.raises(NotFound):
            await at.connections.finish({**params, "state": state}, cookie)
        with pytest.raises(NotFound):
            await at.connections.finish({}, cookie)


@pytest.mark.rule("ELI-2")
@pytest.mark.parametrize("cookie", ["", "x", "\ud800", "é"])
async def test_another_browser_cannot_bring_the_answer(tmp_path: Path, cookie: str) -> None:
    async with scene(tmp_path) as at:
        params, own = await leave(at)
        assert "another browser" in (await refused(at, params, cookie)).message
        assert isinstance(await refused(at, params, own), NotFound)  # and the state is used up


@pytest.mark.rule("ELI-2")
async def test_the_cookie_of_one_way_does_not_fit_another(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        params, _ = await leave(at)
        _, cookie = await leave(at)
        await refused(at, params, cookie)


async def test_an_answer_that_comes_too_late_is_not_taken(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        params, cookie = await leave(at)
        at.clock.now += 601
        assert isinstance(await refused(at, params, cookie), NotFound)


async def test_a_code_of_another_way_is_worth_nothing(tmp_path: Path) -> None:
    """Code injection: the attacker's code in the victim's answer fails, because its verifier is another's."""
    async with scene(tmp_path) as at:
        theirs, _ = await leave(at)
        mine, cookie = await leave(at)
        with pytest.raises(CallgateError, match="invalid_grant"):
            await at.connections.finish({**mine, "code": theirs["code"]}, cookie)
        assert not await at.connections.connections(ALICE.key)


@pytest.mark.parametrize("code", ["", "a\r\nb", "x" * 5000, "é"])
async def test_what_is_no_code_goes_nowhere(tmp_path: Path, code: str) -> None:
    async with scene(tmp_path) as at:
        params, cookie = await leave(at)
        params["code"] = code
        before = len(at.authority.forms)
        with pytest.raises(Denied, match="gave no code"):
            await at.connections.finish(params, cookie)
        assert len(at.authority.forms) == before


@pytest.mark.rule("OC-5", "OC-8")
async def test_the_code_goes_to_the_issuer_at_which_it_was_asked_for(tmp_path: Path) -> None:
    """Mix-up: meanwhile the server names another issuer, and the metadata of the first another token endpoint."""
    async with scene(tmp_path) as at, Authority() as evil:
        params, cookie = await leave(at)
        at.authority.prm = {"authorization_servers": [evil.issuer]}
        at.authority.meta = {"token_endpoint": f"{evil.issuer}/token"}
        at.clock.now += 60
        await at.connections.finish(params, cookie)
        assert not evil.forms and at.authority.forms[-1]["code"] == params["code"]


async def test_a_grant_for_a_server_that_is_another_one_now_is_not_taken(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        params, cookie = await leave(at)
        at.make(url="https://elsewhere.example/mcp")
        assert "another one now" in (await refused(at, params, cookie)).message
        params, cookie = await _left_again(at)
        at.connections.gone(at.credential)  # the server was taken out of the configuration
        assert isinstance(await refused(at, params, cookie), NotFound)


async def _left_again(at: Scene) -> tuple[dict[str, str], str]:
    at.credential = at.make()
    return await leave(at)


# Tickets.


async def test_a_ticket_works_once_and_for_ten_minutes(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        ticket = await at.needs()
        pending = await at.connections.describe(ticket)
        assert (pending.server, pending.user, pending.asked_by) == ("notes", ALICE.key, ())
        assert pending.issuer == at.authority.issuer.removeprefix("http://")
        await at.connections.begin(ticket, ALICE.key)
        with pytest.raises(NotFound):
            await at.connections.begin(ticket, ALICE.key)
        with pytest.raises(NotFound):
            await at.connections.describe(ticket)
        at.clock.now += 2
        ticket = await at.needs()
        at.clock.now += 601
        with pytest.raises(NotFound):
            await at.connections.begin(ticket, ALICE.key)


@pytest.mark.rule("ELI-2")
async def test_the_ticket_of_another_user_opens_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        ticket = await at.needs()
        for user in (BOB.key, "", "é"):
            with pytest.raises(Denied):
                await at.connections.begin(ticket, user)
        await at.connections.begin(ticket, ALICE.key)  # and is still hers


async def test_tickets_are_not_guessed_and_carry_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        tickets = {await at.connections.ticket("notes", f"u{n}", (), ()) for n in range(20)}
        assert len(tickets) == 20 and all(len(ticket) >= 43 and ticket.isascii() for ticket in tickets)
        for wrong in ("", "x", next(iter(tickets))[:-1]):
            with pytest.raises(NotFound):
                await at.connections.describe(wrong)


async def test_a_client_that_calls_again_and_again_gets_one_ticket(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        tickets = set()
        for _ in range(5):
            tickets.add(await at.needs())
            at.clock.now += 2
        assert len(tickets) == 1


@pytest.mark.rule("OC-4")
@pytest.mark.key("servers.auth.resource", "servers.auth.authorize_params")
async def test_the_resource_is_in_both_requests_unless_it_is_turned_off(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.connect()
        assert at.authority.asked[-1]["resource"] == at.authority.forms[-1]["resource"] == at.authority.url
        at.authority.revoke_all()
        at.clock.now += 10
        await at.call()
        assert at.authority.forms[-1]["grant_type"] == "refresh_token"
        assert at.authority.forms[-1]["resource"] == at.authority.url
    (tmp_path / "other").mkdir()
    extra = {"access_type": "offline", "state": "mine"}
    async with scene(tmp_path / "other", resource="", authorize_params=extra) as at:
        await at.connect()
        assert "resource" not in at.authority.asked[-1] and "resource" not in at.authority.forms[-1]
        assert at.authority.asked[-1]["access_type"] == "offline" and at.authority.asked[-1]["state"] != "mine"


@pytest.mark.rule("SEC-7")
@pytest.mark.parametrize("error", ["invalid_grant", "server_error", "invalid_client"])
async def test_what_an_issuer_says_of_a_failure_is_not_repeated(tmp_path: Path, error: str) -> None:
    async with scene(tmp_path) as at:
        params, cookie = await leave(at)
        at.authority.token_error = error
        with pytest.raises(CallgateError, match=error) as found:
            await at.connections.finish(params, cookie)
        assert "secret words" not in f"{found.value.message} {found.value.hint} {found.value.data}"
        assert (found.value.server, found.value.user) == ("notes", ALICE.key)  # type: ignore[attr-defined]


async def test_an_issuer_that_cannot_be_reached_is_said_so(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        params, cookie = await leave(at)
        await at.authority.idp.stop()
        with pytest.raises(UpstreamError, match="token endpoint"):
            await at.connections.finish(params, cookie)

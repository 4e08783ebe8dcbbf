"""What issuers, servers, apps and another process of the gateway could try on the way to a grant, and afterwards."""

from __future__ import annotations

import asyncio
import base64
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from callgate.errors import ConsentNeeded, Denied, NotFound, UpstreamError
from callgate.identity.connect import user_of
from callgate.identity.connect.vault import LEASE
from callgate.identity.upstream.reach import PATIENCE, Reach
from callgate.types import Actor
from tests.identity.connect.scene import ALICE, BOB, Scene, person, scene
from tests.servers.authority import Authority

pytestmark = pytest.mark.anyio


# A client's secret.


def secrets_at(authority: Authority) -> list[str]:
    """Who came to an issuer with a secret, whatever for."""
    said = [request.headers.get("authorization", "") for request in authority.idp.requests]
    return [base64.b64decode(each.removeprefix("Basic ")).decode() for each in said if each.startswith("Basic ")]


@pytest.mark.rule("OC-8")
async def test_the_secret_of_a_new_issuer_is_not_shown_to_the_one_before(tmp_path: Path) -> None:
    """Both know callgate by the same name, which many operators choose."""
    async with scene(tmp_path, client_id="callgate") as at, Authority() as new:
        await at.connect()
        async with aclosing(at.make(issuer=new.issuer, client_id="callgate", client_secret="env:SECRET")):
            assert await at.connections.disconnect(user_of(ALICE), "notes")
        assert secrets_at(at.authority) == [] and at.authority.revoked == []


@pytest.mark.rule("OC-8")
async def test_a_way_that_began_at_the_issuer_before_ends_without_the_new_secret(tmp_path: Path) -> None:
    async with scene(tmp_path, client_id="callgate") as at:
        ticket = await at.needs()
        started = await at.connections.begin(ticket, user_of(ALICE))
        answer = at.authority.browse(started.url)
        async with (
            Authority() as new,
            aclosing(at.make(issuer=new.issuer, client_id="callgate", client_secret="env:SECRET")),
        ):
            with pytest.raises(Denied):
                await at.connections.finish(answer, started.cookie)
        assert at.authority.forms == []


# Agents.


@pytest.mark.rule("SEC-9")
@pytest.mark.parametrize("name", ["client:agent", "agent:x", "anything"])
async def test_an_agent_that_a_foreign_token_names_is_no_app_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    """Another issuer's `act` may be called like an application of ours, which would need no leave."""
    async with scene(tmp_path) as at:
        await at.connect()
        behind = person("alice", asserted=(Actor(name, "https://idp.example"),))
        with pytest.raises(Denied, match="through this agent"):
            await at.call(behind)


# Another process.


@pytest.mark.rule("SEC-6")
async def test_a_key_that_the_user_replaced_elsewhere_is_not_proved_with(tmp_path: Path) -> None:
    """Alice connects anew at the other process; this one must not prove with her old key, or lose her grant."""
    async with scene(tmp_path, dpop=True) as at:
        await at.connect()
        await at.call()
        async with aclosing(Scene(tmp_path, at.authority, at.clock, dpop=True)) as other:
            assert await other.connections.disconnect(user_of(ALICE), "notes")
            await other.connect()
        minted = len(at.authority.minted)
        at.clock.now += 61.0
        assert (await at.call()).status == 200
        assert len(at.authority.minted) == minted  # nothing was refused, so nothing was refreshed
        at.clock.now += 3600.0
        assert (await at.call()).status == 200
        assert len(at.authority.asked) == 2


async def test_a_bound_token_never_goes_out_as_a_plain_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are more users than keys that are kept at hand."""
    monkeypatch.setattr("callgate.identity.connect.credential.MOST_KEYS", 1)
    async with scene(tmp_path, dpop=True) as at:
        await at.connect(ALICE)
        await at.call(ALICE)
        await at.connect(BOB)
        await at.call(BOB)
        for who in (ALICE, BOB, ALICE):
            assert (await at.lines(who)).startswith(b"authorization: DPoP "), who.subject
            assert (await at.call(who)).status == 200


# Offboarding.


@pytest.mark.rule("SEC-8")
async def test_who_is_revoked_on_the_way_back_gets_no_grant(tmp_path: Path) -> None:
    """The issuer takes its time with the token, and meanwhile the user is offboarded."""
    async with scene(tmp_path) as at:
        ticket = await at.needs()
        started = await at.connections.begin(ticket, user_of(ALICE))
        answer = at.authority.browse(started.url)
        at.authority.gate.clear()
        back = asyncio.create_task(at.connections.finish(answer, started.cookie))
        while not at.authority.minted:
            await asyncio.sleep(0.01)
        at.connections.forget(user_of(ALICE))
        await at.connections.aclose()
        at.authority.gate.set()
        with pytest.raises((Denied, NotFound)):
            await back
        assert await at.connections.vault.of(user_of(ALICE)) == []
        assert [form["token_type_hint"] for form in at.authority.revoked] == ["refresh_token"]


@pytest.mark.rule("SEC-8")
async def test_what_a_refresh_brings_after_the_user_disconnected_is_revoked(tmp_path: Path) -> None:
    """Else a refresh token would stay alive at the issuer that nobody can end any more."""
    async with scene(tmp_path) as at:
        await at.connect()
        at.clock.now += 3600.0
        at.authority.gate.clear()
        before = len(at.authority.minted)
        calling = asyncio.create_task(at.call())
        while len(at.authority.minted) == before:
            await asyncio.sleep(0.01)
        assert await at.connections.disconnect(user_of(ALICE), "notes")
        at.authority.gate.set()
        with pytest.raises((ConsentNeeded, UpstreamError)):
            await calling
        await asyncio.gather(*at.credential._refreshing, return_exceptions=True)
        fresh = [token for token in at.authority.minted[before:] if token.startswith("rt-")]
        assert fresh and fresh[0] in [form["token"] for form in at.authority.revoked]
        assert await at.connections.vault.of(user_of(ALICE)) == []


def test_nobody_else_refreshes_while_the_slowest_refresh_may_run() -> None:
    """Two tokens, each with and without a nonce that the issuer wants: of two refreshes at once, one is a theft."""
    assert 4 * PATIENCE < LEASE


# Servers that are slow, or change their mind.


async def test_an_issuer_that_hangs_in_a_registration_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = asyncio.Event()
    post = Reach.post

    async with scene(tmp_path) as at, Authority() as slow:

        async def posted(self: Reach, url: str, *more: Any) -> Any:
            if url == f"{slow.issuer}/register":
                await hangs.wait()
            return await post(self, url, *more)

        monkeypatch.setattr(Reach, "post", posted)
        async with aclosing(at.make("slow", slow.url)):
            ticket = await at.connections.invite("slow", BOB)
            waiting = asyncio.create_task(at.connections.begin(ticket, user_of(BOB)))
            await asyncio.sleep(0.1)
            try:
                async with asyncio.timeout(2.0):
                    await at.connect()
            finally:
                hangs.set()
                await waiting


@pytest.mark.rule("ELI-2")
@pytest.mark.parametrize("change", ["issuer", "scopes"])
async def test_the_user_goes_where_the_page_said_or_nowhere(tmp_path: Path, change: str) -> None:
    """The server names an honest issuer for the page, and another one, or more scopes, for the click."""
    async with scene(tmp_path) as at, Authority() as evil:
        ticket = await at.needs()
        seen = await at.connections.describe(ticket)
        if change == "issuer":
            at.authority.prm["authorization_servers"] = [evil.issuer]
        else:
            at.authority.challenge = 'Bearer resource_metadata="{prm}", scope="delete_everything"'
        with pytest.raises(ConsentNeeded):
            await at.call(None)  # the server refuses, and its metadata are read anew
        with pytest.raises(Denied, match="another"):
            await at.connections.begin(ticket, user_of(ALICE), seen)
        again = await at.connections.describe(ticket)
        assert (await at.connections.begin(ticket, user_of(ALICE), again)).cookie


async def test_the_page_names_the_host_to_which_the_browser_goes(tmp_path: Path) -> None:
    """An issuer may send browsers elsewhere: to the sign-in of somebody else, whom the user trusts (mix-up)."""
    authority = Authority(meta={"authorization_endpoint": "https://accounts.example/authorize"})
    async with scene(tmp_path, authority) as at:
        pending = await at.connections.describe(await at.needs())
        assert (pending.issuer, pending.host) == (f"127.0.0.1:{authority.idp.port}", "accounts.example")


@pytest.mark.rule("OC-5")
@pytest.mark.parametrize("known", ["found", "configured"])
async def test_an_issuer_that_borrows_the_sign_in_of_another_one_gets_no_code(tmp_path: Path, known: str) -> None:
    """Mix-up: users agree at the honest issuer, which does not name itself in its answers; the code, and what proves
    that it is callgate's, would go to the other one.
    """
    silent = {"authorization_response_iss_parameter_supported": None}
    async with scene(tmp_path, Authority(iss=None, meta=silent)) as at, Authority() as evil:
        evil.meta = {**silent, "authorization_endpoint": f"{at.authority.issuer}/authorize?x"}
        if known == "found":
            await at.connect()
        else:
            at.make(issuer=at.authority.issuer)
        async with aclosing(at.make("evil", evil.url)):
            ticket = await at.connections.invite("evil", ALICE)
            with pytest.raises(UpstreamError, match="another issuer"):
                await at.connections.begin(ticket, user_of(ALICE))
        async with aclosing(at.make("evil", evil.url, issuer=evil.issuer)):  # the operator knows better
            assert (await at.connections.begin(ticket, user_of(ALICE))).cookie
        await at.connect(BOB)  # nothing changes for the honest one

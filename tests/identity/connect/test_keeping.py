"""Grants that are kept: whose they are, how they are refreshed, when they end (SEC-4 to SEC-9, OC-11)."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest

from callgate.egress import Response
from callgate.errors import ConfigError, ConsentNeeded, Denied, UpstreamError, UpstreamTimeout
from callgate.identity.connect import user_of
from callgate.identity.connect.vault import KIND
from callgate.types import Actor, Occasion, Principal
from tests.identity.connect.scene import ALICE, BOB, IDP, Scene, person, scene, through
from tests.servers.authority import Authority

pytestmark = pytest.mark.anyio


def kinds(at: Scene) -> list[str]:
    return [form["grant_type"] for form in at.authority.forms]


def database(at: Scene) -> Path:
    return next(at.folder.glob("*.db"))


def everything(at: Scene) -> bytes:
    """All that is on the disk."""
    return b"".join(path.read_bytes() for path in at.folder.rglob("*") if path.is_file())


# Whose it is.


@pytest.mark.rule("SEC-5")
@pytest.mark.parametrize(
    "other",
    [
        BOB,
        person("alice", issuer="https://other.example"),
        person("alice", issuer="", via="key"),
        person("alice", tenant="other"),
        Principal(subject="anonymous", key="k", via="anonymous"),
    ],
)
async def test_a_grant_is_its_users_alone(tmp_path: Path, other: Principal) -> None:
    async with scene(tmp_path) as at:
        await at.connect()
        assert (await at.call()).status == 200
        await at.needs(other)
        await at.connect(other)
        shown = {entry["token"] for entry in at.authority.log}
        await at.call(other)
        assert at.authority.log[-1]["token"] not in shown


@pytest.mark.rule("SEC-5")
async def test_the_user_is_the_same_through_every_app(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.connect(through())
        assert user_of(through()) == user_of(ALICE) == ALICE.key != through().key
        assert (await at.call(ALICE)).status == (await at.call(through())).status == 200
        assert [each.server for each in await at.connections.connections(ALICE.key)] == ["notes"]


@pytest.mark.rule("SEC-5", "OC-8")
async def test_a_grant_is_for_one_server_one_url_one_issuer_and_one_client(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.connect()
        others: list[tuple[str, dict[str, Any]]] = [
            ("files", {}),
            ("notes", {"url": at.authority.url + "?other"}),
            ("notes", {"issuer": "https://other.example"}),
            ("notes", {"client_id": "us"}),
            ("notes", {"dpop": True}),
        ]
        for name, more in others:
            other = at.make(name, **more)
            with pytest.raises(ConsentNeeded):
                await at.call(ALICE, other)
            await other.aclose()
        again = at.make()
        assert (await at.call(ALICE, again)).status == 200
        await again.aclose()


@pytest.mark.rule("SEC-9")
@pytest.mark.key("servers.auth.through")
async def test_agents_use_a_users_grant_only_where_they_are_listed(tmp_path: Path) -> None:
    async with scene(tmp_path, through=("planner", "agent:code*")) as at:
        await at.connect()
        before = len(at.authority.log)
        for allowed in (through("planner"), through("coder"), through("planner", "coder")):
            assert (await at.call(allowed)).status == 200
        claimed = msgspec.structs.replace(ALICE, asserted=(Actor("agent:intern", "https://foreign"),))
        for denied in (through("intern"), through("planner", "intern"), through("intern", "planner"), claimed):
            with pytest.raises(Denied, match="through this agent") as found:
                await at.call(denied)
            assert not isinstance(found.value, ConsentNeeded)
        assert len(at.authority.log) == before + 3


@pytest.mark.rule("SEC-9")
async def test_without_a_list_no_agent_uses_a_users_grant(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.connect(through())
        for denied in (through("planner"), through("client:app")):
            with pytest.raises(Denied, match="through this agent"):
                await at.call(denied)
        with pytest.raises(Denied, match="through this agent"):
            await at.connections.invite("notes", through("planner"))
        assert await at.connections.invite("notes", through())


# How it is kept.


@pytest.mark.rule("SEC-4")
async def test_a_row_that_is_moved_to_another_user_does_not_open(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.connect()
        await at.connect(BOB)
        with sqlite3.connect(database(at)) as connection:
            connection.execute("DELETE FROM held WHERE kind = ? AND owner = ?", (KIND, BOB.key))
            connection.execute("UPDATE held SET owner = ? WHERE kind = ? AND owner = ?", (BOB.key, KIND, ALICE.key))
        at.clock.now += 61
        with pytest.raises(ConfigError, match="another's place"):
            await at.call(BOB)
        await at.needs(ALICE)


@pytest.mark.rule("SEC-4", "OC-11", "SEC-5")
async def test_nothing_in_the_data_directory_shows_a_token(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.connect()
        started = await at.connections.begin(await at.needs(BOB), BOB.key)
        files = everything(at)
        secrets = [*at.authority.minted, started.cookie, at.authority.forms[0]["code_verifier"]]
        secrets += [each["client_secret"] for each in at.authority.registered.values()]
        assert len(secrets) == 5 and not any(secret.encode() in files for secret in secrets)
        assert ALICE.key.encode() in files  # it was the right place to look


@pytest.mark.rule("SEC-2", "SEC-7")
async def test_nothing_that_is_kept_shows_itself(tmp_path: Path) -> None:
    async with scene(tmp_path, dpop=True) as at:
        await at.connect()
        grant = await at.credential.grant_of(ALICE.key)
        assert grant is not None
        said = f"{grant!r} {grant} {[grant]}"
        assert not any(secret in said for secret in (grant.access, grant.refresh, grant.key))
        started = await at.connections.begin(await at.needs(BOB), BOB.key)
        assert started.cookie not in f"{started!r}"


# Refreshing.


async def test_a_token_is_used_until_shortly_before_its_end(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.connect()
        at.clock.now += 3500
        await at.call()
        assert kinds(at) == ["authorization_code"]
        at.clock.now += 75
        await at.call()
        assert kinds(at) == ["authorization_code", "refresh_token"]


@pytest.mark.rule("SEC-6")
async def test_a_refresh_happens_once_for_many_calls_and_processes(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.connect()
        others = [Scene(tmp_path, at.authority, at.clock) for _ in range(3)]
        at.clock.now += 3600
        every = [at, *others]
        responses = await asyncio.gather(*(each.call() for each in every * 4))
        assert {response.status for response in responses} == {200}
        assert kinds(at).count("refresh_token") == 1  # the issuer takes each refresh token once
        for each in others:
            await each.aclose()


@pytest.mark.rule("SEC-6")
async def test_the_new_refresh_token_is_written_before_anything_is_used(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.connect()
        first = await at.credential.grant_of(ALICE.key)
        at.clock.now += 3600
        line = await at.lines()
        second = await at.credential.grant_of(ALICE.key)
        assert first is not None and second is not None
        assert second.access.encode() in line and second.refresh not in ("", first.refresh)
        assert (second.previous, second.previous_until) == (first.refresh, at.clock.now + 60)
        at.clock.now += 3600
        await at.call()  # and it works
        assert kinds(at).count("refresh_token") == 2


@pytest.mark.rule("SEC-6")
async def test_who_gives_up_in_a_refresh_loses_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.connect()
        at.clock.now += 3600
        at.authority.gate.clear()
        call = asyncio.create_task(at.call())
        while "refresh_token" not in kinds(at):
            await asyncio.sleep(0.001)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        at.authority.gate.set()
        assert (await at.call()).status == 200
        assert kinds(at).count("refresh_token") == 1


@pytest.mark.rule("SEC-6")
async def test_a_shutdown_in_a_refresh_loses_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.connect()
        at.clock.now += 3600
        stopping = Scene(tmp_path, at.authority, at.clock)
        at.authority.gate.clear()
        call = asyncio.create_task(stopping.call())
        while "refresh_token" not in kinds(at):
            await asyncio.sleep(0.001)
        asyncio.get_running_loop().call_later(0.05, at.authority.gate.set)
        await stopping.aclose()
        await asyncio.gather(call, return_exceptions=True)
        assert (await at.call()).status == 200
        assert kinds(at).count("refresh_token") == 1


async def test_a_refused_call_waits_no_longer_than_it_may(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.connect()
        at.authority.revoke_all()
        at.clock.now += 10
        refused = Response(401, {})
        hang = asyncio.Event()
        at.credential.discovery.find = hang.wait  # type: ignore[method-assign,assignment]
        line = await at.lines()
        deadline = asyncio.get_running_loop().time() + 0.05
        with pytest.raises(UpstreamTimeout):
            await at.credential.refused(Occasion(ALICE, url=at.authority.url, deadline=deadline), line, refused)


@pytest.mark.rule("SEC-6")
async def test_the_previous_refresh_token_helps_for_a_minute(tmp_path: Path) -> None:
    """The issuer answered with a new one which it then does not know: it had not arrived everywhere."""
    for waited, works in ((10, True), (61, False)):
        folder = tmp_path / str(waited)
        folder.mkdir()
        async with scene(folder, Authority(life=None)) as at:
            await at.connect()
            at.authority.revoke_all()
            at.clock.now += 10
            first = await at.credential.grant_of(ALICE.key)
            await at.call()
            second = await at.credential.grant_of(ALICE.key)
            assert first is not None and second is not None
            at.authority.used = {second.refresh}
            at.authority.revoke_all()
            at.clock.now += waited
            if works:
                assert (await at.call()).status == 200
            else:
                await at.needs()


@pytest.mark.rule("OC-11")
async def test_no_refresh_token_is_taken_for_granted(tmp_path: Path) -> None:
    async with scene(tmp_path, Authority(refreshes=False)) as at:
        await at.connect()
        at.clock.now += 3600
        await at.needs()
        assert kinds(at) == ["authorization_code"]


async def test_a_refresh_token_that_stays_the_same_stays(tmp_path: Path) -> None:
    async with scene(tmp_path, Authority(rotates=False)) as at:
        await at.connect()
        for _ in range(3):
            at.clock.now += 3600
            assert (await at.call()).status == 200
        assert kinds(at).count("refresh_token") == 3


async def test_a_refresh_token_that_is_worth_nothing_any_more_is_dropped(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.connect()
        at.authority.refreshing.clear()
        at.clock.now += 3600
        await at.needs()
        await at.needs()
        assert kinds(at).count("refresh_token") == 1 and at.noted[-1] == ("ended", "notes", ALICE.key)
        assert not await at.connections.connections(ALICE.key)


async def test_an_issuer_that_is_down_takes_no_grant_away(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.connect()
        at.clock.now += 3600
        at.authority.token_error = "temporarily_unavailable"
        with pytest.raises(UpstreamError, match="temporarily_unavailable"):
            await at.call()
        at.authority.token_error = ""
        at.clock.now += 2
        assert (await at.call()).status == 200


async def test_a_process_that_died_in_a_refresh_is_waited_for_and_then_followed(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.connect()
        at.clock.now += 3600
        grant = await at.credential.grant_of(ALICE.key)
        assert grant is not None
        _, mine = await at.connections.vault.lease(grant)
        assert mine and not (await at.connections.vault.lease(grant))[1]
        at.clock.now += 46
        assert (await at.call()).status == 200


# 401.


async def test_a_refused_token_is_refreshed_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.connect()
        at.authority.revoke_all()
        at.clock.now += 10
        assert (await at.call()).status == 200
        assert kinds(at) == ["authorization_code", "refresh_token"]


async def test_a_server_that_takes_no_token_at_all_is_not_asked_for_ever(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.connect()
        at.clock.now += 10
        at.authority.tokens = _Nothing()
        before = len(at.authority.shown)
        await at.needs()
        assert len(at.authority.shown) - before == 2 and kinds(at).count("refresh_token") == 1
        before = len(at.authority.shown)
        await at.needs()  # the token is young: it is not refreshed again
        assert len(at.authority.shown) - before == 1 and kinds(at).count("refresh_token") == 1


class _Nothing(dict[str, Any]):
    """Tokens that are given and not taken."""

    def get(self, key: str, default: Any = None) -> Any:
        return default


async def test_of_two_calls_with_a_refused_token_one_refreshes(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.connect()
        await at.call()
        at.authority.revoke_all()
        at.clock.now += 10
        assert {response.status for response in await asyncio.gather(*(at.call() for _ in range(8)))} == {200}
        assert kinds(at).count("refresh_token") == 1


# The end.


@pytest.mark.rule("SEC-8")
async def test_who_is_revoked_has_no_grant_any_more(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.connect()
        await at.connect(BOB)
        assert (await at.call()).status == (await at.call(BOB)).status == 200
        at.connections.forget(ALICE.key)
        assert len(at.credential.kept) == 1  # hers is not used from this moment on
        await at.connections.aclose()
        await at.needs(ALICE)
        assert (await at.call(BOB)).status == 200
        assert [form["token_type_hint"] for form in at.authority.revoked] == ["refresh_token"]
        assert ("revoked", "notes", ALICE.key) in at.noted


@pytest.mark.rule("SEC-8")
@pytest.mark.parametrize("issuer", ["well", "down", "without"])
async def test_who_disconnects_is_not_connected_whatever_the_issuer_does(tmp_path: Path, issuer: str) -> None:
    authority = Authority(meta={"revocation_endpoint": None} if issuer == "without" else {})
    async with scene(tmp_path, authority) as at:
        await at.connect()
        other = Scene(tmp_path, authority, at.clock)
        await other.call()
        if issuer == "down":
            await authority.idp.stop()
        assert await at.connections.disconnect(ALICE.key, "notes")
        assert not await at.connections.disconnect(ALICE.key, "notes")
        assert bool(authority.revoked) == (issuer == "well")
        with pytest.raises(ConsentNeeded):
            await at.call()
        at.clock.now += 60  # another process hears of it by then
        with pytest.raises(ConsentNeeded):
            await other.call()
        await other.aclose()


@pytest.mark.rule("SEC-8")
async def test_a_user_is_asked_anew_after_a_year(tmp_path: Path) -> None:
    async with scene(tmp_path, Authority(life=None)) as at:
        await at.connect()
        at.clock.now += 364 * 86400
        assert (await at.call()).status == 200
        at.clock.now += 2 * 86400
        await at.needs()


async def test_who_connects_again_has_one_grant(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.connect()
        started = await at.connections.begin(await at.connections.invite("notes", ALICE), ALICE.key)
        await at.connections.finish(at.authority.browse(started.url), started.cookie)
        assert len(await at.connections.vault.of(ALICE.key)) == 1
        assert (await at.call()).status == 200


@pytest.mark.rule("SEC-5")
def test_the_key_of_a_grant_is_made_of_all_that_makes_it_another_one() -> None:
    assert user_of(person("a", issuer=f"{IDP}#a")) != user_of(person("a#a", issuer=IDP))


async def test_a_grant_outlives_the_address_of_the_gateway(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.connect()
        moved = Scene(tmp_path, at.authority, at.clock, "https://gate.example.org")
        at.clock.now += 3600
        assert (await moved.call()).status == 200
        await moved.connect(BOB)
        assert len(at.authority.registered) == 2  # another address to come back to is another client
        await moved.aclose()

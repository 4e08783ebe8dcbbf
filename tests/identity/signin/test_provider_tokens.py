"""What providers issued for people: kept only where a server needs it, refreshed once at a time."""

from __future__ import annotations

import asyncio
import re
from html import unescape
from pathlib import Path

import pytest

from callgate.errors import UpstreamError
from callgate.gateway import showing
from tests.fuzz.raw import Reply
from tests.identity.signin.idp import Browser, Lobby, lobby

pytestmark = pytest.mark.anyio


def form_token(reply: Reply) -> str:
    return re.search(rb'name="token" value="([0-9a-f]{64})"', reply.body)[1].decode()  # type: ignore[index]


def links(reply: Reply) -> list[str]:
    return [unescape(each) for each in re.findall(r'href="([^"]*)"', reply.body.decode())]


async def kept(stand: Lobby, monkeypatch: pytest.MonkeyPatch) -> tuple[Browser, str]:
    monkeypatch.setattr(stand.house.people, "_keep", lambda: True)
    stand.idp.refresh = "refresh-0"
    browser = await stand.sign_in()
    return browser, (await stand.person(browser)).key


async def test_tokens_of_the_provider_are_not_kept_unless_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lobby(tmp_path) as stand:
        browser = await stand.sign_in()
        key = (await stand.person(browser)).key
        assert await stand.house.people.provider_tokens(key) is None
        monkeypatch.setattr(stand.house.people, "_keep", lambda: True)
        assert await stand.house.people.provider_tokens(key) is None  # there never was anything


@pytest.mark.rule("SEC-6")
async def test_tokens_of_the_provider_are_refreshed_once_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lobby(tmp_path) as stand:
        stand.idp.changes = {"exp": int(stand.idp.clock()) + 30}  # about to expire
        _, key = await kept(stand, monkeypatch)
        stand.idp.changes = {}
        before, stand.idp.pause = len(stand.idp.posted), 0.05
        found = await asyncio.gather(*(stand.house.people.provider_tokens(key) for _ in range(5)))
        assert len(stand.idp.posted) == before + 1
        assert found[0] is not None and len({each.id_token for each in found if each}) == 1
        assert found[0].refresh_token == stand.idp.refresh
        assert (await stand.house.people.provider_tokens(key)) == found[0]
        assert "***" in repr(found[0]) and found[0].id_token not in f"{found[0]} {found[0]!r}"


async def test_a_grant_that_the_provider_ended_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with lobby(tmp_path) as stand:
        stand.idp.changes = {"exp": int(stand.idp.clock()) + 30}
        _, key = await kept(stand, monkeypatch)
        stand.idp.refresh = "another"
        assert await stand.house.people.provider_tokens(key) is None
        stand.idp.paths.clear()
        assert await stand.house.people.provider_tokens(key) is None and not stand.idp.paths


async def test_a_provider_that_is_away_ends_no_grant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with lobby(tmp_path) as stand:
        stand.idp.changes = {"exp": int(stand.idp.clock()) + 30}
        _, key = await kept(stand, monkeypatch)
        stand.idp.status = {"/token": 503}
        with pytest.raises(UpstreamError):
            await stand.house.people.provider_tokens(key)
        stand.idp.status, stand.idp.changes = {}, {}
        assert await stand.house.people.provider_tokens(key) is not None


async def test_a_refresh_for_somebody_else_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with lobby(tmp_path) as stand:
        stand.idp.changes = {"exp": int(stand.idp.clock()) + 30}
        _, key = await kept(stand, monkeypatch)
        stand.idp.changes = {"sub": "mallory"}
        with pytest.raises(UpstreamError, match="does not hold"):
            await stand.house.people.provider_tokens(key)


async def test_revoked_people_leave_no_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with lobby(tmp_path) as stand:
        _, key = await kept(stand, monkeypatch)
        assert await stand.house.people.provider_tokens(key) is not None
        stand.house.recogniser.revoke(stand.idp.issuer, "alice")
        assert await stand.house.people.provider_tokens(key) is None


async def test_tokens_go_with_the_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with lobby(tmp_path) as stand:
        _, key = await kept(stand, monkeypatch)
        before = stand.settings["identity"]
        await stand.reload(identity={"oauth": {}})
        assert await stand.house.people.provider_tokens(key) is None
        await stand.reload(identity=before)
        assert await stand.house.people.provider_tokens(key) is None


@pytest.mark.rule("SEC-6")
async def test_two_processes_refresh_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider takes a refresh token once; the second process uses what the first one got."""
    async with lobby(tmp_path) as stand:
        stand.idp.changes = {"exp": int(stand.idp.clock()) + 30}
        _, key = await kept(stand, monkeypatch)
        other = showing.people(stand.house)
        monkeypatch.setattr(other, "_keep", lambda: True)
        stand.idp.changes, stand.idp.pause = {}, 0.05
        before = len(stand.idp.posted)
        first, second = await asyncio.gather(stand.house.people.provider_tokens(key), other.provider_tokens(key))
        await other.aclose()
        assert first is not None and first == second and len(stand.idp.posted) == before + 1


async def test_tokens_without_refresh_are_there_until_they_expire(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lobby(tmp_path) as stand:
        monkeypatch.setattr(stand.house.people, "_keep", lambda: True)
        key = (await stand.person(await stand.sign_in())).key
        found = await stand.house.people.provider_tokens(key)
        assert found is not None and found.refresh_token == "" and found.subject == "alice"
        stand.idp.changes = {"exp": int(stand.idp.clock()) + 30}  # too little left to begin anything with
        await stand.sign_in()
        assert await stand.house.people.provider_tokens(key) is None

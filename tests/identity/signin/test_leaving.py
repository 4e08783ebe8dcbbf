"""People leave: by themselves, with their provider, or because they are revoked."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.fuzz.raw import Reply
from tests.gateway.stand import until
from tests.identity.provider import ec_key, public
from tests.identity.signin.idp import CLIENT, Browser, lobby, provider

pytestmark = pytest.mark.anyio


def form_token(reply: Reply) -> str:
    return re.search(rb'name="token" value="([0-9a-f]{64})"', reply.body)[1].decode()  # type: ignore[index]


def links(reply: Reply) -> list[str]:
    return [unescape(each) for each in re.findall(r'href="([^"]*)"', reply.body.decode())]


async def test_signing_out(tmp_path: Path) -> None:
    async with lobby(tmp_path) as stand:
        stand.idp.said = {"end_session_endpoint": f"{stand.idp.issuer}/logout?x=1"}
        browser = await stand.sign_in()
        cookie = browser.cookies(stand.base)[f"callgate-{stand.port}"]
        token = form_token(await browser.get(stand.url()))
        reply = await browser.post(stand.url("/oauth/sign-out"), {"token": token})
        there = parse_qs(urlsplit(next(each for each in links(reply) if "logout" in each)).query)
        assert (there["x"], there["client_id"], there["id_token_hint"][0].count(".")) == (["1"], [CLIENT], 2)
        browser.cookies(stand.base)[f"callgate-{stand.port}"] = cookie  # somebody has a copy
        assert await stand.person(browser) is None
        assert [each["method"] for each in await stand.records(2)] == ["oauth/sign-in", "oauth/sign-out"]


async def test_signed_out_without_more_to_do(tmp_path: Path) -> None:
    async with lobby(tmp_path) as stand:
        reply = await Browser().post(stand.url("/oauth/sign-out"), {"token": ""})
        assert (reply.status, reply.headers["location"]) == (303, "/oauth/signed-out")
        for path in ("/oauth/signed-out", "/oauth/signed-out?provider=main"):
            page = await Browser().get(stand.base + path)
            assert page.status == 200 and links(page) == ["/oauth/sign-in"]


@pytest.mark.parametrize(
    ("change", "stays"),
    [
        ({"client_id": "another"}, False),
        ({"required_claims": {"hd": "example.org"}}, False),
        ({"role_map": {"dev": ["admin"]}}, False),
        ({"title": "Another word"}, True),
        ({"client_secret": "env:OTHER"}, True),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_a_session_ends_when_the_provider_means_something_else(tmp_path: Path, change: Any, stays: bool) -> None:
    async with lobby(tmp_path) as stand:
        browser = await stand.sign_in()
        await stand.reload(identity={"oauth": {}, "providers": {"main": provider(stand.idp, **change)}})
        assert not stand.house.trouble
        assert bool(await stand.person(browser)) == stays


async def test_a_session_ends_with_its_provider(tmp_path: Path) -> None:
    async with lobby(tmp_path, two=True) as stand:
        before = stand.settings["identity"]
        mine, others = await stand.sign_in(provider="main"), await stand.sign_in(provider="other")
        await stand.reload(identity={"oauth": {}, "providers": {"other": before["providers"]["other"]}})
        assert await stand.person(mine) is None and await stand.person(others) is not None
        await stand.reload(identity=before)
        assert await stand.person(mine) is None  # it does not come back to life


@pytest.mark.rule("SEC-8")
async def test_a_revoked_person_is_signed_out_everywhere(tmp_path: Path) -> None:
    async with lobby(tmp_path) as stand:
        first, second = await stand.sign_in(), await stand.sign_in()
        stand.idp.user = "bob"
        third = await stand.sign_in()
        stand.house.recogniser.revoke(stand.idp.issuer, "alice")
        assert await stand.person(first) is None and await stand.person(second) is None
        assert await stand.person(third) is not None
        stand.idp.user = "alice"
        assert await stand.person(await stand.sign_in()) is not None  # the provider still lets her in


async def test_without_providers_there_is_nothing(tmp_path: Path) -> None:
    async with lobby(tmp_path) as stand:
        browser = await stand.sign_in()
        await stand.reload(identity={"oauth": {}})
        for path in ("/oauth/sign-in", "/oauth/callback?code=1&state=2", "/oauth/signed-out"):
            assert (await browser.get(stand.base + path)).status == 404
        assert (await browser.post(stand.url("/oauth/sign-out"), {})).status == 404
        assert await stand.person(browser) is None
        assert await stand.house.people.provider_tokens("x") is None


async def test_providers_switch_anonymous_off(tmp_path: Path) -> None:
    async with lobby(tmp_path) as stand:
        assert stand.house.recogniser.anonymous is None
        assert (await stand.call("u__hello")).status == 401


async def test_a_full_audit_log_signs_nobody_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with lobby(tmp_path, settings={"audit": {"durability": "strict"}}) as stand:
        await stand.sign_in()
        assert len(await stand.records(1)) == 1
        monkeypatch.setattr(type(stand.house.journal), "full", property(lambda self: True))
        assert (await Browser().get(stand.url())).status == 503


async def test_keys_of_the_provider_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callgate.identity.jwks.DEMAND_INTERVAL", 0.0)
    async with lobby(tmp_path) as stand:
        await stand.sign_in()
        stand.idp.key = ec_key("a new key")
        stand.idp.keys.append(public(stand.idp.key))
        await stand.sign_in()


async def test_the_provider_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callgate.identity.signin.discovery.AGAIN", 0.0)
    async with lobby(tmp_path) as stand:
        stand.idp.status = {"/.well-known/openid-configuration": 500}
        reply = await Browser().get(stand.url())
        assert reply.status == 502 and links(reply) == ["/oauth/sign-in"]
        stand.idp.status = {}
        await stand.sign_in()


async def test_a_known_provider_may_be_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callgate.identity.signin.discovery.FRESH", -1.0)
    async with lobby(tmp_path) as stand:
        await stand.sign_in()
        stand.idp.status = {"/.well-known/openid-configuration": 500}
        await stand.sign_in()
        await until(lambda: stand.idp.paths.count("/.well-known/openid-configuration") > 1)


async def test_too_many_visits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callgate.gateway.signing_in.VISITS", 3)
    async with lobby(tmp_path) as stand:
        found = [(await Browser().get(stand.url("/oauth/signed-out"))).status for _ in range(5)]
        assert found == [200, 200, 200, 429, 429]

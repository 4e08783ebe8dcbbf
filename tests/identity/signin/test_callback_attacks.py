"""Attacks on the way back from a provider, and on the choice of it: replay, injection, login CSRF, mix-up."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.fuzz.raw import Reply
from tests.identity.signin.attacks import EVIL, at_the_callback, is_refusal, refused, with_query
from tests.identity.signin.idp import Browser, Lobby, lobby

pytestmark = pytest.mark.anyio


Visit = Callable[[Lobby, Browser], Awaitable[Reply]]


def back_with(**changes: str | None) -> Visit:
    async def visit(stand: Lobby, browser: Browser) -> Reply:
        return await browser.get(with_query(await at_the_callback(stand, browser), **changes))

    return visit


def back_and(more: str) -> Visit:
    async def visit(stand: Lobby, browser: Browser) -> Reply:
        return await browser.get(await at_the_callback(stand, browser) + more)

    return visit


async def without_the_cookie(stand: Lobby, browser: Browser) -> Reply:
    url = await at_the_callback(stand, browser)
    browser.jar.clear()
    return await browser.get(url)


async def with_a_forged_cookie(stand: Lobby, browser: Browser) -> Reply:
    url = await at_the_callback(stand, browser)
    browser.cookies(url)[f"callgate-sign-in-{stand.port}"] = "A" * 43
    return await browser.get(url)


async def with_a_strange_cookie(stand: Lobby, browser: Browser) -> Reply:
    url = await at_the_callback(stand, browser)
    browser.cookies(url)[f"callgate-sign-in-{stand.port}"] = "../../etc/passwd"
    return await browser.get(url)


async def code_of_another(stand: Lobby, browser: Browser) -> Reply:
    """Code injection: a stolen code in an attempt of one's own; PKCE and nonce bind it to the other attempt."""
    stolen = parse_qs(urlsplit(await at_the_callback(stand, Browser())).query)["code"][0]
    return await browser.get(with_query(await at_the_callback(stand, browser), code=stolen))


async def after_the_settings_changed(stand: Lobby, browser: Browser) -> Reply:
    url = await at_the_callback(stand, browser)
    identity = json.loads(json.dumps(stand.settings["identity"]))
    identity["providers"]["main"]["required_claims"] = {"hd": "example.org"}
    await stand.reload(identity=identity)
    return await browser.get(url)


async def too_late(stand: Lobby, browser: Browser) -> Reply:
    url = await at_the_callback(stand, browser)
    stand.house.people._attempts._held._clock = lambda: stand.idp.clock() + 10_000
    return await browser.get(url)


async def posted(stand: Lobby, browser: Browser) -> Reply:
    url = await at_the_callback(stand, browser)
    return await browser.post(
        stand.url("/oauth/callback"), dict(item.split("=") for item in urlsplit(url).query.split("&"))
    )


async def from_another_origin(stand: Lobby, browser: Browser) -> Reply:
    return await browser.get(await at_the_callback(stand, browser), ("Origin", "https://evil.example"))


async def fragment_of_state(stand: Lobby, browser: Browser) -> Reply:
    url = await at_the_callback(stand, browser)
    state = parse_qs(urlsplit(url).query)["state"][0]
    return await browser.get(with_query(url, state=state[:-1]))


RETURNS: dict[str, Visit] = {
    "no state": back_with(state=None),
    "an empty state": back_with(state=""),
    "an unknown state": back_with(state="A" * 43),
    "a part of the state": fragment_of_state,
    "a huge state": back_with(state="A" * 20_000),
    "a query without end": back_with(evil="A" * 40_000),
    "no code": back_with(code=None),
    "an empty code": back_with(code=""),
    "a made-up code": back_with(code="evil"),
    "a huge code": back_with(code="A" * 9_000),
    "a code with line breaks": back_with(code="a\r\nevil: 1"),
    "state twice": back_and("&state=" + "A" * 43),
    "code twice": back_and("&code=evil"),
    "iss twice": back_and("&iss=a&iss=b"),
    "an error and a code": back_with(error="access_denied"),
    "an error": back_with(code=None, error="access_denied", error_description=EVIL),
    "an unknown error": back_with(code=None, error=EVIL, error_description=EVIL, error_uri="https://evil.example"),
    "iss of somebody else": back_with(iss="https://evil.example"),
    "an empty iss": back_with(iss=""),
    "many parameters": back_and("&a" + "&a".join(f"{number}=1" for number in range(60))),
    "broken percent signs": back_and("&x=%ff%zz"),
    "a NUL": back_with(code="a\0b"),
    "without the cookie": without_the_cookie,
    "with a forged cookie": with_a_forged_cookie,
    "with a strange cookie": with_a_strange_cookie,
    "the code of another attempt": code_of_another,
    "after the settings changed": after_the_settings_changed,
    "too late": too_late,
    "as a POST": posted,
    "from a page of another origin": from_another_origin,
}  # fmt: skip


@pytest.mark.parametrize("visit", RETURNS.values(), ids=list(RETURNS))
async def test_the_way_back(tmp_path: Path, visit: Visit) -> None:
    async with lobby(tmp_path) as stand:
        browser = Browser()
        await refused(stand, browser, await visit(stand, browser))


async def test_the_state_of_another_browser(tmp_path: Path) -> None:
    """Login CSRF: the victim is to end up in the attacker's account."""
    async with lobby(tmp_path) as stand:
        attacker, victim = Browser(), Browser()
        url = await at_the_callback(stand, attacker)
        await at_the_callback(stand, victim)  # so it has a cookie of an attempt of its own
        is_refusal(await victim.get(url), 400)
        assert await stand.person(victim) is None
        assert (await attacker.get(url)).status == 303  # and the attempt was not spoilt


async def test_an_answer_works_once(tmp_path: Path) -> None:
    async with lobby(tmp_path) as stand:
        browser = Browser()
        url = await at_the_callback(stand, browser)
        assert (await browser.get(url)).status == 303
        stand.idp.codes.update(dict.fromkeys(parse_qs(urlsplit(url).query)["code"], stand.idp.asked[0]))
        is_refusal(await browser.get(url), 400)
        assert len(stand.idp.posted) == 1


async def test_an_id_token_of_an_earlier_attempt(tmp_path: Path) -> None:
    """Replay: the provider (or who sits there) sends the ID token of another sign-in."""
    async with lobby(tmp_path) as stand:
        real, seen = stand.idp.id_token, []

        def remember(nonce: str | None, access: str) -> str:
            seen.append(real(nonce, access))
            return seen[0]

        stand.idp.id_token = remember  # type: ignore[method-assign]
        stand.idp.changes = {"at_hash": None}
        await stand.sign_in()
        browser = Browser()
        is_refusal(await browser.go(stand.url()), 403)
        assert await stand.person(browser) is None


@pytest.mark.rule("OC-5", "OC-6")
@pytest.mark.parametrize("promised", [True, False])
async def test_mix_up(tmp_path: Path, promised: bool) -> None:
    """The person chose `other`, which is the attacker's, and it sent the browser on to `main`: the code of `main` must
    not go to `other`. Error texts that come with a wrong `iss` are anybody's.
    """
    async with lobby(tmp_path, two=True) as stand:
        for idp in (stand.idp, stand.other):
            idp.said = {"authorization_response_iss_parameter_supported": promised}
        for changes in ({}, {"code": None, "error": "access_denied", "error_description": EVIL}):
            browser = Browser()
            await browser.go(stand.url(provider="other"), until="/authorize")
            sent_on = browser.at.replace(stand.other.issuer, stand.idp.issuer)
            stand.idp.back = {"iss": stand.idp.issuer, **changes}
            reply = await browser.go(sent_on)
            await refused(stand, browser, reply, 403)
            assert b"cancelled" not in reply.body  # access_denied was not acted on
            assert not stand.other.posted and not stand.idp.posted


@pytest.mark.rule("OC-5")
async def test_iss_that_was_promised_and_is_missing(tmp_path: Path) -> None:
    async with lobby(tmp_path) as stand:
        stand.idp.said = {"authorization_response_iss_parameter_supported": True}
        browser = Browser()
        await refused(stand, browser, await browser.go(stand.url()), 403)
        assert not stand.idp.posted


async def test_a_provider_that_speaks_for_another(tmp_path: Path) -> None:
    """`other` signs, with its own key, a token that names `main` as its issuer."""
    async with lobby(tmp_path, two=True) as stand:
        stand.other.changes = {"iss": stand.idp.issuer, "sub": "alice"}
        browser = Browser()
        await refused(stand, browser, await browser.go(stand.url(provider="other")), 403)


async def test_the_same_name_at_two_providers_is_two_people(tmp_path: Path) -> None:
    async with lobby(tmp_path, two=True) as stand:
        stand.other.user = "alice"
        first = await stand.person(await stand.sign_in(provider="main"))
        second = await stand.person(await stand.sign_in(provider="other"))
        assert first.subject == second.subject and first.key != second.key and first.qualified != second.qualified

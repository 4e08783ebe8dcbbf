"""Attacks on who is signed in: fixation, made-up sessions, sign-out by others, what is shown and written."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.fuzz.messages import head
from tests.gateway.stand import Wire
from tests.identity.signin.attacks import EVIL, is_refusal
from tests.identity.signin.idp import Browser, lobby

pytestmark = pytest.mark.anyio


async def test_fixation(tmp_path: Path) -> None:
    """A session id that was planted before the sign-in is not that of the session."""
    async with lobby(tmp_path) as stand:
        attacker = Browser()
        stand.idp.user = "mallory"
        await stand.sign_in(attacker)
        name = f"callgate-{stand.port}"
        planted = attacker.cookies(stand.base)[name]
        for value in (planted, "A" * 43):
            stand.idp.user, victim = "alice", Browser()
            victim.cookies(stand.base)[name] = value
            await victim.go(stand.url(provider="main"))
            assert victim.cookies(stand.base)[name] != value
            assert (await stand.person(victim)).subject == "alice"
        assert await stand.person(attacker) is None


@pytest.mark.parametrize("blank", ["\xa0", "\x85", "\x1f", "\x0b"], ids=ascii)
async def test_a_cookie_whose_name_only_looks_like_ours(tmp_path: Path, blank: str) -> None:
    """Any host of the domain may set ``\\xa0__Host-callgate``; a reader that strips such blanks takes it for ours."""
    async with lobby(tmp_path) as stand:
        mallory = await stand.sign_in()
        name = f"callgate-{stand.port}"
        for cookie in (f"{blank}{name}", f"{name}{blank}", f"a=b;{blank}{name}", f"a=b; {blank} {name}"):
            line = f"{cookie}={mallory.cookies(stand.base)[name]}".encode("latin-1")
            async with Wire(*await asyncio.open_connection("127.0.0.1", stand.port)) as wire:
                wire.send(
                    b"GET /oauth/sign-in HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nCookie: %b\r\n\r\n" % (stand.port, line)
                )
                first = await wire.reader.readline()
            assert b" 303 " in first or b" 400 " in first, first


async def test_words_of_others_among_the_cookies_harm_nothing(tmp_path: Path) -> None:
    async with lobby(tmp_path) as stand:
        browser = await stand.sign_in()
        browser.cookies(stand.base)["name"] = "Zo\u00eb"
        assert (await browser.get(stand.url())).status == 200


@pytest.mark.parametrize("host", ["[::1", "[::1]x", "[::1]]", "127.0.0.1@evil", "127.1", "localhost."])
async def test_a_host_that_is_none(tmp_path: Path, host: str, caplog: pytest.LogCaptureFixture) -> None:
    async with lobby(tmp_path) as stand:
        for path in ("/oauth/sign-in", "/oauth/device"):
            assert (await stand.ask(head(f"GET {path} HTTP/1.1", [("Host", host)]))).status == 421
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    "value",
    ["", "A" * 43, "A" * 44, "A" * 42, "' OR 1=1 --", "../browser", "é" * 43, "\0" * 43, "*" * 43, "A" * 5000],
    ids=lambda value: ascii(value)[:20],
)
async def test_made_up_sessions(tmp_path: Path, value: str) -> None:
    async with lobby(tmp_path) as stand:
        cookies = {f"callgate-{stand.port}": value, "__Host-callgate": value, "callgate": value}
        assert await stand.house.people.person(cookies) is None


async def test_a_session_under_the_name_of_another_kind(tmp_path: Path) -> None:
    """What opens one thing opens no other: the cookie of an attempt, a state, the key of a person."""
    async with lobby(tmp_path) as stand:
        browser = await stand.sign_in()
        name, person = f"callgate-{stand.port}", await stand.person(browser)
        attempt = browser.cookies(stand.base)[f"callgate-sign-in-{stand.port}"]
        for value in (attempt, stand.idp.asked[0]["state"], stand.idp.asked[0]["nonce"], person.key[:43]):
            assert await stand.house.people.person({name: value}) is None


async def test_rows_of_sessions_cannot_be_exchanged(tmp_path: Path) -> None:
    """Somebody who writes to the database gives their session the content of another's."""

    async with lobby(tmp_path) as stand:
        alice = await stand.sign_in()
        stand.idp.user = "mallory"
        mallory = await stand.sign_in()
        with sqlite3.connect(stand.house.database.path) as database:
            rows = database.execute("SELECT id, owner, sealed FROM held WHERE kind = 'browser'").fetchall()
            owner = (await stand.person(alice)).key
            [sealed] = [row[2] for row in rows if row[1] == owner]
            database.execute("UPDATE held SET sealed = ? WHERE kind = 'browser' AND owner != ?", (sealed, owner))
        database.close()
        assert await stand.person(mallory) is None and (await stand.person(alice)).subject == "alice"


SIGN_OUTS: dict[str, tuple[dict[str, str], tuple[tuple[str, str], ...]]] = {
    "no token": ({}, ()),
    "an empty token": ({"token": ""}, ()),
    "a made-up token": ({"token": "0" * 64}, ()),
    "a token that is no ASCII": ({"token": "é"}, ()),
    "from a foreign page": ({}, (("Origin", "https://evil.example"),)),
    "from a page without origin": ({}, (("Origin", "null"),)),
    "as JSON": ({}, (("Content-Type", "application/json"),)),
}  # fmt: skip


@pytest.mark.parametrize(("form", "headers"), SIGN_OUTS.values(), ids=list(SIGN_OUTS))
async def test_sign_out_by_somebody_else(
    tmp_path: Path, form: dict[str, str], headers: tuple[tuple[str, str], ...]
) -> None:
    async with lobby(tmp_path) as stand:
        browser = await stand.sign_in()
        kind = (
            ()
            if headers and headers[0][0] == "Content-Type"
            else (("Content-Type", "application/x-www-form-urlencoded"),)
        )
        reply = await browser.get(
            stand.url("/oauth/sign-out"), *kind, *headers, method="POST", body=urlencode(form).encode() or b"a=b"
        )
        is_refusal(reply, 400, 403)
        assert await stand.person(browser) is not None


async def test_the_form_of_another_session(tmp_path: Path) -> None:
    async with lobby(tmp_path) as stand:
        victim, attacker = await stand.sign_in(), await stand.sign_in()
        token = stand.house.people.form_token(attacker.cookies(stand.base))
        is_refusal(await victim.post(stand.url("/oauth/sign-out"), {"token": token}), 403)
        assert await stand.person(victim) is not None
        assert not stand.house.people.is_genuine({}, "") and stand.house.people.form_token({}) == ""


async def test_sign_out_is_no_link(tmp_path: Path) -> None:
    async with lobby(tmp_path) as stand:
        browser = await stand.sign_in()
        assert (await browser.get(stand.url("/oauth/sign-out"))).status == 405
        assert await stand.person(browser) is not None


async def test_what_a_provider_says_of_people_is_escaped(tmp_path: Path) -> None:
    async with lobby(tmp_path) as stand:
        stand.idp.changes = {"name": EVIL + "\u202e", "sub": EVIL, "groups": [EVIL], "roles": ['"><img src=x>']}
        browser = await stand.sign_in()
        reply = await browser.get(stand.url())
        assert b"&lt;script&gt;" in reply.body and b"<script" not in reply.body and b"<img" not in reply.body
        assert "\u202e" not in reply.body.decode()


async def test_nothing_that_opens_anything_is_written_down(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with lobby(tmp_path) as stand:
        browser = await stand.sign_in()
        stand.idp.changes = {"nonce": "another"}
        await Browser().go(stand.url())
        form, headers = stand.idp.posted[0]
        secrets = [form["code"], form["code_verifier"], stand.idp.asked[0]["state"], stand.idp.asked[0]["nonce"]]
        secrets += [headers["authorization"].removeprefix("Basic "), "s3cret", *browser.cookies(stand.base).values()]
        await stand.records(2)
        written = json.dumps(stand.rows()) + caplog.text
        assert not [each for each in secrets if each in written]
        files = [each.read_bytes() for each in (tmp_path / "data").rglob("*") if each.is_file()]
        assert not [each for each in secrets if any(each.encode() in content for content in files)]

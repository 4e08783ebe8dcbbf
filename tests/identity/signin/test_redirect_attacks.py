"""Attacks on the way in: open redirects, broken queries, forged hosts."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from tests.identity.signin.attacks import EVIL, is_refusal, refused
from tests.identity.signin.idp import Browser, lobby

pytestmark = pytest.mark.anyio


BACKS = [
    "https://evil.example/", "http://evil.example", "//evil.example/", "///evil.example", "/\\evil.example",
    "\\\\evil.example", "/\t/evil.example", "\t//evil.example", " //evil.example", "/ /evil.example",
    "javascript:alert(1)", "data:text/html,evil", "evil.example", "@evil.example",
    "/%2fevil.example", "/%2Fevil.example", "/%5cevil.example",
    "/%252fevil.example", "/%09/evil.example", "/%0d%0aSet-Cookie:evil=1", "/a\r\nSet-Cookie: evil=1", "/./evil",
    "/.//evil.example", "/a/..//evil.example", "/%2e%2e//evil.example", "/;//evil.example", "/a//evil.example",
    "/\x00evil", "/évil", "/<script>evil", '/"onmouseover="evil', "?evil", "#evil", "/oauth/callback?state=evil",
    "/oauth/sign-out",
    "/oauth/sign-in?back=%2Fevil", "/" + "evil" * 3000, "/%ff%feevil", "http:/evil.example", "/#evil", "/|evil",
]  # fmt: skip


@pytest.mark.parametrize("back", BACKS, ids=[ascii(back)[:30] for back in BACKS])
async def test_open_redirects(tmp_path: Path, back: str) -> None:
    async with lobby(tmp_path, two=True) as stand:
        for more in ({}, {"provider": "main"}):
            reply = await Browser().get(stand.url(back=back, **more))
            is_refusal(reply, 400)
        browser = await stand.sign_in(provider="main")
        is_refusal(await browser.get(stand.url(back=back)), 400)


STARTS = {
    "back twice": "back=%2Fa&back=%2F%2Fevil",
    "an unknown provider": f"provider={quote(EVIL)}",
    "a provider with line breaks": "provider=main%0d%0aSet-Cookie:%20evil=1",
    "provider twice": "provider=main&provider=evil",
    "an unknown prompt": "provider=main&prompt=none",
    "a prompt with more in it": "provider=main&prompt=select_account%26client_id=evil",
    "no query at all": "&&&",
    "many parameters": "&".join(f"a{number}=1" for number in range(60)),
    "a huge query": "back=" + "a" * 40_000,
}  # fmt: skip


@pytest.mark.parametrize("query", STARTS.values(), ids=list(STARTS))
async def test_the_way_in(tmp_path: Path, query: str) -> None:
    async with lobby(tmp_path, two=True) as stand:
        browser = Browser()
        await refused(stand, browser, await browser.get(f"{stand.url()}?{query}"))
        assert not stand.idp.asked


async def test_headers_of_a_proxy_do_not_say_where_the_provider_answers(tmp_path: Path) -> None:
    async with lobby(tmp_path) as stand:
        more = (
            ("X-Forwarded-Host", "evil.example"),
            ("X-Forwarded-Proto", "https"),
            ("Forwarded", "host=evil.example"),
        )
        reply = await Browser().get(stand.url(), *more)
        assert "evil" not in reply.headers["location"]
        foreign = await Browser().get(f"http://evil.example:{stand.port}/oauth/sign-in", *more)
        assert foreign.status == 421


async def test_no_cookie_goes_over_the_net_in_the_clear(tmp_path: Path) -> None:
    """`public_url` is http and not on loopback: `callgate up` refuses that, and so do the pages."""
    async with lobby(tmp_path) as stand:
        stand.house.people._around = __import__("msgspec").structs.replace(
            stand.house.people._around, base=lambda: "http://mcp.example.org"
        )
        browser = Browser()
        await refused(stand, browser, await browser.get(stand.url()), 503)
        assert not stand.idp.asked

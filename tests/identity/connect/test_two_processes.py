"""Two gateways over one data directory, and one user whose tokens are refreshed while both are busy with them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.client.browser import form_of
from tests.fuzz.messages import dump, modern, routing
from tests.identity.signin.idp import Browser
from tests.processes import start_callgate
from tests.servers.authority import Authority

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


class Strict(Authority):
    """A refresh token that comes twice ends everything, as the security advice for issuers says (RFC 9700)."""

    reused = 0

    def _granted(self, form: dict[str, str], thumbprint: str) -> dict[str, Any]:
        if form.get("refresh_token") in self.used:
            self.reused += 1
            self.refreshing.clear()
            self.tokens.clear()
        return super()._granted(form, thumbprint)


@asynccontextmanager
async def two(folder: Path, authority: Authority, **auth: Any) -> AsyncIterator[list[str]]:
    """The roots of two gateways."""
    config = folder / "callgate.yaml"
    (folder / "data").mkdir()
    servers = {"notes": {"url": authority.url, "auth": {"type": "oauth", **auth}}}
    known = {"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0", "data_dir": "data", "watch": False}
    config.write_text(json.dumps({**known, "servers": servers}), "utf-8")
    both = [await asyncio.to_thread(start_callgate, config, folder / name) for name in ("one", "other")]
    try:
        yield [root for _, root in both]
    finally:
        for running, _ in both:
            await asyncio.to_thread(running.stop)
        for running, _ in both:
            assert "Traceback" not in running.written(), running.written()


async def connect(root: str, authority: Authority) -> None:
    browser, at = Browser(), f"{root}/oauth/connections"
    for button in ("connect", "go"):
        found = form_of((await browser.get(at)).body.decode())
        assert found is not None
        action, fields = found
        kept = {name: value for name, value in fields.items() if name not in ("no",)}
        gone = await browser.post(root + action, kept, ("Origin", root))
        assert gone.status == 303 and button in kept, gone
        at = gone.headers["location"] if button == "go" else root + gone.headers["location"]
    answer = "&".join(f"{name}={value}" for name, value in authority.browse(at).items())
    assert b"Connected to notes" in (await browser.get(f"{root}/oauth/connect/callback?{answer}")).body


async def call(root: str) -> bool:
    """Whether the server answered, and not the gateway with its page."""
    message = modern("tools/call", {"name": "notes__echo", "arguments": {}})
    headers = [*routing(message), ("Content-Type", "application/json"), ("Accept", "application/json")]
    reply = await Browser().get(f"{root}/mcp", *headers, method="POST", body=dump(message))
    return reply.status == 200 and b"oauth/connect" not in reply.body and b'"error"' not in reply.body


@pytest.mark.rule("SEC-6")
@pytest.mark.parametrize("dpop", [False, True])
async def test_of_two_processes_one_refreshes_at_a_time(tmp_path: Path, dpop: bool) -> None:
    authority = Strict(life=2)
    async with authority, two(tmp_path, authority, dpop=dpop) as roots:
        await connect(roots[0], authority)
        ends, answers = time.monotonic() + 9.0, []
        while time.monotonic() < ends:
            answers += await asyncio.gather(*(call(root) for root in roots * 4))
            await asyncio.sleep(0.02)
        refreshes = [form for form in authority.forms if form["grant_type"] == "refresh_token"]
        assert authority.reused == 0 and all(answers), (authority.reused, answers.count(False))
        assert 2 <= len(refreshes) <= 6


@pytest.mark.rule("SEC-6")
async def test_a_token_that_the_server_ends_is_replaced_once_for_both(tmp_path: Path) -> None:
    authority = Strict()
    async with authority, two(tmp_path, authority) as roots:
        await connect(roots[0], authority)
        assert all([await call(root) for root in roots])
        await asyncio.sleep(5.5)  # a younger token would not be replaced
        authority.revoke_all()
        assert all(await asyncio.gather(*(call(root) for root in roots * 4)))
        assert (len(authority.minted), authority.reused) == (4, 0)

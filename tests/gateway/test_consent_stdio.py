"""``callgate stdio`` and ``callgate call``: the way to a user's agreement from a client on pipes, and from a shell."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest

from tests.conformance.client.browser import form_of
from tests.fuzz.messages import initialize, modern, rpc
from tests.gateway.consenting import consenting
from tests.gateway.test_stdio import started
from tests.processes import environment, python
from tests.servers.authority import Authority

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
def anyio_backend() -> str:
    """The loop here is only the client's."""
    return "asyncio"


async def agree(url: str, authority: Authority) -> str:
    """What the user does with a browser; the text of the last page."""
    async with httpx2.AsyncClient() as browser:
        page = await browser.get(url)
        found = form_of(page.text)
        assert found is not None, page.text
        fields = {name: value for name, value in found[1].items() if name != "no"}
        gone = await browser.post(str(page.url), data=fields)
        assert gone.status_code == 303, gone.text
        answer = authority.browse(gone.headers["location"])
        back = url.partition("/oauth/connect/")[0] + "/oauth/connect/callback?" + urlencode(answer)
        return (await browser.get(back)).text


def servers(authority: Authority) -> dict[str, Any]:
    return {"notes": {"url": authority.url, "auth": {"type": "oauth"}}}


async def test_a_client_on_pipes_gets_pages_of_its_own_and_is_told(tmp_path: Path) -> None:
    async with Authority() as authority, started(tmp_path, servers=servers(authority)) as pipes:
        hello = initialize()
        hello["params"]["capabilities"] = {"elicitation": {"url": {}}}
        opened = await pipes.ask(hello)
        assert "`notes`" in opened["result"]["instructions"]
        error = (await pipes.ask(rpc("tools/call", {"name": "notes__echo", "arguments": {}}, 2)))["error"]
        assert error["code"] == -32042
        [asked] = error["data"]["elicitations"]
        assert "Connected to notes" in await agree(asked["url"], authority)
        told = [await pipes.next() for _ in range(2)]
        assert "notifications/elicitation/complete" in {each["method"] for each in told}
        pipes.send(rpc("tools/list", {}, 3))
        while (said := await pipes.next()).get("id") != 3:
            pass
        assert "notes__echo" in {tool["name"] for tool in said["result"]["tools"]}
        pipes.send(rpc("tools/call", {"name": "notes__echo", "arguments": {}}, 4))
        while (said := await pipes.next()).get("id") != 4:
            pass
        assert said["result"].get("isError") is None


async def test_its_pages_have_the_same_address_next_time_and_nothing_else_is_there(tmp_path: Path) -> None:
    async with Authority() as authority:
        urls = []
        for _ in range(2):
            async with started(tmp_path, servers=servers(authority)) as pipes:
                said = (await pipes.ask(modern("tools/call", {"name": "notes__echo", "arguments": {}})))["result"]
                urls.append(said["_meta"]["callgate/consent"]["url"].partition("/oauth")[0])
                async with httpx2.AsyncClient() as browser:
                    assert (await browser.post(urls[-1] + "/mcp", json=modern("tools/list"))).status_code == 404
                    rebound = await browser.get(urls[-1] + "/oauth/connections", headers={"host": "evil.example"})
                    assert rebound.status_code in (400, 403, 421)
        assert urls[0] == urls[1]


async def test_a_gateway_without_such_servers_opens_no_port_for_pipes(tmp_path: Path) -> None:
    async with started(tmp_path) as pipes:
        await pipes.ask(modern("tools/list"))
        assert not (tmp_path / "data" / "pages.port").exists()


async def test_callgate_call_says_where_to_go_and_ends_with_8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with consenting(tmp_path, monkeypatch) as stand:
        url = f"http://127.0.0.1:{stand.port}"
        command = python("-m", "callgate", "call", "u/hello", "--url", url, "-o", "json")
        process = await asyncio.create_subprocess_exec(
            *command, env=environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(30):
            out, err = await process.communicate()
        assert (process.returncode, out) == (8, b"")
        assert f"{url}/oauth/connect/" in err.decode() and "`u`" in err.decode()

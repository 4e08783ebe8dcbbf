"""`callgate login` in a terminal, with Chromium as the browser of whoever sits there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio import to_thread

from tests.cli.terminal import Shell
from tests.idp.browser import Browser, browser
from tests.idp.gatehouse import Gatehouse, gatehouse, signs_in
from tests.processes import start_fixture

pytestmark = [pytest.mark.anyio, pytest.mark.servers]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gatehouse]:
    folder = tmp_path_factory.mktemp("house")
    running, url = start_fixture(folder)
    with running, gatehouse(folder, {"web": {"url": url}}, {"scopes": {"use": "Use the tools"}}) as house:
        yield house


@pytest.fixture
def window() -> Iterator[Browser]:
    with browser() as window:
        yield window


@pytest.fixture
def shell(house: Gatehouse, tmp_path: Path) -> Shell:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    return Shell(home, house.base)


async def works_as_alice(shell: Shell, house: Gatehouse) -> None:
    """The other commands use the sign-in, until the logout."""
    who = json.loads((await shell.run("whoami", "-o", "json")).out)
    assert (who["subject"], who["issuer"], who["scopes"]) == ("alice", house.idp.issuer, ["use"])
    assert "test_simple_text" in (await shell.run("ls", "web")).out
    called = await shell.run("call", "web/test_simple_text")
    assert called.status == 0 and "simple text" in called.out
    record = house.records("tools/call")[-1]
    assert (record["subject"], [each["sub"] for each in record["chain"]]) == ("alice", ["client:callgate-cli"])
    assert (await shell.run("logout")).status == 0
    assert (await shell.run("whoami")).status == 8
    assert (await shell.run("call", "web/test_simple_text")).status == 8


async def test_with_a_browser_on_this_machine(shell: Shell, house: Gatehouse, window: Browser) -> None:
    async with shell.begun("login", "--no-browser") as command:
        url = (await command.says(r"(http://\S+/oauth/authorize\?\S+)"))[1]

        def person() -> str:
            window.open(url)
            signs_in(window)
            window.wait_for_text("Use the tools")
            window.click("button.main")
            window.wait_for_url("/callback?")
            return window.text

        page = await to_thread.run_sync(person)
        done = await command.ended()
    assert (done.status, "as alice" in done.err) == (0, True), done
    assert "close this page" in page
    await works_as_alice(shell, house)


async def test_with_a_browser_elsewhere(shell: Shell, house: Gatehouse, window: Browser) -> None:
    async with shell.begun("login", "--device") as command:
        url = (await command.says(r"(http://\S+/oauth/device\?\S+)"))[1]
        code = (await command.says(r"asks for it: (\S+)"))[1]

        def person() -> None:
            window.open(url)
            signs_in(window)
            window.wait_for_text("Is this exactly the code on your terminal?")
            window.click("button.main")
            asked = window.wait_for_text("Sign in this terminal?")
            assert code in asked and "Use the tools" in asked and "127.0.0.1" in asked
            window.click("button[value=approve]")
            window.wait_for_text("Go back to your terminal")

        await to_thread.run_sync(person)
        done = await command.ended()
    assert (done.status, "as alice" in done.err) == (0, True), done
    await works_as_alice(shell, house)


async def test_a_code_that_is_typed_and_refused(shell: Shell, house: Gatehouse, window: Browser) -> None:
    async with shell.begun("login", "--device") as command:
        code = (await command.says(r"asks for it: (\S+)"))[1]

        def person() -> None:
            window.open(f"{house.base}/oauth/device")
            signs_in(window)
            window.fill("#code", "BBBB-BBBB")
            window.click("button.main")
            window.wait_for_text("Nobody waits with this code")
            window.fill("#code", code.lower().replace("-", " "))
            window.click("button.main")
            window.wait_for_text("Sign in this terminal?")
            window.click("button[value=deny]")
            window.wait_for_text("The terminal gets nothing")

        await to_thread.run_sync(person)
        done = await command.ended()
    assert done.status == 5 and "refused" in done.err, done

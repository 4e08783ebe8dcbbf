"""`callgate login`, `logout` and `whoami` against a running gateway, with a browser that a test drives."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from callgate.identity.oauth import devices
from tests.cli.terminal import Command, Shell, mode
from tests.fuzz.raw import Reply
from tests.gateway.stand import Stand, keys
from tests.identity.oauth.booth import booth, someone
from tests.identity.signin.idp import Browser, Lobby
from tests.office import Done
from tests.processes import ROOT

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDP_SECRET", "s3cret: %+")


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Lobby]:
    async with booth(tmp_path) as stand:
        yield stand


@pytest.fixture
def shell(stand: Lobby, tmp_path: Path) -> Shell:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    return Shell(home, stand.base)


def fields(reply: Reply) -> dict[str, str]:
    """What the form of a page sends, without its buttons."""
    found = re.findall(r'<input[^>]* name="([^"]*)"[^>]* value="([^"]*)"', reply.body.decode())
    return {unescape(name): unescape(value) for name, value in found}


async def agree(stand: Lobby, url: str, decision: str = "allow", browser: Browser | None = None) -> Reply:
    """Open the address of an application, sign in, and answer the consent page."""
    browser = browser or Browser()
    page = await browser.go(url)
    if page.status == 200 and b"ticket" in page.body:
        form = fields(page)
        [action] = set(re.findall(r'action="([^"]*)"', page.body.decode()))
        answer = await browser.post(stand.base + unescape(action), {**form, "decision": decision})
        return await browser.go(answer.headers["location"])
    return page


async def address(command: Command) -> str:
    return (await command.says(r"(http://\S+/oauth/authorize\?\S+)"))[1]


async def signed_in(stand: Lobby, shell: Shell, *more: str) -> Done:
    async with shell.begun("login", "--no-browser", *more) as command:
        await agree(stand, await address(command))
        done = await command.ended()
    assert done.status == 0, done
    return done


def kept(shell: Shell) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shell.file.read_text())[shell.url]["signed_in"]
    return found


def age(shell: Shell, **changes: Any) -> None:
    """Change what is kept: by default the access token is about to end."""
    entries = json.loads(shell.file.read_text())
    entries[shell.url]["signed_in"] |= {"expires": time.time() + 5, **changes}
    shell.file.write_text(json.dumps(entries))


async def test_somebody_signs_in_and_calls(stand: Lobby, shell: Shell) -> None:
    before = await shell.run("call", "u/hello")
    assert before.status == 8 and "callgate login" in before.err
    done = await signed_in(stand, shell)
    assert f"You are signed in at {stand.base} as alice" in done.err and str(shell.file) in done.err
    assert mode(shell.file) == 0o600 and mode(shell.file.parent) == 0o700
    called = await shell.run("call", "u/hello")
    assert (called.status, called.out) == (0, "hello\n"), called
    record = [row for row in await stand.records() if row.get("tool") == "hello"][-1]
    assert record["subject"] == "alice" and [each["sub"] for each in record["chain"]] == ["client:callgate-cli"]


async def test_who_am_i(stand: Lobby, shell: Shell) -> None:
    assert (await shell.run("whoami")).status == 8
    await signed_in(stand, shell)
    done = await shell.run("whoami", "-o", "json")
    told = json.loads(done.out)
    assert (told["subject"], told["issuer"], told["client"]) == ("alice", stand.idp.issuer, "callgate-cli")
    assert (told["roles"], told["groups"], told["audience"]) == (["dev"], ["staff"], stand.base)
    assert told["through"] == ["client:callgate-cli"] and told["expires"].endswith("Z")
    rows = dict(row[:2] for row in (await shell.run("whoami")).rows)
    assert rows["subject"] == "alice" and rows["groups"] == "staff"


async def test_the_request_has_all_that_it_needs(stand: Lobby, shell: Shell) -> None:
    """State, PKCE S256, the resource, and a redirect to this machine's own address (RFC 8252)."""
    async with shell.begun("login", "--no-browser") as command:
        url = await address(command)
    query = dict(part.split("=", 1) for part in url.partition("?")[2].split("&"))
    assert query["client_id"] == "callgate-cli" and query["response_type"] == "code"
    assert query["code_challenge_method"] == "S256" and len(query["code_challenge"]) == 43
    assert len(query["state"]) >= 43 and query["resource"].endswith(str(stand.port))
    assert re.fullmatch(r"http%3A%2F%2F127\.0\.0\.1%3A\d+%2Fcallback", query["redirect_uri"])


async def test_a_token_that_ends_is_refreshed(stand: Lobby, shell: Shell) -> None:
    await signed_in(stand, shell)
    age(shell)
    before = kept(shell)
    assert (await shell.run("call", "u/hello")).status == 0
    after = kept(shell)
    assert after["access_token"] != before["access_token"] and after["refresh_token"] != before["refresh_token"]
    assert after["expires"] > time.time() + 60
    assert (await shell.run("call", "u/hello")).status == 0 and kept(shell) == after  # once is enough


async def test_commands_that_run_at_once_refresh_once(stand: Lobby, shell: Shell) -> None:
    """Rotation would take a second use of one refresh token for theft, and end the sign-in."""
    await signed_in(stand, shell)
    age(shell)
    done = await asyncio.gather(*(shell.run("call", "u/hello") for _ in range(4)))
    assert [each.status for each in done] == [0] * 4, done
    rows = [row for row in await stand.records() if row["method"] == "oauth/token"]
    assert len(rows) == 2  # the sign-in, and one refresh
    age(shell)
    assert (await shell.run("call", "u/hello")).status == 0


async def test_a_sign_in_that_has_ended_is_forgotten(stand: Lobby, shell: Shell) -> None:
    await signed_in(stand, shell)
    age(shell, refresh_token="cgr_stale")
    done = await shell.run("call", "u/hello")
    assert done.status == 8 and "not signed in" in done.err and "callgate login" in done.err
    assert json.loads(shell.file.read_text()) == {}


async def test_the_keyring_of_the_desktop_has_the_tokens(stand: Lobby, shell: Shell) -> None:
    (shell.home / "ring.py").write_text((ROOT / "tests" / "cli" / "ring.py").read_text())
    shell.env["PYTHON_KEYRING_BACKEND"] = "ring.Ring"
    done = await signed_in(stand, shell)
    assert "in the keyring" in done.err
    ring = shell.home / "ring.json"
    assert json.loads(shell.file.read_text()) == {shell.url: {"keyring": True}} and "cgr_" in ring.read_text()
    assert (await shell.run("call", "u/hello")).status == 0
    await shell.run("logout")
    assert "cgr_" not in ring.read_text() and (await shell.run("call", "u/hello")).status == 8


async def test_signing_out_ends_the_tokens(stand: Lobby, shell: Shell) -> None:
    await signed_in(stand, shell)
    token = kept(shell)
    assert "signed out" in (await shell.run("logout")).err
    assert json.loads(shell.file.read_text()) == {} and (await shell.run("whoami")).status == 8
    shell.env["CALLGATE_TOKEN"] = token["access_token"]
    assert (await shell.run("call", "u/hello")).status == 8
    done = await shell.run("logout")
    assert done.status == 0 and "not signed in" in done.err


async def test_signing_out_without_the_gateway_deletes_the_tokens(stand: Lobby, shell: Shell) -> None:
    await signed_in(stand, shell)
    await stand.gateway.aclose()
    done = await shell.run("logout", "--all")
    assert done.status == 0 and "could not be told" in done.err and json.loads(shell.file.read_text()) == {}
    await stand.start()


async def test_a_given_token_goes_before_the_sign_in(stand: Lobby, shell: Shell) -> None:
    await signed_in(stand, shell)
    wrong = await shell.run("call", "u/hello", "--token", "wrong")
    assert wrong.status == 8 and f"must be for {stand.base}/servers/u/mcp or the whole gateway" in wrong.err
    shell.env["CALLGATE_TOKEN"] = "wrong"
    assert (await shell.run("call", "u/hello")).status == 8


@pytest.mark.rule("OC-10")
async def test_more_scopes_are_asked_for_besides_those_that_are_there(tmp_path: Path) -> None:
    async with booth(tmp_path, required_scopes={"u/hello": ["write"]}) as stand:
        home = tmp_path / "home"
        home.mkdir(mode=0o700)
        shell = Shell(home, stand.base)
        await signed_in(stand, shell)
        assert kept(shell)["scope"] == "read"  # what the gateway says to begin with
        refused = await shell.run("call", "u/hello")
        assert refused.status == 5 and "callgate login --scope 'read write'" in refused.err
        await signed_in(stand, shell, "--scope", "write")
        assert kept(shell)["scope"] == "read write"
        assert (await shell.run("call", "u/hello")).status == 0


async def test_whoever_was_revoked_is_told_so(stand: Lobby, shell: Shell) -> None:
    await signed_in(stand, shell)
    stand.house.recogniser.revoke(stand.idp.issuer, "alice")
    for command in (("whoami",), ("call", "u/hello")):
        done = await shell.run(*command)
        assert done.status == 8 and "callgate login" in done.err, done


async def test_with_a_device_code(stand: Lobby, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "INTERVAL", 1.0)
    alice = await someone(stand)
    async with shell.begun("login") as command:  # there is no browser here
        code = (await command.says(r"\b([B-Z]{4}-[B-Z]{4})\n"))[1]
        assert f"{stand.base}/oauth/device?user_code={code}" in command.said
        await alice.decides(code)
        done = await command.ended()
    assert done.status == 0 and "as alice" in done.err
    assert (await shell.run("call", "u/hello")).status == 0


async def test_a_device_code_that_is_refused(stand: Lobby, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "INTERVAL", 1.0)
    alice = await someone(stand)
    async with shell.begun("login", "--device") as command:
        await alice.decides((await command.says(r"\b([B-Z]{4}-[B-Z]{4})\n"))[1], "deny")
        done = await command.ended()
    assert done.status == 5 and not shell.file.exists()


async def test_the_consent_is_refused(stand: Lobby, shell: Shell) -> None:
    async with shell.begun("login", "--no-browser") as command:
        page = await agree(stand, await address(command), "deny")
        done = await command.ended()
    assert b"not signed in" in page.body and done.status == 5 and not shell.file.exists()


async def test_a_browser_is_opened_where_there_is_one(stand: Lobby, shell: Shell) -> None:
    opened = shell.home / "opened"
    script = shell.home / "browser"
    script.write_text(f'#!/bin/sh\nprintf %s "$1" > {opened}.new && mv {opened}.new {opened}\n')
    script.chmod(0o755)
    shell.env["BROWSER"] = str(script)
    async with shell.begun("login") as command:
        url = await address(command)
        for _ in range(1000):
            if opened.exists():
                break
            await asyncio.sleep(0.01)
        assert opened.read_text() == url
        await agree(stand, url)
        assert (await command.ended()).status == 0


async def test_where_tokens_must_be_bound_it_says_that_it_cannot(tmp_path: Path) -> None:
    async with booth(tmp_path, dpop="required") as stand:
        home = tmp_path / "home"
        home.mkdir(mode=0o700)
        shell = Shell(home, stand.base)
        async with shell.begun("login", "--no-browser") as command:
            await agree(stand, await address(command))
            done = await command.ended()
        assert done.status == 2 and "bound to a key" in done.err and not shell.file.exists()


async def test_where_nobody_signs_in(tmp_path: Path) -> None:
    async with Stand(tmp_path, identity={"keys": keys("ann")}) as stand:
        home = tmp_path / "home"
        home.mkdir()
        shell = Shell(home, f"http://127.0.0.1:{stand.port}")
        done = await shell.run("login")
        assert done.status == 2 and "signs nobody in" in done.err
        done = await shell.run("call", "u/hello")
        assert done.status == 8 and "callgate login" not in done.err


async def test_nobody_signs_in_over_plain_http(tmp_path: Path) -> None:
    done = await Shell(tmp_path, "http://gateway.example").run("login")
    assert done.status == 2 and "plain http" in done.err


# Attacks


async def test_another_browser_window_cannot_answer_for_the_gateway(stand: Lobby, shell: Shell) -> None:
    """A page sends codes of its own to the port that it guessed; the right answer still counts."""
    async with shell.begun("login", "--no-browser") as command:
        url = await address(command)
        port = re.search(r"127\.0\.0\.1%3A(\d+)", url)[1]  # type: ignore[index]
        attacker = Browser()
        for query in (
            "code=mine",
            "code=mine&state=guess",
            f"code=mine&state=&iss={stand.base}",
            "error=access_denied",
        ):
            assert (await attacker.get(f"http://127.0.0.1:{port}/callback?{query}")).status == 400
        await agree(stand, url)
        assert (await command.ended()).status == 0


async def test_a_code_of_somebody_elses_sign_in_is_refused(stand: Lobby, shell: Shell) -> None:
    """Login CSRF: the code of another request, even with the right state, lacks the verifier."""
    async with shell.begun("login", "--no-browser") as other, shell.begun("login", "--no-browser") as command:
        theirs, ours = await address(other), await address(command)
        browser = Browser()
        page = await browser.go(theirs)
        [action] = set(re.findall(r'action="([^"]*)"', page.body.decode()))
        answer = await browser.post(stand.base + unescape(action), {**fields(page), "decision": "allow"})
        code = re.search(r"code=([^&]*)", answer.headers["location"])[1]  # type: ignore[index]
        state = re.search(r"state=([^&]*)", ours)[1]  # type: ignore[index]
        port = re.search(r"127\.0\.0\.1%3A(\d+)", ours)[1]  # type: ignore[index]
        await browser.get(f"http://127.0.0.1:{port}/callback?code={code}&state={state}&iss={stand.base}")
        assert (await command.ended()).status == 8 and not shell.file.exists()


async def test_a_token_never_goes_to_another_gateway(stand: Lobby, shell: Shell) -> None:
    await signed_in(stand, shell)
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 404 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    token = kept(shell)["access_token"].encode()
    for arguments in (
        ("call", "u/hello", "--url", f"http://127.0.0.1:{port}"),
        ("call", "u/hello", "--url", f"http://localhost:{port}"),
        ("whoami", "--url", f"http://127.0.0.1:{port}"),
        ("ls", "--admin-url", f"http://127.0.0.1:{port}"),
        ("logs", "--admin-url", f"http://127.0.0.1:{port}"),
        ("logout", "--url", f"http://127.0.0.1:{port}"),
    ):
        await shell.run(*arguments)
    server.close()
    await server.wait_closed()
    assert heard and not any(token in each or b"cgr_" in each for each in heard)


@pytest.mark.rule("OC-2")
@pytest.mark.parametrize(
    ("where", "changes"),
    [
        ("resource", {"resource": "https://mcp.example.org"}),
        ("resource", {"authorization_servers": ["https://evil.example"]}),
        ("server", {"issuer": "https://evil.example"}),
        ("server", {"token_endpoint": "https://evil.example/token"}),
        ("server", {"token_endpoint": "{base}.evil.example/token"}),
        ("server", {"authorization_endpoint": "https://evil.example/authorize"}),
        ("server", {"device_authorization_endpoint": "http://127.0.0.1:1/x"}),
        ("server", {"revocation_endpoint": "https://evil.example/revoke"}),
        ("server", {"code_challenge_methods_supported": ["plain"]}),
        ("server", {"token_endpoint": 5}),
    ],
)
async def test_metadata_that_leads_elsewhere_is_not_followed(
    stand: Lobby, shell: Shell, where: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a proxy in between, or another program on the port, would say it."""
    pages = {
        "/.well-known/oauth-protected-resource": (
            "resource",
            await _get(stand, "/.well-known/oauth-protected-resource"),
        ),
        "/.well-known/oauth-authorization-server": (
            "server",
            await _get(stand, "/.well-known/oauth-authorization-server"),
        ),
    }
    asked: list[str] = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
        asked.append(path)
        kind, document = pages.get(path, ("", {}))
        text = json.dumps(document).replace(stand.base, own)
        known = json.loads(text)
        if kind == where:
            known |= {k: v.format(base=own) if isinstance(v, str) else v for k, v in changes.items()}
        body = json.dumps(known).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body)
        writer.close()

    server = await asyncio.start_server(play, "127.0.0.1", 0)
    own = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    done = await Shell(shell.home, own).run("login", "--no-browser")
    server.close()
    await server.wait_closed()
    assert done.status in (2, 7, 8), done
    assert "/oauth/authorize?" not in done.err and "evil" not in done.err and not shell.file.exists()
    assert set(asked) <= set(pages)


async def _get(stand: Lobby, path: str) -> Any:
    return (await stand.ask(stand.page(path))).json


@pytest.mark.parametrize("where", ["https://evil.example/device", "{base}.evil.example/x", "", "javascript:alert(1)"])
async def test_nobody_is_sent_elsewhere_with_a_code(
    stand: Lobby, shell: Shell, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from callgate.cli import sign_in
    from callgate.cli.options import Where
    from callgate.cli.remote import Remote
    from callgate.errors import UpstreamError

    async def said(remote: Remote, url: str, form: Any) -> dict[str, Any]:
        return {"device_code": "x", "user_code": "BCDF-GHJK", "verification_uri": where.format(base=stand.base)}

    monkeypatch.setattr(sign_in, "_post", said)
    shown: list[str] = []
    async with Remote(Where(url=stand.base)) as remote:
        gateway = await sign_in.find(remote)
        with pytest.raises(UpstreamError, match="another place"):
            await sign_in.with_device(remote, gateway, "", lambda url, code: shown.append(url))
    assert not shown


async def test_a_file_that_others_can_read_is_not_used(stand: Lobby, shell: Shell) -> None:
    await signed_in(stand, shell)
    shell.file.chmod(0o644)
    done = await shell.run("call", "u/hello")
    assert done.status == 3 and "Others can read" in done.err
    assert kept(shell)["access_token"] not in done.err


async def test_no_token_is_ever_printed(stand: Lobby, shell: Shell) -> None:
    done = [await signed_in(stand, shell, "-o", "json"), await shell.run("whoami", "-o", "json")]
    secrets = [kept(shell)["access_token"], kept(shell)["refresh_token"]]
    done += [await shell.run("call", "u/hello", "-o", "json"), await shell.run("logout")]
    for each in done:
        assert not any(secret in each.out + each.err for secret in secrets)

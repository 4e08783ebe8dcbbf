"""Secrets on their way to servers: they arrive, they change, and nobody else ever sees them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import psutil
import pytest

from callgate.identity import Secrets
from callgate.store import open_database
from tests.fuzz.messages import head
from tests.fuzz.raw import Reply
from tests.gateway.stand import Stand, Wire, bearer, calling, keys, until
from tests.gateway.upstreams import Modern, http, serve
from tests.office import run
from tests.servers import connect_http, kubernetes_http
from tests.servers.mcp_http import error_of
from tests.servers.raw_http import Peer, RawServer, Request
from tests.servers.vault_http import CANARY as VAULT_CANARY
from tests.servers.vault_http import TOKEN, VaultServer
from tests.upstream.house import SCRIPT

pytestmark = pytest.mark.anyio
LEAKY = str(Path(__file__).parent.parent / "servers" / "leaky_stdio.py")
CANARY = 'canary-7d1b"ü\\9c0e'
HEADER = "Bearer canary-header-51aa"
OTHERS = ["canary-header-51aa", "canary-7d1b", VAULT_CANARY, TOKEN, "canary-file-77", "canary-cut-off"]


class Echo(Modern):
    """Repeats the credentials that it gets in its errors; ``closed`` at the door, and cut off in the middle."""

    def __init__(self, closed: bool = False) -> None:
        super().__init__()
        self.closed = closed

    async def __call__(self, request: Request, peer: Peer) -> None:
        if self.closed and request.message["method"] == "server/discover":
            said = "x" * 270 + " " + request.headers["authorization"]
            peer.json(error_of(request.message["id"], -32021, said, {"requiredCapabilities": {}}))
        else:
            await super().__call__(request, peer)

    async def call(self, request: Request, peer: Peer) -> None:
        if request.message["params"]["name"] == "hang":
            peer.body(json.dumps(request.headers).encode(), 401)
            return
        peer.json(
            error_of(request.message["id"], -32000, f"who is {request.headers['authorization']}?", request.headers)
        )


def store(stand: Stand, **values: str) -> None:
    secrets = Secrets(stand.read(), open_database(stand.folder / "data"), env={})
    for name, value in values.items():
        secrets.store.set(name.replace("_", "-"), value)


def leaky(*arguments: str, **env: str) -> dict[str, Any]:
    return {"command": sys.executable, "args": [LEAKY, *arguments], "env": {"LEAKY_SECRET": "secret:leaky", **env}}


def envious(value: str, **more: Any) -> dict[str, Any]:
    """A server whose tool tells its environment."""
    return {"command": sys.executable, "args": ["-S", SCRIPT], "isolation": "shared", "env": {"T": value}, **more}


async def admin(stand: Stand, path: str, who: str | None = None) -> Reply:
    place = urlsplit(stand.house.urls["admin"])
    async with Wire(*await asyncio.open_connection(place.hostname, place.port, limit=2**24)) as wire:
        wire.send(head(f"GET {path} HTTP/1.1", [("Host", place.netloc), *bearer(who)]))
        return await wire.reply()


def reason(stand: Stand, name: str) -> str:
    return next(each.reason for each in stand.house.statuses() if each.name == name)


def written(folder: Path) -> bytes:
    """Everything that lies in the data directory, with the names of the files."""
    return b"\n".join(str(path).encode() + path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def provoke(stand: Stand) -> list[bytes]:
    """Everything that callers and operators are told when everything goes wrong."""
    told = []
    client = await stand.legacy()
    for tool in ("leaky__fail", "echo__echo", "echo__hang", "closed__echo", "crash__fail", "leaky__die", "vaulted__x"):
        told.append((await stand.call(tool, {"a": 1})).body)
        told.append((await client.call(tool)).body)
    await stand.records()
    for page in ("status", "servers", "tools", "calls", "secrets", "openapi.json"):
        reply = await admin(stand, f"/api/v1/{page}")
        assert reply.status == 200, reply
        told.append(reply.body)
        for id in re.findall(r'"id":"(\w{13})"', reply.body.decode()):
            told += [(await admin(stand, f"/api/v1/calls/{id}{more}")).body for more in ("", "/why")]
    told += [(await admin(stand, "/metrics")).body]
    told += [(await stand.ask(stand.page(page))).body for page in ("/healthz", "/readyz")]
    return told


@pytest.mark.key("secrets.vault")
async def test_no_secret_is_anywhere_that_the_gateway_writes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "token.txt").write_text("canary-file-77\n")
    async with serve(Echo()) as echo, serve(Echo(closed=True)) as closed, RawServer(VaultServer()) as vault:
        vault_url = vault.url.removesuffix("/mcp")
        (tmp_path / "vault-token").write_text(TOKEN)
        stand = Stand(
            tmp_path,
            {
                "leaky": leaky(OTHER="file:token.txt"),
                "crash": leaky("crash", OTHER="vault:apps/docs#token"),
                "echo": http(echo, headers={"Authorization": "secret:header"}),
                "closed": http(closed, headers={"Authorization": "secret:cut"}),
                "vaulted": envious("vault:apps/none#token"),
            },
            secrets={"vault": {"url": vault_url, "token": "file:vault-token"}},
        )
        store(stand, leaky=CANARY, header=HEADER, cut="Bearer canary-cut-off-" + "z" * 40)
        async with stand:
            children = psutil.Process().children(recursive=True)
            arguments = [" ".join(child.cmdline()) for child in children]
            assert any("leaky_stdio" in each for each in arguments)
            told = await provoke(stand)
            assert b"********" in told[0]  # there was something to hide
            assert any(b"who is ********?" in each for each in told)
            assert reason(stand, "closed").endswith("x ********")  # cut off in the middle of the token
            assert "exited with status 1" in reason(stand, "crash")
            assert "vault has nothing there" in reason(stand, "vaulted")
        shown = await asyncio.to_thread(run, "config", "show", "-o", "json", folder=tmp_path)
        listed = await asyncio.to_thread(run, "secret", "ls", "-o", "json", folder=tmp_path)
    assert (shown.status, listed.status) == (0, 0), (shown, listed)
    everything = b"\n".join(
        [*told, written(tmp_path / "data"), caplog.text.encode(), *map(str.encode, arguments)]
        + [done.encode() for each in (shown, listed) for done in (each.out, each.err)]
    )
    assert b"starting with ********" in everything and b"dying with ********" in everything
    assert b"as JSON" in everything
    for canary in OTHERS:
        assert canary.encode() not in everything, canary
    assert re.search(rb"x{50}c", everything) is None


@pytest.mark.rule("SEC-7")
@pytest.mark.key("secrets.kubernetes", "secrets.onepassword")
async def test_values_of_other_stores_reach_their_servers_and_nobody_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name, token in (("sa", kubernetes_http.TOKEN), ("op", connect_http.TOKEN)):
        (tmp_path / name).write_text(token)
    async with (
        serve(Echo()) as echo,
        RawServer(kubernetes_http.KubernetesServer()) as cluster,
        RawServer(connect_http.ConnectServer()) as connect,
    ):
        api, url = (each.url.removesuffix("/mcp") for each in (cluster, connect))
        secrets = {
            "kubernetes": {"api": api, "token_file": "sa"},
            "onepassword": {"url": url, "token": "file:op"},
        }
        servers = {
            "pod": http(echo, headers={"Authorization": "k8s:team/docs/token"}),
            "one": http(echo, headers={"Authorization": "op://Team/Docs API/API token"}),
            "away": envious("k8s:team/none/token"),
            "desk": envious("keyring:callgate-tests/nobody"),
        }
        async with Stand(tmp_path, servers, secrets=secrets) as stand:
            told = [(await stand.call(f"{name}__echo", {"a": 1})).body for name in ("pod", "one")]
            assert all(b"who is ********?" in each for each in told), told
            assert "there is no such secret" in reason(stand, "away")
            assert "keyring" in reason(stand, "desk")
            told += [(await admin(stand, f"/api/v1/{page}")).body for page in ("servers", "calls", "secrets")]
        given = {each.headers.get("authorization") for each in echo.requests}
        assert {kubernetes_http.CANARY, connect_http.CANARY} <= given
    everything = b"\n".join([*told, written(tmp_path / "data"), caplog.text.encode()])
    for canary in (kubernetes_http.CANARY, kubernetes_http.TOKEN, connect_http.CANARY, connect_http.TOKEN):
        assert canary.encode() not in everything, canary


@pytest.mark.rule("SEC-3")
async def test_a_new_value_reaches_its_servers_without_a_restart_of_the_gateway(tmp_path: Path) -> None:
    stand = Stand(tmp_path, {"a": envious("secret:one"), "b": envious("secret:two"), "c": envious("plain")})
    store(stand, one="first value", two="other value")
    async with stand:

        async def seen(server: str) -> Any:
            return (await stand.result(f"{server}__env"))["env"]["T"]

        pids = {each.name: each.pids for each in stand.house.statuses()}
        assert [await seen(name) for name in "abc"] == ["first value", "other value", "plain"]
        running = asyncio.create_task(stand.call("a__sleep", {"seconds": 1.5}))
        await until(lambda: any(each.in_flight for each in stand.house.statuses()))
        await asyncio.to_thread(store, stand, one="second value")
        async with asyncio.timeout(10):
            while await seen("a") != "second value":
                await asyncio.sleep(0.05)
        assert (await running).json["result"]  # what ran when the value changed went on
        assert {each.name: each.pids for each in stand.house.statuses() if each.name != "a"} == {
            name: pids[name] for name in "bc"
        }


async def test_a_server_whose_secret_is_missing_fails_alone_and_comes_when_it_is_set(tmp_path: Path) -> None:
    stand = Stand(tmp_path, {"a": envious("secret:later"), "b": envious("plain")})
    async with stand:
        assert (await stand.call("b__env")).status == 200
        assert reason(stand, "a") == "needs the secret `later`, which is not set"
        await asyncio.to_thread(store, stand, later="here it is")
        await until(lambda: "a__env" in stand.house.view("").names)
        assert (await stand.result("a__env"))["env"]["T"] == "here it is"


async def test_a_vault_that_is_away_fails_its_server_only_until_it_is_back(tmp_path: Path) -> None:
    vault = RawServer(VaultServer())
    await vault.start(0)
    await vault.stop()
    (tmp_path / "vault-token").write_text(TOKEN)
    settings = {"vault": {"url": vault.url.removesuffix("/mcp"), "token": "file:vault-token"}}
    servers = {"a": envious("vault:apps/docs#token"), "b": envious("plain")}
    async with Stand(tmp_path, servers, secrets=settings) as stand:
        assert (await stand.call("b__env")).status == 200
        assert reason(stand, "a").startswith("needs `vault:apps/docs`, and the vault could not be reached")
        await vault.start(vault.port)
        await until(lambda: "a__env" in stand.house.view("").names)
        assert (await stand.result("a__env"))["env"]["T"] == VAULT_CANARY
        await vault.stop()


@pytest.mark.parametrize("value", ["a-token\r\nX-Evil: 1", "a-token\nX-Evil: 1", "a-token\rb", "a-token\x01"])
async def test_a_value_that_would_break_out_of_its_header_is_refused_and_not_shown(tmp_path: Path, value: str) -> None:
    async with serve(Modern()) as server:
        stand = Stand(tmp_path, {"s": http(server, headers={"Authorization": "secret:evil"})})
        store(stand, evil=value)
        async with stand:
            assert "`Authorization` cannot be sent" in reason(stand, "s")
            assert "a-token" not in reason(stand, "s")
        assert server.requests == []


async def test_a_damaged_store_fails_the_servers_that_need_it_and_no_other(tmp_path: Path) -> None:
    stand = Stand(tmp_path, {"a": envious("secret:one"), "b": envious("plain")})
    store(stand, one="some value")
    (tmp_path / "data" / "secrets.key").chmod(0o644)
    async with stand:
        assert "Others can read or write the key file" in reason(stand, "a")
        assert (await stand.ask(stand.request(calling("b__env")))).status == 200


async def test_the_admin_api_lists_names_and_users_for_readers_of_everything_only(tmp_path: Path) -> None:
    stand = Stand(tmp_path, {"a": envious("secret:one"), "b": envious("secret:one")})
    store(stand, one="some value", unused="another value")
    async with stand:
        listed = (await admin(stand, "/api/v1/secrets")).json["secrets"]
        assert [(each["name"], each["version"], each["used_by"]) for each in listed] == [
            ("one", 1, ["a", "b"]),
            ("unused", 1, []),
        ]
        assert all(set(each) == {"name", "version", "created", "updated", "used_by"} for each in listed)


@pytest.mark.parametrize(
    ("who", "roles", "status"), [("bob", ["dev"], 403), ("eve", ["auditor"], 200), (None, [], 401)]
)
async def test_who_does_not_read_everything_reads_no_names(
    tmp_path: Path, who: str | None, roles: list[str], status: int
) -> None:
    stand = Stand(tmp_path, identity={"keys": keys(who or "bob", roles=roles)})
    store(stand, one="some value")
    async with stand:
        reply = await admin(stand, "/api/v1/secrets", who)
        assert (reply.status, b"one" in reply.body) == (status, status == 200)


async def test_a_database_that_cannot_be_read_for_a_moment_is_looked_at_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The look for changes goes on, and nothing starts anew because of it."""
    caplog.set_level(logging.DEBUG)
    stand = Stand(tmp_path, {"a": envious("secret:one")})
    store(stand, one="some value")
    async with stand:
        pids = next(each.pids for each in stand.house.statuses())
        table = stand.house.database
        with contextlib.closing(table.writer()) as connection:
            connection.execute("ALTER TABLE secrets RENAME TO hidden")
            await until(lambda: "the secrets cannot be looked at" in caplog.text)
            connection.execute("ALTER TABLE hidden RENAME TO secrets")
        assert next(each.pids for each in stand.house.statuses()) == pids
        await asyncio.to_thread(store, stand, one="new value")
        async with asyncio.timeout(10):
            while (await stand.result("a__env"))["env"]["T"] != "new value":
                await asyncio.sleep(0.05)


class Note(msgspec.Struct, frozen=True):
    word: str


async def test_the_gateway_drops_what_was_held_and_has_expired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callgate.gateway.house.SWEEP_EVERY", 0.05)
    monkeypatch.setattr("callgate.identity.secrets.following.SWEEP_EVERY", 0.0)
    async with Stand(tmp_path) as stand:
        notes = stand.house.secrets.hold("note", Note)
        await notes.put("old", Note("a"), "ann", time.time() - 1)
        await notes.put("new", Note("b"), "ann", time.time() + 1000)

        def kept() -> int:
            with contextlib.closing(stand.house.database.reader()) as connection:
                return int(connection.execute("SELECT count(*) FROM held WHERE kind = 'note'").fetchone()[0])

        await until(lambda: kept() == 1)
        assert await notes.get("new") == Note("b")

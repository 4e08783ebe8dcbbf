"""What strangers, callers and operators are told: no secrets of servers, no words that pass for callgate's own."""

from __future__ import annotations

import asyncio
import io
import logging
import stat
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from callgate.cli.up import OneRecord
from callgate.errors import COMPARED, nearest
from callgate.gateway import StdioFront
from callgate.types import Principal
from tests.gateway.stand import Stand, allow, keys, refused, until
from tests.gateway.upstreams import Modern, Script, http, serve, text, tool
from tests.servers.raw_http import Peer, Request

pytestmark = pytest.mark.anyio

SECRET = "postgres://admin:hunter2@db"
DYING = {
    "command": sys.executable,
    "args": ["-S", "-c", f"import sys; sys.stderr.write('cannot open {SECRET}\\n'); sys.exit(3)"],
    "protocol": "legacy",
}


async def test_a_programs_last_words_are_for_operators_only(tmp_path: Path) -> None:
    """They may hold secrets; a caller is told that the server is not there, and an operator why."""
    identity = {"keys": keys("ann")}
    async with Stand(tmp_path, {"u": DYING}, identity=identity) as stand:
        await until(lambda: any(each.state == "failed" for each in stand.house.statuses()))
        assert SECRET in stand.house.statuses()[0].reason
        told = await stand.call("u__x", who="ann")
        assert "status 3" in told.json["error"]["message"]
        assert SECRET.encode() not in told.body
        ready = await stand.ask(stand.page("/readyz"))
        assert SECRET.encode() not in ready.body
        assert "status 3" in ready.json["servers"]["u"]["reason"]
        [record] = await stand.records(1)
        assert SECRET in record["reason"]
        admin = int(stand.gateway.admin_url.rpartition(":")[2])
        gateway, stand.port = stand.port, admin
        own = await stand.ask(stand.page(f"/api/v1/calls/{record['id']}", who="ann"))
        assert own.json["outcome"] == "failed"
        assert SECRET.encode() not in own.body
        stand.port = gateway


async def test_a_stranger_beside_known_callers_does_not_read_last_words_either(tmp_path: Path) -> None:
    identity = {"anonymous": True, "keys": keys("ann")}
    async with Stand(tmp_path, {"u": DYING}, identity=identity) as stand:
        await until(lambda: any("status 3" in each.reason for each in stand.house.statuses()))
        told = await stand.call("u__x")
        assert "status 3" in told.json["error"]["message"]
        assert SECRET.encode() not in told.body


@pytest.mark.parametrize("proxy", ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"])
async def test_whoever_comes_through_a_proxy_learns_nothing_of_servers_and_files(tmp_path: Path, proxy: str) -> None:
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        await stand.reload(policy={"rules": [{"id": "x", "alow": ["u/*"]}]})
        here = (await stand.ask(stand.page("/readyz"))).json
        assert here["problems"]
        assert here["servers"]
        far = await stand.ask(stand.page("/readyz", (proxy, "203.0.113.9")))
        assert far.json == {"ready": True}
        health = await stand.ask(stand.page("/healthz", (proxy, "203.0.113.9")))
        assert "admin" not in health.json
        assert str(tmp_path).encode() not in health.body


async def test_a_mistake_in_the_configuration_is_told_without_the_lines_of_the_file(tmp_path: Path) -> None:
    async with Stand(tmp_path) as stand:
        stand.file.write_text('{"servers": {"u": {"url": "https://x/", "headres": {"authorization": "hunter2"}}}}')
        await stand.gateway.reload()
        ready = await stand.ask(stand.page("/readyz"))
        assert "headres" in ready.json["problems"]["configuration"]
        assert b"hunter2" not in ready.body


@pytest.mark.rule("ERR-6")
@pytest.mark.parametrize("code", [-31403, -31428, -31401, -31499, -31503])
async def test_a_server_cannot_pass_its_error_for_a_verdict_of_the_policy(tmp_path: Path, code: int) -> None:
    script = Script(fails={"x": (code, {"kind": "denied"})})
    async with serve(Modern(script)) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        assert (await stand.call("u__x")).error == -32603
        assert (await (await stand.legacy()).call("u__x")).error == -32603


def test_a_line_of_the_log_holds_no_terminal_commands_and_no_forged_line() -> None:
    said = "exited; its last words: \x1b]0;owned\x07\x1b[2J\r\x9b31m\u202e\n10:00:00 INFO    callgate: all is well"
    record = logging.LogRecord("callgate", logging.WARNING, "", 0, "server %s failed: %s", ("u", said), None)
    line = OneRecord("%(levelname)s %(name)s: %(message)s").format(record)
    assert not {"\x1b", "\x07", "\r", "\x9b", "\u202e"} & set(line)
    assert [each[:2] for each in line.split("\n")] == ["WA", "  "]


def test_the_nearest_of_many_names_is_not_looked_for_everywhere() -> None:
    """Wrong names are free for clients; comparing 10,000 names took 0.2 s in which nobody else was served."""

    class Counted(str):
        compared = 0

        def __len__(self) -> int:
            Counted.compared += 1
            return super().__len__()

    names = [Counted(f"server__get_customer_{number:05d}") for number in range(5000)]
    assert nearest("server__get_customer_02500x", names) == "server__get_customer_02500"
    assert Counted.compared < 20 * COMPARED
    assert nearest("x" * 10_000_000, names) == ""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
async def test_what_servers_write_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    async with Stand(tmp_path, {"u": DYING}) as stand:
        await until(lambda: any(each.state == "failed" for each in stand.house.statuses()))
    log = tmp_path / "data" / "logs" / "u.log"
    assert SECRET in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


@pytest.mark.rule("RS-9")
async def test_over_stdio_a_token_that_has_expired_is_not_believed_any_longer(tmp_path: Path) -> None:
    issuer = "https://idp.example"
    jwt = [{"issuer": issuer, "audience": "callgate", "jwks_uri": f"{issuer}/jwks"}]
    async with Stand(tmp_path, identity={"jwt": jwt}) as stand:
        for expires, told in ((time.time() + 60, "result"), (time.time() - 1, "error")):
            who = Principal("ann", "k", issuer=issuer, via="jwt", expires=expires)
            out = io.BytesIO()
            begin = b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}\n'
            pipes: Any = (io.BytesIO(begin), out)
            await StdioFront(stand.house, who, "", pipes).serve()
            assert f'"{told}"'.encode() in out.getvalue()
        [record] = await stand.records(1)
        assert (record["subject"], record["outcome"]) == ("unauthenticated", "refused")


class Slow(Modern):
    """Lists its tools when the gate opens."""

    gate: asyncio.Event

    async def __call__(self, request: Request, peer: Peer) -> None:
        if request.message["method"] == "tools/list":
            await self.gate.wait()
        await super().__call__(request, peer)


async def test_another_server_under_an_old_name_is_not_judged_by_what_the_old_one_claimed(tmp_path: Path) -> None:
    """A call that comes between the change and the new server's list waits for that list."""
    honest = Modern(Script(), [tool("wipe", annotations={"readOnlyHint": True})])
    other = Slow(Script({"wipe": text("wiped")}))
    other.gate = asyncio.Event()
    policy = {"rules": [allow("u/*", when="tool.readOnly")]}
    async with (
        serve(honest) as one,
        serve(other) as two,
        Stand(tmp_path, {"u": http(one)}, policy=policy) as stand,
    ):
        assert await stand.tools() == ["u__wipe"]
        await stand.reload(servers={"u": http(two)})
        call = asyncio.create_task(stand.call("u__wipe"))
        await until(lambda: stand.house.places)
        other.gate.set()
        refused(await call, 200, -31403)
        assert other.script.called == []
        # A change that leaves the server the same one takes no tool out of the lists.
        before = stand.house.catalog.parts["u"]
        await stand.reload(servers={"u": {**http(two), "call_timeout": "7s"}})
        assert stand.house.catalog.parts["u"] is before


async def test_a_virtual_server_says_nothing_of_servers_that_are_not_part_of_it(tmp_path: Path) -> None:
    doors = {"v": {"tools": ["u/*"]}}
    async with serve(Modern()) as server, Stand(
        tmp_path, {"u": http(server), "hidden": DYING, }, virtual_servers=doors
    ) as stand:  # fmt: skip
        told = await stand.call("hidden__x", path="/mcp/v")
        assert told.error == -32602
        assert b"status 3" not in told.body


async def test_a_server_introduces_itself_only_to_who_may_see_something_of_it(tmp_path: Path) -> None:
    identity = {"keys": keys("ann", "bob")}
    policy = {"rules": [allow("u/*", to={"subjects": ["ann"]})]}
    async with serve(Modern()) as server, Stand(
        tmp_path, {"u": http(server)}, identity=identity, policy=policy
    ) as stand:  # fmt: skip
        for who, knows in (("ann", True), ("bob", False)):
            said = await stand.modern("server/discover", who=who, path="/servers/u/mcp")
            opened = (await stand.legacy(who=who, path="/servers/u/mcp")).opened
            assert ('"modern"' in said.body.decode()) == knows
            assert (opened["serverInfo"]["name"] == "modern") == knows
            assert ("instructions" in opened) == ("instructions" in said.json["result"]) == knows

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from callgate.config.model import Server
from callgate.upstream.eras import LEGACY_EXPIRES, Eras, fingerprint
from tests.servers.mcp_http import LegacyServer, ModernServer, error_of, serve
from tests.servers.raw_http import Peer, RawServer, Request
from tests.upstream.house import SCRIPT, House, stdio

pytestmark = pytest.mark.anyio


def verdicts(folder: Path) -> list[str]:
    file = folder / "state" / "eras.json"
    return [verdict["era"] for verdict in json.loads(file.read_text()).values()] if file.exists() else []


def age(folder: Path, seconds: float) -> None:
    file = folder / "state" / "eras.json"
    content = json.loads(file.read_text())
    for verdict in content.values():
        verdict["at"] -= seconds
    file.write_text(json.dumps(content))


def asked(server: RawServer, method: str) -> int:
    return sum(f'"{method}"'.encode() in request.body for request in server.requests)


@pytest.mark.rule("ERA-1", "ERA-4")
async def test_http_servers_are_asked_once(tmp_path: Path) -> None:
    async with serve(ModernServer()) as modern, serve(LegacyServer()) as legacy:
        config = {"modern": Server(url=modern.url), "legacy": Server(url=legacy.url)}
        for _ in range(2):
            async with House(tmp_path, **config) as house:
                assert {listing.server: listing.era for listing in house.listings} == {
                    "modern": "modern",
                    "legacy": "legacy",
                }
        assert asked(legacy, "server/discover") == 1
        assert asked(modern, "initialize") == 0
        assert sorted(verdicts(tmp_path)) == ["legacy", "modern"]


@pytest.mark.rule("ERA-1")
@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (400, b""),
        (404, b"not found"),
        (405, b""),
        (400, json.dumps(error_of("server-error", -32600, "Missing session ID")).encode()),
        (404, json.dumps(error_of(1, -32601)).encode()),
        (200, json.dumps(error_of(None, -32601)).encode()),
        (406, b"Not Acceptable"),
        (400, json.dumps(error_of(1, -32022, data={"supported": ["2025-06-18"]})).encode()),
    ],
)
async def test_answers_that_show_a_legacy_server(tmp_path: Path, status: int, answer: bytes) -> None:
    behaviour = LegacyServer()

    async def handle(request: Request, peer: Peer) -> None:
        if b"server/discover" in request.body:
            peer.body(answer.replace(b'"id": null', b'"id": %d' % request.message["id"]), status)
        else:
            await behaviour(request, peer)

    async with RawServer(handle) as server, House(tmp_path, s=Server(url=server.url)) as house:
        assert house.status("s").era == "legacy"
        assert verdicts(tmp_path) == ["legacy"]


@pytest.mark.rule("ERA-1")
@pytest.mark.parametrize("code", [-32020, -32021, -32022])
async def test_a_modern_error_is_never_followed_by_initialize(tmp_path: Path, code: int) -> None:
    async with serve(ModernServer(discover_error=code, discover_status=400)) as server:
        async with House(tmp_path, s=Server(url=server.url)) as house:
            assert "is modern but answered" in house.status("s").reason
        assert asked(server, "initialize") == 0
        assert verdicts(tmp_path) == []


@pytest.mark.rule("ERA-2")
@pytest.mark.parametrize("status", [401, 403, 429, 500, 502, 503])
async def test_a_status_of_the_moment_says_nothing_about_the_era(tmp_path: Path, status: int) -> None:
    async with serve(ModernServer(discover_status=status)) as server:
        async with House(tmp_path, s=Server(url=server.url)) as house:
            assert house.status("s").state == "failed"
            assert f"HTTP {status}" in house.status("s").reason
        assert asked(server, "initialize") == 0
        assert verdicts(tmp_path) == []


@pytest.mark.rule("ERA-2")
async def test_silence_says_nothing_about_the_era(tmp_path: Path) -> None:
    async def silent(request: Request, peer: Peer) -> None:
        await peer.closed()

    async with RawServer(silent) as server:
        async with House(tmp_path, s=Server(url=server.url, connect_timeout=0.1)) as house:
            assert house.status("s").state == "failed"
        assert asked(server, "initialize") == 0
        assert verdicts(tmp_path) == []


@pytest.mark.rule("ERA-4")
async def test_a_legacy_verdict_expires_and_an_upgrade_is_seen(tmp_path: Path) -> None:
    behaviours: dict[str, Any] = {"now": LegacyServer()}

    async def handle(request: Request, peer: Peer) -> None:
        await behaviours["now"](request, peer)

    async with RawServer(handle) as server:
        config = Server(url=server.url)
        async with House(tmp_path, s=config) as house:
            assert house.status("s").era == "legacy"
        behaviours["now"] = Both()
        async with House(tmp_path, s=config) as house:
            assert house.status("s").era == "legacy"
        age(tmp_path, LEGACY_EXPIRES + 1)
        async with House(tmp_path, s=config) as house:
            assert house.status("s").era == "modern"


class Both:
    """A server of both eras."""

    def __init__(self) -> None:
        self.modern, self.legacy = ModernServer(), LegacyServer()

    async def __call__(self, request: Request, peer: Peer) -> None:
        modern = "mcp-method" in request.headers
        await (self.modern if modern else self.legacy)(request, peer)


async def test_a_modern_server_that_was_downgraded_is_asked_again(tmp_path: Path) -> None:
    behaviours: dict[str, Any] = {"now": ModernServer()}

    async def handle(request: Request, peer: Peer) -> None:
        await behaviours["now"](request, peer)

    async with RawServer(handle) as server:
        async with House(tmp_path, s=Server(url=server.url)) as house:
            assert house.status("s").era == "modern"
        behaviours["now"] = LegacyServer()
        async with House(tmp_path, s=Server(url=server.url)) as house:
            assert house.status("s").era == "legacy"
        assert verdicts(tmp_path) == ["legacy"]


@pytest.mark.key("servers.protocol")
async def test_a_configured_era_is_not_questioned(tmp_path: Path) -> None:
    async with serve(LegacyServer()) as legacy:
        async with House(tmp_path, s=Server(url=legacy.url, protocol="legacy")):
            pass
        assert asked(legacy, "server/discover") == 0
        async with House(tmp_path, s=Server(url=legacy.url, protocol="modern")) as house:
            assert house.status("s").state == "failed"
        assert asked(legacy, "initialize") == 1
    assert verdicts(tmp_path) == []


@pytest.mark.rule("STDIO-3", "STDIO-6", "ERA-3")
@pytest.mark.parametrize(
    ("habits", "era"),
    [
        (("legacy",), "legacy"),
        (("modern",), "modern"),
        (("dual",), "modern"),
        (("dies-early",), "legacy"),
        (("garbage",), "legacy"),
        (("deaf",), "legacy"),
    ],
)
async def test_stdio_servers_are_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, habits: tuple[str, ...], era: str
) -> None:
    monkeypatch.setattr("callgate.upstream.stdio.GRACE", 0.2)
    async with House(tmp_path, s=stdio(*habits)) as house:
        assert house.status("s").state == "ready"
        assert house.status("s").era == era
        assert verdicts(tmp_path) == [era]
        assert (await house.call("s", "echo")).error is None


@pytest.mark.rule("STDIO-6")
async def test_the_process_that_serves_a_legacy_server_was_never_probed(tmp_path: Path) -> None:
    async with House(tmp_path, s=stdio()) as house:
        seen = [message["method"] for message in (await house.ask("s", "seen"))["seen"]]
        assert seen == ["initialize", "notifications/initialized", "tools/list", "tools/call"]


@pytest.mark.rule("ERA-4")
async def test_a_known_stdio_server_is_started_once(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    script = f"open({str(starts)!r}, 'a').write('x'); import sys; sys.argv[0:1] = [{SCRIPT!r}]; " + (
        f"exec(open({SCRIPT!r}).read())"
    )
    base = stdio()
    config = Server(command=base.command, args=("-S", "-c", script))
    async with House(tmp_path, s=config) as house:
        assert house.status("s").state == "ready"
    first = len(starts.read_text())
    async with House(tmp_path, s=config) as house:
        assert house.status("s").state == "ready"
    assert first == 2
    assert len(starts.read_text()) == 3


async def test_a_program_that_runs_only_once_is_started_after_its_probe(tmp_path: Path) -> None:
    async with House(tmp_path, s=stdio(f"single:{tmp_path}/lock")) as house:
        assert house.status("s").state == "ready"


async def test_verdicts_survive_a_broken_file(tmp_path: Path) -> None:
    file = tmp_path / "eras.json"
    file.write_text("{broken")
    eras = Eras(file)
    assert await eras.recall("x") is None
    await eras.remember("x", "modern")
    assert await Eras(file).recall("x") == "modern"
    await eras.remember("x", None)
    assert await Eras(file).recall("x") is None


async def test_the_fingerprint_follows_what_is_at_the_other_end() -> None:
    same = Server(command="a", args=("b",), call_timeout=1)
    assert fingerprint(same) == fingerprint(Server(command="a", args=("b",)))
    others = [Server(command="a"), Server(url="http://a/"), Server(command="a", args=("b",), env={"X": "1"})]
    assert len({fingerprint(server) for server in [same, *others]}) == 4

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec
import psutil
import pytest

from callgate.config.model import Server
from callgate.errors import Overloaded, UpstreamUnavailable
from callgate.types import Listing
from callgate.upstream import Upstreams
from tests.servers.mcp_http import LegacyServer, serve
from tests.upstream.house import House, stdio, until

pytestmark = pytest.mark.anyio


async def test_a_new_configuration_touches_only_what_changed(tmp_path: Path) -> None:
    stays, changes, goes = (stdio("legacy", name, protocol="legacy") for name in ("a", "b", "c"))
    async with House(tmp_path, stays=stays, changes=changes, goes=goes) as house:
        before = {name: house.status(name).pids for name in house.servers}
        changed = msgspec.structs.replace(changes, call_timeout=9.0)
        await house.upstreams.apply({"stays": stays, "changes": changed}, tmp_path)
        assert await house.upstreams.settled("changes", 5)
        assert house.status("stays").pids == before["stays"]
        assert house.status("changes").pids != before["changes"]
        await until(lambda: not any(psutil.pid_exists(pid) for pid in (*before["goes"], *before["changes"])))
        with pytest.raises(UpstreamUnavailable, match="`goes` is not configured"):
            await house.call("goes", "echo")
        assert [s.state for s in house.statuses if s.name == "goes"] == ["starting", "ready", "stopped"]


async def test_running_calls_of_a_removed_server_may_end(tmp_path: Path) -> None:
    async with House(tmp_path, s=stdio(protocol="legacy")) as house:
        call = asyncio.create_task(house.call("s", "sleep", {"seconds": 0.1}))
        await asyncio.sleep(0.02)
        await house.upstreams.apply({}, tmp_path)
        assert (await call).error is None


async def test_a_call_to_a_server_that_is_removed_while_it_starts(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        await house.upstreams.apply({"s": stdio("mute", protocol="legacy")}, tmp_path)
        call = asyncio.create_task(house.call("s", "echo"))
        await asyncio.sleep(0.02)
        await house.upstreams.apply({}, tmp_path)
        with pytest.raises(UpstreamUnavailable, match="is being removed"):
            await call


async def test_a_disabled_server_is_not_started(tmp_path: Path) -> None:
    config = stdio(protocol="legacy", disabled=True)
    async with House(tmp_path) as house:
        await house.upstreams.apply({"s": config}, tmp_path)
        assert house.status("s").state == "stopped"
        assert not await house.upstreams.settled("s", 0.05)
        await house.upstreams.apply({"s": msgspec.structs.replace(config, disabled=False)}, tmp_path)
        assert await house.upstreams.settled("s", 5)


async def test_apply_does_not_wait_for_anybody(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await house.upstreams.apply({"slow": stdio("mute"), "broken": Server(command="no-such-program")}, tmp_path)
        assert loop.time() - began < 1
        assert not await house.upstreams.settled("slow", 0.05)


@pytest.mark.key("servers.isolation", "servers.idle_timeout")
async def test_each_principal_has_a_process_of_its_own(tmp_path: Path) -> None:
    config = stdio(protocol="legacy", isolation="principal", idle_timeout=0.2)
    async with House(tmp_path, s=config) as house:
        pids = {}
        for who in ("alice", "bob"):
            first, *rest = [(await house.ask("s", "pid", principal=who))["pid"] for _ in range(3)]
            assert rest == [first, first]
            pids[who] = first
        shared = next(pid for pid in house.status("s").pids if pid not in pids.values())
        assert len({shared, *pids.values()}) == 3
        assert {shared} <= set(house.status("s").pids) <= {shared, *pids.values()}  # one may be idle for long already
        await until(lambda: house.status("s").pids == (shared,))
        assert (await house.ask("s", "pid", principal="alice"))["pid"] not in pids.values()


async def test_simultaneous_first_calls_start_one_process(tmp_path: Path) -> None:
    async with House(tmp_path, s=stdio(protocol="legacy", isolation="principal")) as house:
        found = await asyncio.gather(*(house.ask("s", "pid") for _ in range(10)))
        assert len({result["pid"] for result in found}) == 1


async def test_the_number_of_own_processes_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callgate.upstream.isolation.MAX_LINKS", 2)
    config = stdio(protocol="legacy", isolation="principal", call_timeout=2)
    async with House(tmp_path, s=config) as house:
        oldest = (await house.ask("s", "pid", principal="a"))["pid"]
        busy = asyncio.create_task(house.call("s", "hang", principal="b"))
        await until(lambda: len(house.status("s").pids) == 3)
        await house.ask("s", "pid", principal="c")  # takes the place of the idle one
        assert oldest not in house.status("s").pids
        also_busy = asyncio.create_task(house.call("s", "hang", principal="c"))
        await asyncio.sleep(0.02)
        with pytest.raises(Overloaded, match="2 callers already have"):
            await house.call("s", "echo", principal="d")
        for call in (busy, also_busy):
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call


async def test_a_principals_dead_process_is_replaced(tmp_path: Path) -> None:
    async with House(tmp_path, s=stdio(protocol="legacy", isolation="principal")) as house:
        first = (await house.ask("s", "pid"))["pid"]
        psutil.Process(first).kill()
        await until(lambda: first not in house.status("s").pids)
        assert (await house.ask("s", "pid"))["pid"] != first
        assert house.status("s").state == "ready"


async def test_each_principal_has_a_session_of_its_own(tmp_path: Path) -> None:
    behaviour = LegacyServer()
    async with serve(behaviour) as server:
        config = Server(url=server.url, protocol="legacy", isolation="principal")
        async with House(tmp_path, s=config) as house:
            for who in ("alice", "bob", "alice"):
                await house.ask("s", "echo", principal=who)
    assert sum(request.method == "GET" for request in server.requests) <= 1  # only the shared session listens
    calls = [r.headers["mcp-session-id"] for r in server.requests if b"tools/call" in r.body]
    assert calls[0] == calls[2]
    assert len(set(calls)) == 2
    assert sorted(behaviour.deleted) == sorted(behaviour.sessions)


async def unresolved(reference: str, fresh: bool) -> str:
    return reference


async def test_a_mistake_in_a_listener_does_not_end_the_supervision(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(listing: Listing) -> None:
        raise ValueError("a mistake")

    upstreams = Upstreams(
        on_listing=broken,
        on_status=lambda status: None,
        state_dir=tmp_path,
        resolve_secret=unresolved,
        client_info={"name": "callgate"},
    )
    await upstreams.apply({"s": stdio(protocol="legacy")}, tmp_path)
    assert not await upstreams.settled("s", 5)
    assert upstreams.statuses()[0].state == "failed"
    assert "a mistake" in caplog.text
    await upstreams.aclose()


async def test_a_program_that_is_not_wanted_before_it_runs_is_not_left_behind(tmp_path: Path) -> None:
    """A start that is cancelled at any moment ends the process that it began."""
    mark = f"unwanted-{tmp_path.name}"
    config = Server(command=sys.executable, args=("-c", "import sys; sys.stdin.read()", mark))
    for moment in range(12):
        async with House(tmp_path) as house:
            await house.upstreams.apply({"s": config}, tmp_path)
            await asyncio.sleep(moment / 500)
    await until(lambda: not [p for p in psutil.process_iter(["cmdline"]) if mark in (p.info["cmdline"] or [])])

"""Servers that hang, die or never start: what is theirs suffers, nothing else does."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.stand import Stand, allow, keys, refused, until
from tests.gateway.upstreams import Hung, Modern, Script, http, serve, text, waiting
from tests.upstream.house import SCRIPT

pytestmark = pytest.mark.anyio


def stdio(*habits: str, **more: Any) -> dict[str, Any]:
    return {"command": sys.executable, "args": ["-S", SCRIPT, *habits], "isolation": "shared", **more}


def state(stand: Stand, name: str) -> str:
    return next(each.state for each in stand.house.statuses() if each.name == name)


async def test_one_of_five_hangs_and_the_other_four_answer(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d"]
    async with serve(Hung()) as hung, serve(Modern()) as good:
        servers = {name: http(good) for name in names[:2]} | {"hung": http(hung, "auto")}
        stand = Stand(tmp_path, servers | {name: http(good) for name in names[2:]})
        await stand.start(warm=0)
        async with asyncio.timeout(5), stand_closing(stand):
            await until(lambda: set(stand.house.catalog.unlisted()) == {"hung"})
            await stand.house.catalog.idle()
            stuck = asyncio.create_task(stand.call("hung__tool"))
            for name in names:
                assert (await stand.call(f"{name}__echo")).status == 200
            assert len(await stand.tools()) == 4 * 6
            assert (await stand.modern("server/discover")).status == 200
            assert (await stand.legacy()).opened["capabilities"]["tools"] == {"listChanged": True}
            assert await stand.tools(path="/servers/hung/mcp") == []
            ready = (await stand.ask(stand.page("/readyz"))).json
            assert ready["servers"]["hung"]["state"] == "starting"
            assert not stuck.done()
            stuck.cancel()
            await asyncio.gather(stuck, return_exceptions=True)


class stand_closing:
    """Close a stand that was started by hand."""

    def __init__(self, stand: Stand) -> None:
        self.stand = stand

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        await self.stand.gateway.aclose()


async def test_a_server_that_hangs_only_on_calls_holds_nobody_up(tmp_path: Path) -> None:
    gate = asyncio.Event()
    script = Script(acts={"slow": waiting(gate)})
    async with serve(Modern(script)) as slow, serve(Modern()) as good:
        servers = {"slow": http(slow, max_concurrency=2, max_queue=1), "good": http(good)}
        async with Stand(tmp_path, servers) as stand:
            stuck = [asyncio.create_task(stand.call("slow__slow")) for _ in range(3)]
            await until(lambda: len(script.called) == 2)
            await until(lambda: len(stand.house.upstreams._servers["slow"]._bulkhead._waiting) == 1)
            assert "busy" in refused(await stand.call("slow__slow"), 200, -31429).json["error"]["message"]
            assert (await stand.call("good__echo")).status == 200
            gate.set()
            assert [(await each).status for each in stuck] == [200] * 3


async def test_a_call_waits_for_its_own_server_while_that_starts(tmp_path: Path) -> None:
    """And for no other: one hangs for ever beside it."""
    opened = asyncio.Event()

    class Slow(Modern):
        async def __call__(self, request: Any, peer: Any) -> None:
            if request.message["method"] == "server/discover":
                await opened.wait()
            await super().__call__(request, peer)

    async with serve(Hung()) as hung, serve(Slow(Script({"hi": text("hi")}))) as slow:
        stand = Stand(tmp_path, {"hung": http(hung), "slow": http(slow)})
        await stand.start(warm=0)
        async with asyncio.timeout(5), stand_closing(stand):
            early = [asyncio.create_task(stand.call("slow__hi")) for _ in range(3)]
            own = asyncio.create_task(stand.call("hi", path="/servers/slow/mcp"))
            unknown = await stand.call("nobody__hi")
            refused(unknown, 400, -32602)
            assert not any(each.done() for each in early)
            opened.set()
            for each in (*early, own):
                assert (await each).json["result"]["content"][0]["text"] == "hi"


@pytest.mark.key("servers.connect_timeout")
async def test_a_server_that_never_started_is_named_with_the_reason(tmp_path: Path) -> None:
    servers = {"gone": {"command": "/nowhere/to/be/found"}, "hung": {}}
    async with serve(Hung()) as hung:
        servers["hung"] = http(hung, connect_timeout=0.2)
        async with Stand(tmp_path, servers) as stand:
            session = await stand.legacy()
            for name in servers:
                reply = refused(await stand.call(f"{name}__x"), 200, -31503)
                assert f"Server `{name}` is not available: " in reply.json["error"]["message"]
                assert (await session.call(f"{name}__x")).error == -31503
                assert (await session.ask("ping")).status == 200
            records = await stand.records(4)
            assert {(each["server"], each["tool"], each["outcome"]) for each in records} == {
                (name, "x", "failed") for name in servers
            }
            assert (await stand.ask(stand.page("/readyz"))).json["servers"]["gone"]["reason"]


@pytest.mark.rule("POL-10")
async def test_whoever_may_use_nothing_of_a_server_learns_nothing_of_it(tmp_path: Path) -> None:
    policy = {"rules": [allow("gone/*", to={"subjects": ["ann"]})]}
    servers = {"gone": {"command": "/nowhere/to/be/found"}}
    async with Stand(tmp_path, servers, identity={"keys": keys("ann", "bob")}, policy=policy) as stand:
        refused(await stand.call("gone__x", who="ann"), 200, -31503)
        seen = refused(await stand.call("gone__x", who="bob"), 400, -32602).json["error"]
        other = refused(await stand.call("none__x", who="bob"), 400, -32602).json["error"]
        assert seen["message"].replace("gone", "none") == other["message"]


async def test_a_dead_server_takes_its_own_tools_with_it_and_brings_them_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callgate.gateway.house.WITHDRAW_AFTER", 0.05)
    single = tmp_path / "blocked"
    async with serve(Modern()) as good:
        servers = {"pipe": stdio(f"single:{single}"), "good": http(good)}
        async with Stand(tmp_path, servers) as stand:
            session = await stand.legacy()
            stream = await session.listen()
            assert "pipe__echo" in await stand.tools()
            died = refused(await stand.call("pipe__die"), 200, -31502)
            assert "Server `pipe`" in died.json["error"]["message"]
            single.write_text("nobody may start")
            await until(lambda: not any(tool.server == "pipe" for tool in stand.house.catalog.tools()))
            assert (await stream.event())["method"] == "notifications/tools/list_changed"
            assert {name.partition("__")[0] for name in await stand.tools()} == {"good"}
            gone = refused(await stand.call("pipe__echo"), 200)
            assert gone.error in (-31502, -31503)
            assert "Server `pipe` is not available: " in gone.json["error"]["message"]
            assert (await stand.call("good__echo")).status == 200
            single.unlink()

            async def back() -> bool:
                return (await stand.call("pipe__echo")).error is None

            async with asyncio.timeout(15):
                while not await back():
                    await asyncio.sleep(0.05)
            await until(lambda: any(tool.server == "pipe" for tool in stand.house.catalog.tools()))
            assert "pipe__echo" in await stand.tools()
            await stream.close()


async def test_a_server_that_is_back_in_time_never_leaves_the_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callgate.gateway.house.WITHDRAW_AFTER", 30.0)
    async with Stand(tmp_path, {"pipe": stdio()}) as stand:
        refused(await stand.call("pipe__die"), 200, -31502)
        await until(lambda: state(stand, "pipe") == "failed")
        assert "pipe__echo" in await stand.tools()
        assert stand.house._withdrawals.keys() == {"pipe"}
        await until(lambda: state(stand, "pipe") == "ready")
        assert not stand.house._withdrawals
        assert "pipe__echo" in await stand.tools()


async def test_a_timer_of_a_server_that_was_replaced_withdraws_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callgate.gateway.house.WITHDRAW_AFTER", 0.2)
    async with serve(Modern()) as good, Stand(tmp_path, {"x": {"command": "/nowhere/to/be/found"}}) as stand:
        await until(lambda: "x" in stand.house._withdrawals)
        await stand.reload(servers={"x": http(good)})
        await until(lambda: "x__echo" in stand.house.catalog.views[""].names)
        assert not stand.house._withdrawals
        # The old failure comes in late.
        stand.house._status(next(each for each in stand.house.statuses()).__class__("x", "failed", "stdio"))
        await until(lambda: not stand.house._withdrawals)
        assert "x__echo" in await stand.tools()
        await stand.reload(servers={})
        await stand.reload(servers={"x": {"command": "/nowhere/to/be/found"}})
        await until(lambda: "x" in stand.house._withdrawals)


async def test_lists_of_an_earlier_run_are_there_before_any_server_is(tmp_path: Path) -> None:
    async with serve(Modern()) as good:
        async with Stand(tmp_path, {"x": http(good)}) as before:
            known = await before.tools()
            await until(lambda: len(before.house.listings.load_all()) == 1)
        good.handler = Hung()
        again = Stand(tmp_path, {"x": http(good)})
        await again.start(warm=0)
        async with asyncio.timeout(5), stand_closing(again):
            assert await again.tools() == known
            changed = Stand(tmp_path, {"x": http(good, call_timeout=5)})
        await changed.start(warm=0)
        async with asyncio.timeout(5), stand_closing(changed):
            assert await changed.tools() == []  # what was listed under other settings says nothing now


@pytest.mark.key("servers.call_timeout")
async def test_a_call_that_takes_too_long_is_told_and_recorded(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with (
        serve(Modern(Script(acts={"slow": waiting(gate)}))) as server,
        Stand(tmp_path, {"u": http(server, call_timeout=0.1)}) as stand,
    ):
        reply = refused(await stand.call("u__slow"), 200, -31504)
        [record] = await stand.records(1)
        assert (record["outcome"], record["id"]) == ("timeout", reply.json["error"]["data"]["callId"])
        gate.set()


async def test_a_list_that_breaks_the_compiler_takes_no_other_list_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from callgate.catalog import parts

    real = parts.compile_part

    def broken(listing: Any, *more: Any) -> Any:
        if listing.server == "bad":
            raise RecursionError
        return real(listing, *more)

    monkeypatch.setattr("callgate.catalog.catalog.compile_part", broken)
    async with serve(Modern()) as good, Stand(tmp_path, {"bad": http(good), "good": http(good)}) as stand:
        assert {name.partition("__")[0] for name in await stand.tools()} == {"good"}
        assert "the list of server bad cannot be used" in caplog.text

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from callgate.config.model import Server
from callgate.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable
from tests.upstream.house import House, stdio, until

pytestmark = pytest.mark.anyio


async def test_calls_share_one_process_and_find_their_answers(tmp_path: Path) -> None:
    async with House(tmp_path, s=stdio(protocol="legacy")) as house:
        results = await asyncio.gather(*(house.ask("s", "echo", {"n": n}) for n in range(50)))
        assert [result["params"]["arguments"]["n"] for result in results] == list(range(50))
        pids = {(await house.ask("s", "pid"))["pid"] for _ in range(3)}
        assert pids == set(house.status("s").pids)
        assert len(pids) == 1


@pytest.mark.rule("STDIO-1")
async def test_a_message_is_one_line_whatever_is_in_it(tmp_path: Path) -> None:
    text = "two\nlines\r\n\u2028 and \x00 more é"
    async with House(tmp_path, s=stdio(protocol="modern")) as house:
        assert house.status("s").state == "failed"
    async with House(tmp_path, s=stdio("modern")) as house:
        result = await house.ask("s", "echo", {text: text}, meta={"org.example/note": text})
        assert result["params"]["arguments"] == {text: text}
        assert result["params"]["_meta"]["org.example/note"] == text


@pytest.mark.rule("STDIO-1")
async def test_a_modern_server_gets_no_responses(tmp_path: Path) -> None:
    async with House(tmp_path, s=stdio("modern")) as house:
        await house.ask("s", "ask")
        seen = (await house.ask("s", "seen"))["seen"]
        assert all("method" in message for message in seen)
        meta = seen[-1]["params"]["_meta"]
        assert meta["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"


async def test_a_legacy_server_gets_answers_to_its_requests(tmp_path: Path) -> None:
    async with House(tmp_path, s=stdio()) as house:
        await house.ask("s", "ask")
        seen = (await house.ask("s", "seen"))["seen"]
        said = {message["id"]: message for message in seen if "method" not in message}
        assert said["q1"]["error"]["code"] == -32601
        assert said[5]["result"] == {}


@pytest.mark.rule("STDIO-2")
async def test_giving_up_tells_the_server(tmp_path: Path) -> None:
    async with House(tmp_path, s=stdio(call_timeout=0.15)) as house:
        with pytest.raises(UpstreamTimeout, match="Server `s` did not answer in time"):
            await house.call("s", "hang")
        call = asyncio.create_task(house.call("s", "hang"))
        await asyncio.sleep(0.02)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        seen = (await house.ask("s", "seen"))["seen"]
        hung = [m["id"] for m in seen if m.get("params", {}).get("name") == "hang"]
        cancelled = [m["params"]["requestId"] for m in seen if m["method"] == "notifications/cancelled"]
        assert cancelled == hung
        assert len(hung) == 2


@pytest.mark.rule("STDIO-5")
async def test_a_process_that_dies_fails_its_calls_and_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callgate.upstream.server.BACKOFF", (0.02, 0.02))
    async with House(tmp_path, s=stdio()) as house:
        hung = asyncio.create_task(house.call("s", "hang"))
        await asyncio.sleep(0.02)
        with pytest.raises(UpstreamError, match=r"exited with status 7; its last words: .*about to die"):
            await house.call("s", "die", {"status": 7})
        with pytest.raises(UpstreamError, match="exited with status 7"):
            await hung
        await until(lambda: house.status("s").state == "ready" and house.status("s").restarts == 1)
        assert (await house.call("s", "echo")).error is None
        states = [status.state for status in house.statuses]
        assert states == ["starting", "ready", "failed", "ready"]


async def test_death_by_signal_is_named(tmp_path: Path) -> None:
    async with House(tmp_path, s=stdio()) as house:
        call = asyncio.create_task(house.call("s", "hang"))
        await asyncio.sleep(0.02)
        os.kill(house.status("s").pids[0], 9)
        with pytest.raises(UpstreamError, match="ended by SIGKILL"):
            await call


@pytest.mark.rule("STDIO-4")
async def test_closing_stdin_is_enough_for_a_good_server(tmp_path: Path) -> None:
    async with House(tmp_path, s=stdio()) as house:
        pid = house.status("s").pids[0]
        began = asyncio.get_running_loop().time()
    assert not psutil.pid_exists(pid)
    assert asyncio.get_running_loop().time() - began < 1.9


@pytest.mark.rule("STDIO-4")
async def test_a_stubborn_server_is_killed_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callgate.upstream.child.PATIENCE", 0.1)
    config = stdio("stubborn", protocol="legacy")
    wrapped = f"import subprocess, sys; sys.exit(subprocess.call([{config.command!r}, *{list(config.args)!r}]))"
    config = Server(command=sys.executable, args=("-S", "-c", wrapped), protocol="legacy")
    async with House(tmp_path, s=config) as house:
        pid = (await house.ask("s", "pid"))["pid"]
        assert pid != house.status("s").pids[0]
    await until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


@pytest.mark.rule("STDIO-8")
async def test_stderr_is_no_error_and_goes_to_the_log(tmp_path: Path) -> None:
    async with House(tmp_path, s=stdio("flood", protocol="legacy")) as house:
        assert house.status("s").state == "ready"
        assert (await house.call("s", "echo")).error is None
    logs = tmp_path / "state" / "logs"
    text = (logs / "s.log").read_text()
    assert "all is well" in text
    assert sum(file.stat().st_size for file in logs.iterdir()) < 6 * 1024 * 1024


async def test_noise_on_stdout_is_skipped_and_noted(tmp_path: Path) -> None:
    async with House(tmp_path, s=stdio("garbage", protocol="legacy")) as house:
        assert (await house.call("s", "echo")).error is None
    assert "[callgate: not JSON-RPC] Welcome" in (tmp_path / "state" / "logs" / "s.log").read_text()


async def test_an_answer_to_nothing_is_ignored(tmp_path: Path) -> None:
    async with House(tmp_path, s=stdio(protocol="legacy")) as house:
        assert "params" in await house.ask("s", "double")


async def test_a_line_larger_than_max_message_ends_the_process(tmp_path: Path) -> None:
    async with House(tmp_path, s=stdio(protocol="legacy", max_message=100_000)) as house:
        assert len((await house.ask("s", "big", {"size": 90_000}))["text"]) == 90_000
        with pytest.raises(UpstreamError, match="line longer than 100000"):
            await house.call("s", "big", {"size": 5_000_000})


async def test_a_process_that_does_not_read_does_not_fill_our_memory(tmp_path: Path) -> None:
    async with House(tmp_path, s=stdio(protocol="legacy", call_timeout=0.3)) as house:
        busy = asyncio.create_task(house.call("s", "sleep", {"seconds": 0.8}))
        await asyncio.sleep(0.02)
        large = {"text": "x" * 300_000}
        calls = [asyncio.create_task(house.call("s", "echo", large)) for _ in range(4)]
        for call in calls:
            with pytest.raises(UpstreamTimeout, match="in time"):
                await call
        with pytest.raises(UpstreamTimeout):
            await busy


@pytest.mark.key("servers.command", "servers.args", "servers.env", "servers.cwd")
async def test_the_environment_is_small_and_references_are_resolved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUD_SECRET", "not for servers")
    monkeypatch.setenv("CHOSEN", "for this one")
    (tmp_path / "work").mkdir()
    (tmp_path / "key.txt").write_text("from a file\n")
    env = {"A": "env:CHOSEN", "B": "file:key.txt", "C": "secret:name", "D": "plain:text"}
    async with House(tmp_path, s=stdio("$(id)", ";ls", protocol="legacy", env=env, cwd="work")) as house:
        said = await house.ask("s", "env")
    assert {name: said["env"][name] for name in env} == {
        "A": "for this one",
        "B": "from a file",
        "C": "secret of name",
        "D": "plain:text",
    }
    assert said["env"]["PATH"] == os.environ["PATH"]
    assert "CLOUD_SECRET" not in said["env"]
    assert said["cwd"] == str(tmp_path / "work")
    assert said["args"] == ["$(id)", ";ls"]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (Server(command="no-such-program-here"), "the command `no-such-program-here` was not found"),
        (Server(command=sys.executable, cwd="absent"), "absent` does not exist"),
        (Server(command=sys.executable, env={"A": "env:NO_SUCH"}), "NO_SUCH is not set"),
        (Server(command=sys.executable, env={"A": "file:absent"}), "absent cannot be read"),
        (stdio("broken", protocol="legacy"), "exited with status 1; its last words: cannot work like this"),
        (stdio("mute", protocol="legacy", connect_timeout=0.3), "did not answer in time (connect_timeout is 0.3 s)"),
    ],
)
async def test_programs_that_do_not_start(tmp_path: Path, config: Server, reason: str) -> None:
    async with House(tmp_path, s=config) as house:
        assert house.status("s").state == "failed"
        assert reason in house.status("s").reason
        with pytest.raises(UpstreamUnavailable):
            await house.call("s", "echo")


@pytest.mark.skipif(os.name == "nt", reason="there, the name says what can be executed")
async def test_a_file_that_is_not_executable_is_not_called_missing(tmp_path: Path) -> None:
    (tmp_path / "tool.sh").write_text("#!/bin/sh\n")
    async with House(tmp_path, s=Server(command=str(tmp_path / "tool.sh"))) as house:
        assert house.status("s").reason.endswith("tool.sh` is not executable")


async def test_a_call_waits_for_a_server_that_is_starting(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        await house.upstreams.apply({"s": stdio(protocol="legacy")}, tmp_path)
        assert house.status("s").state == "starting"
        assert (await house.call("s", "echo")).error is None


async def test_a_call_does_not_wait_longer_than_its_deadline(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        await house.upstreams.apply({"s": stdio("mute", protocol="legacy", call_timeout=0.05)}, tmp_path)
        with pytest.raises(UpstreamTimeout, match="did not start in time"):
            await house.call("s", "echo")


async def test_progress_and_list_changes(tmp_path: Path) -> None:
    async with House(tmp_path, s=stdio(protocol="legacy")) as house:
        await house.ask("s", "progress", meta={"progressToken": "mine"})
        assert [note["params"]["progressToken"] for note in house.notes] == ["mine"]
        await house.ask("s", "more")
        await until(lambda: house.listings[-1].tools[-1]["name"] == "later")


@pytest.mark.parametrize(
    ("front", "levels"),
    [({}, []), ({"log_level": "error"}, ["error"]), ({"era": "legacy"}, ["info", "error"])],
)
async def test_log_messages_of_the_only_call(tmp_path: Path, front: dict[str, Any], levels: list[str]) -> None:
    async with House(tmp_path, s=stdio(protocol="legacy")) as house:
        await house.ask("s", "log", **front)
        assert [note["params"]["level"] for note in house.notes] == levels


async def test_log_messages_are_dropped_when_their_call_is_in_doubt(tmp_path: Path) -> None:
    async with House(tmp_path, s=stdio(protocol="legacy", call_timeout=0.3)) as house:
        other = asyncio.create_task(house.call("s", "hang", principal="bob"))
        await asyncio.sleep(0.02)
        await house.ask("s", "log", era="legacy")
        assert house.notes == []
        with pytest.raises(UpstreamTimeout):
            await other


async def test_the_level_is_set_before_the_call_that_asks_for_it(tmp_path: Path) -> None:
    async with House(tmp_path, s=stdio(protocol="legacy")) as house:
        for level in ("warning", "error", "debug"):
            await house.ask("s", "echo", log_level=level)
        seen = (await house.ask("s", "seen"))["seen"]
        assert [m["params"]["level"] for m in seen if m["method"] == "logging/setLevel"] == ["warning", "debug"]

"""``callgate stdio``: the same gateway for one client over pipes, in both eras."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from callgate.gateway import StdioFront
from tests.fuzz.messages import PREFIX, initialize, modern, rpc
from tests.gateway.dialogue import ANN, EVERYTHING, form, said
from tests.gateway.stand import DEADLINE, Stand, allow, calling, key_of, keys, until
from tests.gateway.test_asking import Asking, told
from tests.gateway.test_reentry import asks, rounds
from tests.gateway.upstreams import Modern, Script, http, serve, tool
from tests.processes import environment, python
from tests.upstream.house import SCRIPT

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """The loop here is only the client's."""
    return "asyncio"


class Pipes:
    """A running ``callgate stdio``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    def write(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")

    def send(self, message: Any) -> None:
        self.write(json.dumps(message).encode())

    async def next(self) -> Any:
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE):
            line = await self.process.stdout.readline()
        return json.loads(line) if line else None

    async def ask(self, message: Any) -> Any:
        self.send(message)
        return await self.next()

    async def rest(self) -> list[Any]:
        """Say that nothing more comes, and read what does until the process has ended."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        said = []
        while (message := await self.next()) is not None:
            said.append(message)
        async with asyncio.timeout(DEADLINE):
            assert await self.process.wait() == 0
        return said


@asynccontextmanager
async def started(folder: Path, *arguments: str, token: str | None = None, **settings: Any) -> AsyncIterator[Pipes]:
    data = folder / "data"
    data.mkdir(exist_ok=True)
    config = {"data_dir": str(data), "log_level": "warning",
              "servers": {"u": {"command": sys.executable, "args": ["-S", SCRIPT], "isolation": "shared"}},
              **settings}  # fmt: skip
    file = folder / "callgate.yaml"
    file.write_text(json.dumps(config))
    with (folder / "err").open("wb") as err:
        process = await asyncio.create_subprocess_exec(
            *python("-m", "callgate", "stdio", "-c", str(file), *arguments),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=err, limit=2**20,
            env=environment({} if token is None else {"CALLGATE_TOKEN": token}),
        )  # fmt: skip
    try:
        yield Pipes(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert "Traceback" not in (folder / "err").read_text()


def records(folder: Path) -> list[tuple[str, str, str]]:
    with closing(sqlite3.connect(folder / "data" / "callgate.db")) as connection:
        return connection.execute("select subject, tool, outcome from audit order by id").fetchall()


async def test_both_eras_in_one_process(tmp_path: Path) -> None:
    async with started(tmp_path) as pipes:
        found = await pipes.ask(modern("server/discover", id="d"))
        assert (found["id"], found["result"]["supportedVersions"]) == ("d", ["2026-07-28"])
        assert (await pipes.ask(rpc("tools/list")))["error"]["code"] == -32600  # no session yet, and not modern
        listed = (await pipes.ask(modern("tools/list")))["result"]
        assert "u__echo" in [each["name"] for each in listed["tools"]]
        assert listed["cacheScope"] == "private"
        opened = await pipes.ask(initialize("2025-06-18"))
        assert opened["result"]["protocolVersion"] == "2025-06-18"
        pipes.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        assert (await pipes.ask(rpc("ping", id=2)))["result"] == {}
        assert "ttlMs" not in (await pipes.ask(rpc("tools/list", id=3)))["result"]
        assert (await pipes.ask(initialize()))["error"]["code"] == -32600
        called = await pipes.ask(rpc("tools/call", {"name": "u__echo", "arguments": {"a": 1}}, 4))
        assert called["result"]["params"]["arguments"] == {"a": 1}
        again = await pipes.ask(calling("u__echo", {"a": 2}, id=5))
        assert again["result"]["resultType"] == "complete"
        assert (await pipes.ask(modern("nothing", id=6)))["error"]["code"] == -32601
        unready = modern("tools/list", id=7)
        del unready["params"]["_meta"][PREFIX + "clientCapabilities"]
        assert (await pipes.ask(unready))["error"]["code"] == -32602
        assert await pipes.rest() == []
    assert records(tmp_path) == [("anonymous", "echo", "ok"), ("anonymous", "echo", "ok")]


@pytest.mark.rule("STDIO-1")
async def test_noise_is_answered_and_does_no_harm(tmp_path: Path) -> None:
    async with started(tmp_path, limits={"max_body": 1000}) as pipes:
        big = json.dumps(calling("u__echo", {"text": "x" * 5000})).encode()
        for line, code in (
            (b"garbage", -32700), (b'{"jsonrpc":"2.0","jsonrpc":"2.0"}', -32700), (b"\xff\xfe", -32700), (big, -32700),
            (b"x" * 100_000, -32700), (b"[]", -32600), (b"{}", -32600),
            (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
            (b'{"jsonrpc":"2.0","id":9,"method":"ping","params":[1]}', -32602),
        ):  # fmt: skip
            pipes.write(line)
            said = await pipes.next()
            assert said["error"]["code"] == code, line[:80]
            assert said["id"] == (9 if b'"id":9' in line else None)
        pipes.write(b"")
        pipes.write(b"   ")
        pipes.write(b'{"jsonrpc":"2.0","id":1,"result":{}}')
        pipes.write(b'{"jsonrpc":"2.0","method":"notifications/cancelled"}')
        pipes.write(b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":[1]}}')
        exact = json.dumps(calling("u__echo", {"text": ""}, id="exact"))
        padded = exact.replace('"text": ""', '"text": "' + "x" * (1000 - len(exact)) + '"')
        assert len(padded) == 1000
        pipes.write(padded.encode())
        assert (await pipes.next())["id"] == "exact"
        assert await pipes.rest() == []


@pytest.mark.rule("STDIO-2")
async def test_a_request_is_cancelled_by_its_id(tmp_path: Path) -> None:
    async with started(tmp_path) as pipes:
        pipes.send(calling("u__hang", id="h"))
        await pipes.ask(initialize())
        pipes.send(rpc("tools/call", {"name": "u__hang"}, "legacy"))
        assert (await pipes.ask(rpc("ping", id="legacy")))["error"]["code"] == -32600  # that id is running
        for id in ("h", "legacy", "unknown"):
            pipes.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}})
        seen = await pipes.ask(calling("u__seen", id="s"))
        assert seen["id"] == "s"  # nothing was said to the cancelled ones
        told = [each for each in seen["result"]["seen"] if each["method"] == "notifications/cancelled"]
        assert len(told) == 2
        assert (await pipes.ask(rpc("ping", id="legacy")))["result"] == {}
        assert await pipes.rest() == []
    assert [outcome for _, _, outcome in records(tmp_path)] == ["cancelled", "cancelled", "ok"]


async def test_a_client_is_asked_over_pipes(tmp_path: Path) -> None:
    """By a legacy server with a request, and by a modern one with a result."""
    act = rounds(asks({"one": form("1")}), asks({"two": form("2")}, "state"))
    async with (
        serve(Asking()) as legacy,
        serve(Modern(Script(acts={"greet": act}))) as modern_,
        started(tmp_path, servers={"l": http(legacy, "legacy"), "m": http(modern_)}) as pipes,
    ):
        hello = initialize()
        hello["params"]["capabilities"] = EVERYTHING
        await pipes.ask(hello)
        pipes.send(rpc("tools/call", {"name": "l__question", "arguments": {"questions": [form("0"), form("00")]}}, 1))
        asked = [await pipes.next(), await pipes.next()]
        assert [each["params"]["message"] for each in asked] == ["0", "00"]
        assert (await pipes.ask(rpc("ping", id=2)))["id"] == 2  # other requests are answered meanwhile
        for question in reversed(asked):
            pipes.send({"jsonrpc": "2.0", "id": question["id"], "result": ANN})
        assert told(await pipes.next()) == [{"result": ANN}, {"result": ANN}]
        pipes.send(rpc("tools/call", {"name": "m__greet"}, 3))
        for message in ("1", "2"):
            question = await pipes.next()
            assert question["params"]["message"] == message
            pipes.send({"jsonrpc": "2.0", "id": question["id"], "result": ANN})
        assert json.loads(said(await pipes.next()))["inputResponses"] == {"two": ANN}
        assert await pipes.rest() == []


async def test_a_question_is_not_waited_for_when_the_client_has_gone(tmp_path: Path) -> None:
    async with serve(Asking()) as server, started(tmp_path, servers={"l": http(server, "legacy")}) as pipes:
        hello = initialize()
        hello["params"]["capabilities"] = EVERYTHING
        await pipes.ask(hello)
        pipes.send(rpc("tools/call", {"name": "l__question", "arguments": {"questions": [form()]}}, 1))
        assert (await pipes.next())["method"] == "elicitation/create"
        [last] = await pipes.rest()
        assert told(last)[0]["error"]["code"] == -32603


async def test_progress_and_log_come_before_the_answer(tmp_path: Path) -> None:
    async with started(tmp_path) as pipes:
        pipes.send(calling("u__progress", id=1, progressToken="mine"))
        note, last = await pipes.next(), await pipes.next()
        assert note["params"] == {"progressToken": "mine", "progress": 1}
        assert last["id"] == 1
        pipes.send(calling("u__log", {}, id=2, **{PREFIX + "logLevel": "error"}))
        assert (await pipes.next())["params"]["level"] == "error"
        assert (await pipes.next())["id"] == 2


async def test_the_end_of_stdin_lets_running_calls_finish(tmp_path: Path) -> None:
    async with started(tmp_path) as pipes:
        await pipes.ask(initialize())
        pipes.send(rpc("tools/call", {"name": "u__sleep", "arguments": {"seconds": 0.3}}, 1))
        pipes.send(calling("u__echo", id=2))
        assert sorted(each["id"] for each in await pipes.rest()) == [1, 2]
    assert len(records(tmp_path)) == 2


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 0), ("SIGHUP", 0), ("SIGINT", 130)])
async def test_a_signal_leaves_no_server_behind_and_no_noise(tmp_path: Path, name: str, status: int) -> None:
    async with started(tmp_path) as pipes:
        await pipes.ask(initialize())
        servers = psutil.Process(pipes.process.pid).children(recursive=True)
        assert servers
        pipes.process.send_signal(getattr(signal, name))
        async with asyncio.timeout(DEADLINE):
            assert await pipes.process.wait() == status
        assert not any(server.is_running() and server.status() != psutil.STATUS_ZOMBIE for server in servers)
    assert "rror" not in (tmp_path / "err").read_text()


async def test_a_batch_over_pipes_in_its_version(tmp_path: Path) -> None:
    async with started(tmp_path) as pipes:
        assert (await pipes.ask([rpc("ping")]))["error"]["code"] == -32600
        await pipes.ask(initialize("2025-03-26"))
        said = await pipes.ask([rpc("ping", id=1), rpc("tools/call", {"name": "u__echo"}, 2), 5])
        assert [(each["id"], "result" in each) for each in said] == [(1, True), (2, True), (None, False)]
        assert await pipes.rest() == []


async def test_a_session_hears_of_changes(tmp_path: Path) -> None:
    async with started(tmp_path) as pipes:
        await pipes.ask(initialize())
        pipes.send(rpc("tools/call", {"name": "u__more"}, 1))
        said = [await pipes.next(), await pipes.next()]
        assert {each.get("method", each.get("id")) for each in said} == {1, "notifications/tools/list_changed"}
        names = [each["name"] for each in (await pipes.ask(rpc("tools/list", id=2)))["result"]["tools"]]
        assert "u__later" in names


async def test_a_client_that_does_not_read_is_not_read_either(tmp_path: Path) -> None:
    count = 5_000
    (asks, stdin), (stdout, answers) = os.pipe(), os.pipe()
    with (
        os.fdopen(stdin, "wb") as writer, os.fdopen(stdout, "rb") as reader,
        os.fdopen(asks, "rb") as front_in, os.fdopen(answers, "wb") as front_out,
    ):  # fmt: skip
        async with Stand(tmp_path) as stand:
            who = stand.house.recogniser.anonymous
            assert who is not None
            front = StdioFront(stand.house, who, "", (front_in, front_out))
            serving = asyncio.create_task(front.serve())

            def flood() -> None:
                for number in range(count):
                    writer.write(json.dumps(modern("nothing", id=number)).encode() + b"\n")
                writer.close()

            flooding = asyncio.create_task(asyncio.to_thread(flood))
            await until(lambda: front._out.qsize() > 1000)
            await asyncio.sleep(0.2)
            assert front._out.qsize() < 2000
            assert not flooding.done()
            lines = await asyncio.to_thread(lambda: [reader.readline() for _ in range(count)])
            await asyncio.gather(flooding, serving)
            assert [json.loads(line)["id"] for line in lines] == list(range(count))


@pytest.mark.rule("RS-16")
async def test_the_token_in_the_environment_says_who_asks(tmp_path: Path) -> None:
    policy = {"rules": [allow("u/echo", to={"subjects": ["ann"]})]}
    async with started(tmp_path, token=key_of("ann"), identity={"keys": keys("ann")}, policy=policy) as pipes:
        names = [each["name"] for each in (await pipes.ask(modern("tools/list")))["result"]["tools"]]
        assert names == ["u__echo"]
        assert (await pipes.ask(calling("u__hang")))["error"]["code"] == -31403
    for token in (None, "wrong"):
        other = tmp_path / str(token)
        other.mkdir()
        with (other / "err").open("wb"):
            pass
        async with started(other, token=token, identity={"keys": keys("ann")}) as pipes:
            async with asyncio.timeout(DEADLINE):
                assert await pipes.process.wait() == 8


async def test_a_virtual_server_over_pipes(tmp_path: Path) -> None:
    doors: dict[str, Any] = {"virtual_servers": {"v": {"tools": ["u/echo"]}}}
    async with started(tmp_path, "--virtual-server", "v", **doors) as pipes:
        names = [each["name"] for each in (await pipes.ask(modern("tools/list")))["result"]["tools"]]
        assert names == ["u__echo"]
        assert (await pipes.ask(calling("u__hang")))["error"]["code"] == -32602


@pytest.mark.rule("HDR-12")
async def test_a_stdio_client_needs_no_headers_and_the_server_gets_them(tmp_path: Path) -> None:
    upstream = Modern()
    upstream.tools = [tool("echo", inputSchema={"properties": {"city": {"type": "string", "x-mcp-header": "City"}}})]
    async with serve(upstream) as server, started(tmp_path, servers={"h": http(server)}) as pipes:
        answer = await pipes.ask(calling("h__echo", {"city": "Oslo"}))
        assert answer["result"]["echo"]["arguments"] == {"city": "Oslo"}
        assert server.requests[-1].headers["mcp-param-city"] == "Oslo"

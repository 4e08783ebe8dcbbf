"""Servers that people really run, installed from the package indexes; in CI only (see ``programs.py``)."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from callgate.config.model import Server
from callgate.types import Answer, Question
from tests.clients.venvs import interpreter
from tests.processes import Running, free_port
from tests.upstream.house import House, until
from tests.upstream.programs import program

pytestmark = [pytest.mark.servers, pytest.mark.anyio]


async def test_mcp_server_time(tmp_path: Path) -> None:
    server = Server(command=program("mcp-server-time"), args=("--local-timezone", "Etc/UTC"))
    async with House(tmp_path, s=server) as house:
        answer = await house.ask("s", "get_current_time", {"timezone": "Asia/Tokyo"})
        assert "+09:00" in answer["content"][0]["text"]


async def test_mcp_server_git(tmp_path: Path) -> None:
    git = await asyncio.create_subprocess_exec("git", "init", "-q", str(tmp_path / "repo"))
    assert await git.wait() == 0
    async with House(tmp_path, s=Server(command=program("mcp-server-git"))) as house:
        answer = await house.ask("s", "git_status", {"repo_path": str(tmp_path / "repo")})
        assert "No commits yet" in answer["content"][0]["text"]


async def test_server_filesystem(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "note.txt").write_text("hello from a file")
    server = Server(command=program("mcp-server-filesystem"), args=(str(folder),))
    async with House(tmp_path, s=server) as house:
        answer = await house.ask("s", "read_text_file", {"path": str(folder / "note.txt")})
        assert answer["content"][0]["text"] == "hello from a file"


async def test_server_everything(tmp_path: Path) -> None:
    async with House(tmp_path, s=Server(command=program("mcp-server-everything"))) as house:
        assert (await house.ask("s", "echo", {"message": "hi"}))["content"][0]["text"] == "Echo: hi"
        arguments = {"duration": 0.2, "steps": 2}
        names = {tool["name"] for tool in house.listings[-1].tools}
        long = next(name for name in ("trigger-long-running-operation", "longRunningOperation") if name in names)
        await house.ask("s", long, arguments, meta={"progressToken": "t"})
        assert {note["params"]["progressToken"] for note in house.notes} == {"t"}


SDK = """
import sys
from mcp.server.mcpserver import MCPServer
server = MCPServer("sdk")
@server.tool()
def add(a: int, b: int) -> int:
    return a + b
server.run(*sys.argv[1:2], **({"port": int(sys.argv[2])} if sys.argv[2:] else {}))
"""


async def test_a_server_of_the_official_sdk(tmp_path: Path) -> None:
    async with House(tmp_path, s=Server(command=sys.executable, args=("-c", SDK, "stdio"))) as house:
        assert house.status("s").era == "modern"
        assert (await house.ask("s", "add", {"a": 1, "b": 2}))["structuredContent"] == {"result": 3}


FASTMCP = """
import sys
from fastmcp import FastMCP
server = FastMCP("fast")
@server.tool
def add(a: int, b: int) -> int:
    return a + b
server.run(*sys.argv[1:2], show_banner=False, **({"port": int(sys.argv[2])} if sys.argv[2:] else {}))
"""


async def test_a_server_of_fastmcp(tmp_path: Path) -> None:
    python = Path(program("fastmcp")).parent / "python"
    async with House(tmp_path, s=Server(command=str(python), args=("-c", FASTMCP, "stdio"))) as house:
        assert house.status("s").state == "ready"
        assert (await house.ask("s", "add", {"a": 1, "b": 2}))["structuredContent"] == {"result": 3}


async def over_http(tmp_path: Path, command: list[str], port: int, env: dict[str, str] | None = None) -> str:
    """Start a server that listens on ``port``, call its ``add`` or ``echo`` tool twice; returns its era."""
    with Running("server", command, tmp_path, env=env):
        async with House(tmp_path, s=Server(url=f"http://127.0.0.1:{port}/mcp")) as house:
            for _ in range(100):
                if house.status("s").state == "ready":
                    break
                await asyncio.sleep(0.1)
            tools = {tool["name"] for tool in house.listings[-1].tools}
            for _ in range(2):
                if "add" in tools:
                    assert (await house.ask("s", "add", {"a": 1, "b": 2}))["structuredContent"] == {"result": 3}
                else:
                    assert (await house.ask("s", "echo", {"message": "hi"}))["content"][0]["text"] == "Echo: hi"
            return house.status("s").era or ""


async def test_a_server_of_the_official_sdk_over_http(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-c", SDK, "streamable-http", str(port)]
    assert await over_http(tmp_path, command, port) == "modern"


SDK_1 = """
import sys
from mcp.server.fastmcp import Context, FastMCP
from pydantic import BaseModel
class Name(BaseModel):
    name: str
server = FastMCP("sdk", port=int(sys.argv[1]))
@server.tool()
def add(a: int, b: int) -> int:
    return a + b
@server.tool()
async def greet(context: Context) -> str:
    said = await context.elicit("Who?", Name)
    return f"Hello {said.data.name}"
server.run("sse")
"""


async def test_a_server_of_the_older_official_sdk_over_http_with_sse(tmp_path: Path) -> None:
    async def ann(question: Question) -> Answer:
        return Answer(result=b'{"action":"accept","content":{"name":"Ann"}}')

    port = free_port()
    python = str(await asyncio.to_thread(interpreter, "mcp1"))
    with Running("server", [python, "-c", SDK_1, str(port)], tmp_path):
        async with House(tmp_path, s=Server(url=f"http://127.0.0.1:{port}/sse")) as house:
            await until(lambda: house.status("s").state == "ready", 30)
            assert (await house.ask("s", "add", {"a": 1, "b": 2}))["structuredContent"] == {"result": 3}
            greeted = await house.ask("s", "greet", ask=ann, capabilities={"elicitation": {}})
            assert greeted["content"][0]["text"] == "Hello Ann"


async def test_a_server_of_fastmcp_over_http(tmp_path: Path) -> None:
    port = free_port()
    python = str(Path(program("fastmcp")).parent / "python")
    assert await over_http(tmp_path, [python, "-c", FASTMCP, "http", str(port)], port)


async def test_server_everything_over_http(tmp_path: Path) -> None:
    port = free_port()
    command = [program("mcp-server-everything"), "streamableHttp"]
    assert await over_http(tmp_path, command, port, {"PORT": str(port)}) == "legacy"

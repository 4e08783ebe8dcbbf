"""Starts the proxy that FastMCP ships, in its own environment, with the settings that make it fastest."""

from __future__ import annotations

from pathlib import Path

import msgspec

from bench.peers import FASTMCP_PROXY, installed
from bench.processes import Program, environment, free_port
from bench.targets import FASTMCP, READY_IN, Servers, Target
from bench.wire import Door

PROGRAM = """
import json, sys
from fastmcp.server import create_proxy
proxy = create_proxy(json.loads(sys.argv[1]), name="bench")
proxy.run(transport="http", host="127.0.0.1", port=int(sys.argv[2]), path="/mcp", show_banner=False,
          json_response=True, log_level="error",
          uvicorn_config={"access_log": False, "log_level": "error"})
"""


def start(servers: Servers, cache: Path) -> Target:
    """The proxy in front of ``servers``; with several of them FastMCP puts the server's name before the tool's."""
    python = installed(FASTMCP_PROXY, cache) / "python"
    port = free_port()
    entries = {"mcpServers": servers.entries()}
    several = len(servers.names) > 1
    single = next(iter(servers.entries().values())).get("url")
    source = msgspec.json.encode(single if single and not several else entries).decode()
    env = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    program = Program([str(python), "-c", PROGRAM, source, str(port)], {**env, "FASTMCP_LOG_LEVEL": "ERROR"})
    try:
        program.wait_port(port, READY_IN)
        tool = (lambda server: f"{server}_echo") if several else (lambda _server: "echo")
        return Target(FASTMCP, Door(port), tool, servers).started(program)
    except BaseException:
        program.stop()
        raise

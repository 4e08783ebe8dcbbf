"""The MCP servers behind everything that is compared: one process with a server (a port) for each gateway."""

from __future__ import annotations

import http.client
import sys

import msgspec

from bench.processes import Program


class Backend:
    """``servers`` HTTP servers with ``tools`` tools each, in one process of its own."""

    def __init__(self, servers: int = 1, tools: int = 10) -> None:
        self.tools = tools
        command = [sys.executable, "-m", "bench.upstream", "--servers", str(servers), "--tools", str(tools)]
        self.program = Program(command)
        self.ports = [int(port) for port in self.program.wait_for(r"ready (.+)", 20)[1].split()]

    def counts(self, port: int) -> int:
        """Messages that the server on ``port`` has received so far."""
        return sum(msgspec.json.decode(self._get(port, "/stats"), type=dict[str, int]).values())

    def hang(self, port: int) -> None:
        """From now on the server accepts connections and answers nothing."""
        self._get(port, "/hang")

    @staticmethod
    def _get(port: int, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()

    def stop(self) -> None:
        self.program.stop()


def stdio_command(tools: int = 10) -> list[str]:
    """The same server as a program that speaks over its standard input and output."""
    return [sys.executable, "-m", "bench.upstream_stdio", "--tools", str(tools)]

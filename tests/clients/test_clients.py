"""Clients that other people wrote work with callgate: HTTP and stdio in front, HTTP and stdio behind."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, NamedTuple

import pytest

from tests.clients.venvs import interpreter
from tests.processes import ROOT, environment, python

pytestmark = [pytest.mark.servers, pytest.mark.slow]

SECONDS = 60.0
MODERN, LEGACY = "2026-07-28", "2025-11-25"


class Client(NamedTuple):
    """A script of this package, the environment it needs (``""``: ours), and how it shall negotiate."""

    script: str
    venv: str
    mode: str

    @property
    def legacy(self) -> bool:
        return self.mode == "legacy" or self.script == "mcp1"


CLIENTS = [
    Client("mcp2", "", "auto"),
    Client("mcp2", "", "legacy"),
    Client("mcp1", "mcp1", "auto"),
    Client("fastmcp4", "fastmcp", "auto"),
    Client("fastmcp4", "fastmcp", "legacy"),
]
every_client = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: f"{client.script}-{client.mode}")
every_upstream = pytest.mark.parametrize("server", ["web", "pipe"])


def look(client: Client, prefix: str, where: list[str]) -> dict[str, Any]:
    """Run the client and return its report; ``where`` is ``--url URL`` or ``-- COMMAND``."""
    program = str(interpreter(client.venv)) if client.venv else sys.executable
    command = [program, "-m", f"tests.clients.{client.script}", "--mode", client.mode, "--prefix", prefix, *where]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr[-4000:]
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def content(client: Client, prefix: str, report: dict[str, Any]) -> None:
    """Everything that the client tried came out as it should."""
    assert report["version"] == (LEGACY if client.legacy else MODERN)
    assert {f"{prefix}echo", f"{prefix}test_error_handling"} <= set(report["tools"])
    assert report["echoed"] == "häuschen"
    assert report["structured"] == {"text": "häuschen"}
    assert report["progress"] == [[0, 100], [50, 100], [100, 100]]
    assert report["failed"] == "This tool intentionally returns an error for testing"
    assert report["unknown"] == -32602
    assert report["pinged"] is (True if client.legacy else None)


@every_client
def test_directly_over_http(client: Client, fixture_url: str) -> None:
    """Without callgate, so that a failure of the others can be told from a failure of the fixture."""
    content(client, "", look(client, "", ["--url", fixture_url]))


@every_client
def test_directly_over_stdio(client: Client) -> None:
    content(client, "", look(client, "", ["--", *python("-m", "tests.conformance.fixture", "--stdio")]))


@every_upstream
@every_client
def test_over_http(client: Client, server: str, gateway_url: str) -> None:
    report = look(client, f"{server}__", ["--url", gateway_url])
    content(client, f"{server}__", report)
    assert report["server"] == "callgate"


@every_upstream
@every_client
def test_over_stdio(client: Client, server: str, stdio_gateway: list[str]) -> None:
    report = look(client, f"{server}__", ["--", *stdio_gateway])
    content(client, f"{server}__", report)
    assert report["server"] == "callgate"


@every_client
def test_a_single_server_keeps_its_names(client: Client, gateway_url: str) -> None:
    content(client, "", look(client, "", ["--url", gateway_url.removesuffix("/mcp") + "/servers/web/mcp"]))

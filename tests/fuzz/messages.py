"""Well-formed requests of both eras, to be sent as they are or to be broken on purpose."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

Headers = list[tuple[str, str]]

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
PREFIX = "io.modelcontextprotocol/"
ECHO = "pipe__echo"
DENIED = "pipe__test_simple_text"
"""A tool that the policy of the gateway under test denies to everybody but the holder of ``KEY``."""
SECRET = "This is a simple text response for testing."
"""What the denied tool would say."""
KEY = "a-key-that-only-the-known-agent-has"


def envelope() -> dict[str, Any]:
    info = {"name": "fuzz", "version": "1"}
    return {PREFIX + "protocolVersion": MODERN, PREFIX + "clientCapabilities": {}, PREFIX + "clientInfo": info}


def rpc(method: str, params: dict[str, Any] | None = None, id: object = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params if params is not None else {}}


def modern(method: str, params: dict[str, Any] | None = None, id: object = 1) -> dict[str, Any]:
    return rpc(method, {**(params or {}), "_meta": envelope()}, id)


def echo(text: str, id: object = 1) -> dict[str, Any]:
    return modern("tools/call", {"name": ECHO, "arguments": {"text": text}}, id)


def initialize(version: str = LEGACY) -> dict[str, Any]:
    info = {"name": "fuzz", "version": "1"}
    return rpc("initialize", {"protocolVersion": version, "capabilities": {}, "clientInfo": info})


def routing(message: Any) -> Headers:
    """The headers that a modern request needs besides its body."""
    method = message.get("method", "") if isinstance(message, dict) else ""
    params = message.get("params") if isinstance(message, dict) else None
    name = params.get("name") if isinstance(params, dict) else None
    wanted = [("MCP-Protocol-Version", MODERN), ("Mcp-Method", str(method))]
    return [*wanted, ("Mcp-Name", name)] if isinstance(name, str) else wanted


def dump(message: object) -> bytes:
    return json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass")


def head(line: str, headers: Sequence[tuple[str, str]]) -> bytes:
    """Request line and headers, exactly as given."""
    lines = [line, *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def usual(port: int) -> Headers:
    return [
        ("Host", f"127.0.0.1:{port}"),
        ("Content-Type", "application/json"),
        ("Accept", "application/json, text/event-stream"),
    ]


def post(
    port: int, body: bytes, more: Sequence[tuple[str, str]] = (), *, path: str = "/mcp", without: Sequence[str] = ()
) -> bytes:
    """A POST with the usual headers (but ``without`` some), these ones more, and the right length."""
    kept = [(name, value) for name, value in usual(port) if name not in without]
    sized = [] if "Content-Length" in without else [("Content-Length", str(len(body)))]
    return head(f"POST {path} HTTP/1.1", [*kept, *sized, *more]) + body


def send(port: int, message: object, more: Sequence[tuple[str, str]] = (), *, path: str = "/mcp") -> bytes:
    """A whole modern request."""
    return post(port, dump(message), [*routing(message), *more], path=path)

"""A small stdio MCP server of the legacy era for tests of the commands: ``python notebook.py``."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

TEXT = {"type": "string"}
TOOLS: list[dict[str, Any]] = [
    {
        "name": "read",
        "description": "Read a page.\x1b[31m",
        "inputSchema": {"type": "object", "properties": {"page": TEXT, "lines": {"type": "integer"}}},
        "annotations": {"readOnlyHint": True},
    },
    {"name": "erase", "description": "Erase a page.", "inputSchema": {"type": "object"}},
    {"name": "burn", "description": "Burn the book.", "inputSchema": {"type": "object"}},
    {"name": "lend", "description": "Lend the book.", "inputSchema": {"type": "object"}},
    {"name": "count", "description": "Count, and say so.", "inputSchema": {"type": "object"}},
    {"name": "fail", "description": "Report an error.", "inputSchema": {"type": "object"}},
    {"name": "sleep", "description": "Answer too late.", "inputSchema": {"type": "object"}},
    {"name": "refuse", "description": "Answer with a JSON-RPC error.", "inputSchema": {"type": "object"}},
    {"name": "measure", "description": "Give structured content only.", "inputSchema": {"type": "object"}},
    {
        "name": "post",
        "description": "Post a page; the region is mirrored into a header.",
        "inputSchema": {"type": "object", "properties": {"region": {**TEXT, "x-mcp-header": "Region"}}},
    },
    {"name": "größe", "description": "A name that a header cannot carry.", "inputSchema": {"type": "object"}},
    {"name": "die", "description": "End without an answer.", "inputSchema": {"type": "object"}},
]

READS: dict[str, dict[str, Any]] = {
    "prompts/list": {"prompts": [{"name": "summary"}]},
    "prompts/get": {"messages": []},
    "resources/list": {"resources": [{"uri": "book://index", "name": "index"}]},
    "resources/templates/list": {"resourceTemplates": []},
    "resources/read": {"contents": [{"uri": "book://index", "text": "I"}]},
    "completion/complete": {"completion": {"values": []}},
}


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def note(method: str, **params: Any) -> None:
    say({"jsonrpc": "2.0", "method": f"notifications/{method}", "params": params})


def text(words: str, *, error: bool = False) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": words}], **({"isError": True} if error else {})}


def call(params: dict[str, Any]) -> dict[str, Any]:
    name, arguments = params["name"], params.get("arguments", {})
    if name == "die":
        os._exit(3)
    if name == "sleep":
        time.sleep(1.5)
    if name == "fail":
        return text("it went wrong", error=True)
    if name == "measure":
        return {"content": [], "structuredContent": {"pages": 3}}
    if name == "count":
        token = params.get("_meta", {}).get("progressToken")
        if token is not None:
            note("progress", progressToken=token, progress=1, total=2, message="half")
        note("message", level="warning", data="nearly there")
    return text(json.dumps(arguments, sort_keys=True, ensure_ascii=False))


def answer(message: dict[str, Any]) -> dict[str, Any]:
    method, params = message["method"], message.get("params", {})
    if method == "initialize":
        hello: dict[str, Any] = {"tools": {}, "prompts": {}, "resources": {}, "logging": {}}
        result: dict[str, Any] = {
            "protocolVersion": "2025-06-18",
            "capabilities": hello,
            "serverInfo": {"name": "n", "version": "1"},
        }
    elif method == "tools/list":
        result = {"tools": TOOLS}
    elif method == "tools/call" and params["name"] == "refuse":
        return {"error": {"code": -32050, "message": "not today", **params["arguments"]}}
    elif method == "tools/call":
        result = call(params)
    elif method in READS:
        result = READS[method]
    elif method in ("ping", "logging/setLevel"):
        result = {}
    else:
        return {"error": {"code": -32601, "message": f"no {method}"}}
    return {"result": result}


def serve() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        if "id" in request and "method" in request:
            say({"jsonrpc": "2.0", "id": request["id"], **answer(request)})


if __name__ == "__main__":
    serve()

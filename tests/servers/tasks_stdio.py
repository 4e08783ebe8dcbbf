"""A legacy stdio server with tasks, whose ids are ``1``, ``2`` … in every process.

The tool ``greet`` runs as a task only. It asks for a name while its result is waited for.
"""

from __future__ import annotations

import json
import sys
from typing import Any

WHEN = "2026-01-01T00:00:00Z"
FORM = {"type": "object", "properties": {"name": {"type": "string"}}}
CAPABILITIES: dict[str, Any] = {"tools": {}, "tasks": {"cancel": {}, "requests": {"tools": {"call": {}}}}}
GREET = {"name": "greet", "inputSchema": {"type": "object"}, "execution": {"taskSupport": "required"}}
tasks: dict[str, dict[str, Any]] = {}
waiting: dict[str, Any] = {}


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def related(id: str) -> dict[str, Any]:
    return {"_meta": {"io.modelcontextprotocol/related-task": {"taskId": id}}}


def begin() -> dict[str, Any]:
    id = str(len(tasks) + 1)
    times = {"createdAt": WHEN, "lastUpdatedAt": WHEN, "ttl": None, "pollInterval": 20}
    tasks[id] = {"taskId": id, "status": "input_required", **times}
    return tasks[id]


def wait(ident: Any, id: str) -> None:
    """Answer with the result, or ask first."""
    task = tasks[id]
    if task["status"] == "completed":
        say({"id": ident, "result": {**task["result"], **related(id)}})
        return
    waiting[id] = ident
    params = {"mode": "form", "message": f"Name of {id}?", "requestedSchema": FORM, **related(id)}
    say({"id": f"q{id}", "method": "elicitation/create", "params": params})


def answered(message: dict[str, Any]) -> None:
    id = message["id"].removeprefix("q")
    name = message.get("result", {}).get("content", {}).get("name", "nobody")
    tasks[id] |= {"status": "completed", "result": {"content": [{"type": "text", "text": f"Hello {name}, {id}"}]}}
    wait(waiting.pop(id), id)


def told(id: str) -> dict[str, Any]:
    return {name: value for name, value in tasks[id].items() if name != "result"}


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        ident, method, params = message.get("id"), message.get("method"), message.get("params", {})
        if method is None:
            answered(message)
        elif method == "initialize":
            hello = {"protocolVersion": "2025-11-25", "capabilities": CAPABILITIES, "serverInfo": {"name": "greeter"}}
            say({"id": ident, "result": hello})
        elif method == "tools/list":
            say({"id": ident, "result": {"tools": [GREET]}})
        elif method == "tools/call" and "task" in params:
            say({"id": ident, "result": {"task": begin()}})
        elif method in ("tasks/get", "tasks/result", "tasks/cancel") and params["taskId"] in tasks:
            if method == "tasks/result":
                wait(ident, params["taskId"])
            else:
                say({"id": ident, "result": told(params["taskId"])})
        elif ident is not None:
            say({"id": ident, "error": {"code": -32602, "message": "unknown"}})


if __name__ == "__main__":
    main()

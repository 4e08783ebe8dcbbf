"""A legacy stdio server that asks its client: ``python asking_stdio.py [dual|modern]``.

``ask`` asks and answers the call with what it was told (``method``, ``params``, ``times``, ``ids``); ``hold`` leaves
the call open until ``finish`` is called; ``later`` asks when the call has ended; ``news`` tells something then.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

HABITS = set(sys.argv[1:])
TOOLS = ["ask", "hold", "finish", "withdraw", "later", "news", "seen", "pid", "hello", "die"]
FORM = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}
NEWS = ["tools/list_changed", "resources/updated", "message", "tasks/status", "elicitation/complete"]
seen: list[dict[str, Any]] = []
open_calls: dict[Any, tuple[Any, int, list[Any]]] = {}  # id of a question -> call, answers to come, answers
held: list[Any] = []
hello: dict[str, Any] = {}


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def ask(ident: Any, method: str = "elicitation/create", params: Any = FORM) -> None:
    say({"id": ident, "method": method, "params": params})


def begin(call: Any, arguments: dict[str, Any]) -> None:
    ids = arguments.get("ids") or [f"q{call}.{n}" for n in range(arguments.get("times", 1))]
    answers: list[Any] = []
    for ident in dict.fromkeys(ids):
        open_calls[ident] = (call, len(set(ids)), answers)
    for ident in ids:
        ask(ident, arguments.get("method", "elicitation/create"), arguments.get("params", FORM))


def heard(message: dict[str, Any]) -> None:
    """The answer to a question."""
    call, wanted, answers = open_calls.pop(message["id"], (None, 0, []))
    answers.append(message.get("result", message.get("error")))
    if call is not None and len(answers) == wanted:
        say({"id": call, "result": {"content": [], "answers": answers, "pid": os.getpid()}})


def call(ident: Any, name: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
    result: dict[str, Any] = {"content": [], "pid": os.getpid()}
    if name == "ask":
        begin(ident, arguments)
        return None
    if name in ("hold", "withdraw"):
        held.append(ident)
        if name == "withdraw":
            ask("unwanted")
            say({"method": "notifications/cancelled", "params": {"requestId": "unwanted"}})
        return None
    if name == "finish":
        while held:
            say({"id": held.pop(), "result": result})
    if name == "die":
        os._exit(3)
    return result | {"seen": seen, "hello": hello}


def after(name: str) -> None:
    if name == "later":
        ask("late")
    if name == "news":
        for method in NEWS:
            say({"method": f"notifications/{method}", "params": {"about": method}})


def serve() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        seen.append(message)
        ident, method, params = message.get("id"), message.get("method"), message.get("params", {})
        if method is None:
            heard(message)
        elif ident is None:
            continue
        elif method == "initialize" and "modern" not in HABITS:
            hello.update(params)
            capabilities: dict[str, Any] = {"tools": {"listChanged": True}, "logging": {}}
            said = {"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": {"name": "asking"}}
            say({"id": ident, "result": said})
        elif method == "server/discover" and HABITS & {"dual", "modern"}:
            say({"id": ident, "result": {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}})
        elif method == "tools/list":
            say({"id": ident, "result": {"tools": [{"name": name, "inputSchema": {}} for name in TOOLS]}})
        elif method.startswith("tasks/"):
            say({"id": ident, "result": {"pid": os.getpid()}})
        elif method == "tools/call":
            result = call(ident, params["name"], params.get("arguments", {}))
            if result is not None:
                say({"id": ident, "result": result})
                after(params["name"])
        else:
            say({"id": ident, "error": {"code": -32601, "message": f"no {method}"}})


if __name__ == "__main__":
    serve()

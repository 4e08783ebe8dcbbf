"""A legacy stdio server whose tools ask back: ``python stdio_asker.py [FILE]``. FILE gets a line for every call made,
and one for every call called off.

``ask`` puts ``arguments.questions`` (JSON-RPC requests without id) one after the other and says what it heard; what it
heard is its own, so a call that is mixed up with another one shows. ``pid`` says which process it is.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

ids = itertools.count(1)


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def note(line: str) -> None:
    if len(sys.argv) > 1:
        with Path(sys.argv[1]).open("a") as file:
            file.write(line + "\n")


def ask(question: dict[str, Any], call: Any) -> Any:
    """The response to one question; ``None`` when the call was called off meanwhile."""
    id = f"q{next(ids)}"
    say({"id": id, **question})
    for line in sys.stdin:
        message = json.loads(line)
        if message.get("id") == id and "method" not in message:
            return message.get("result", message.get("error"))
        if message.get("method") == "notifications/cancelled" and message["params"]["requestId"] == call:
            note("cancelled")
            return None
        if "id" in message and "method" in message:
            say({"id": message["id"], "error": {"code": -32603, "message": "mixed up"}})
    sys.exit()


def call(ident: Any, params: dict[str, Any]) -> Any:
    arguments = params["arguments"]
    if params["name"] == "pid":
        heard: list[Any] = [os.getpid()]
    else:
        note("called")
        heard = []
        for question in arguments["questions"]:
            said = ask(question, ident)
            if said is None:
                return None
            heard.append(said)
    return {"content": [{"type": "text", "text": json.dumps(heard)}]}


def answer(message: dict[str, Any]) -> Any:
    if message["method"] == "initialize":
        return {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "asker"}}
    if message["method"] == "tools/list":
        return {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in ("ask", "pid")]}
    if message["method"] == "tools/call":
        return call(message["id"], message["params"])
    return {}


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message and "method" in message:
            result = answer(message)
            if result is not None:
                say({"id": message["id"], "result": result})


if __name__ == "__main__":
    main()

"""A legacy stdio server that tells its secrets wherever it can: ``python leaky_stdio.py [crash]``."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

SECRET = os.environ.get("LEAKY_SECRET", "")


def cry(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def answer(message: dict[str, Any]) -> dict[str, Any]:
    method = message["method"]
    if method == "initialize":
        return {"result": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {}}}
    if method == "tools/list":
        names = ("fail", "die", "whole", "value")
        return {"result": {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in names]}}
    if method != "tools/call":
        return {"error": {"code": -32601, "message": f"no such method for {SECRET}"}}
    tool = message["params"]["name"]
    if tool == "die":
        cry(f"dying with {SECRET}")
        os._exit(3)
    if tool == "value":
        return {"result": {"content": [], "length": len(SECRET), "last": SECRET[-1]}}
    data = {"env": {"LEAKY_SECRET": SECRET, SECRET: 1}, "list": [SECRET], "json": json.dumps(SECRET)}
    return {"error": {"code": -32000, "message": f"cannot sign in with '{SECRET}'", "data": data}}


def main() -> None:
    cry(f"starting with {SECRET}")
    cry(f"as JSON {json.dumps({'key': SECRET})}")
    sys.stderr.write("x" * (16 * 1024 - 5) + SECRET + "y" * 9000 + "\n")
    sys.stderr.flush()
    if "crash" in sys.argv:
        cry(f"no good: {SECRET}")
        sys.exit(1)
    for line in sys.stdin:
        asked = json.loads(line)
        if "id" in asked:
            sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **answer(asked)}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()

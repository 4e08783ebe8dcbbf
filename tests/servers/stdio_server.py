"""A stdio MCP server with every bad habit that a test may want: ``python stdio_server.py [habit …]``.

Eras: ``legacy`` (default), ``modern``, ``dual``. Habits: ``dies-early`` (exits on a request before initialize),
``deaf`` (never answers what comes before initialize), ``mute`` (never answers anything), ``garbage`` (prints
noise on stdout), ``flood`` (writes a lot to stderr), ``stubborn`` (ignores SIGTERM and the end of stdin),
``broken`` (exits at once), ``single:PATH`` (refuses to run beside another one),
``teller`` (knows ``subscriptions/listen``), ``batches`` (says everything in batches).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

HABITS = set(sys.argv[1:])
SPEAKS_LEGACY = "modern" not in HABITS
SPEAKS_MODERN = bool({"modern", "dual"} & HABITS)
STARTED = time.monotonic()
seen: list[dict[str, Any]] = []
tools = ["echo", "die", "env", "progress", "log", "hang", "seen", "big", "ask", "more", "double", "pid", "sleep"]
if "teller" in HABITS:
    tools += ["touch", "unlisten"]


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps([message] if "batches" in HABITS else message) + "\n")
    sys.stdout.flush()


def note(method: str, **params: Any) -> None:
    say({"jsonrpc": "2.0", "method": method, "params": params})


def call(ident: Any, params: dict[str, Any]) -> Any:
    name, arguments = params["name"], params.get("arguments", {})
    if name == "die":
        print("about to die", file=sys.stderr, flush=True)
        os._exit(arguments.get("status", 3))
    if name == "env":
        return {"content": [], "env": dict(os.environ), "cwd": str(Path.cwd()), "args": sys.argv[1:]}
    if name == "progress":
        token = params["_meta"]["progressToken"]
        note("notifications/progress", progressToken=token, progress=1)
        note("notifications/progress", progressToken="unknown", progress=2)
    if name == "log":
        note("notifications/message", level="info", data="i")
        note("notifications/message", level="error", data="e")
    if name == "hang":
        return None
    if name == "sleep":
        time.sleep(arguments["seconds"])
    if name == "big":
        return {"content": [], "text": "x" * arguments["size"]}
    if name == "ask":
        say({"jsonrpc": "2.0", "id": "q1", "method": "roots/list"})
        say({"jsonrpc": "2.0", "id": 5, "method": "ping"})
    if name == "more":
        tools.append("later")
        note("notifications/tools/list_changed")
    if name == "double":
        say({"jsonrpc": "2.0", "id": 999_999_999, "result": {"content": "of a call that nobody made"}})
    if name == "pid":
        return {"content": [], "pid": os.getpid()}
    if name in ("touch", "unlisten"):
        tell(name, arguments)
    if name == "seen":
        return {"content": [], "seen": seen}
    return {"content": [], "params": params}


SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
listens: dict[Any, dict[str, Any]] = {}


def listen(ident: Any, params: dict[str, Any]) -> None:
    listens[ident] = params["notifications"]
    stamp = {SUBSCRIPTION: ident}
    note("notifications/subscriptions/acknowledged", notifications=params["notifications"], _meta=stamp)


def tell(name: str, arguments: dict[str, Any]) -> None:
    for ident, wanted in tuple(listens.items()):
        stamp = {SUBSCRIPTION: ident}
        if name == "touch" and arguments["uri"] in wanted.get("resourceSubscriptions", ()):
            note("notifications/resources/updated", uri=arguments["uri"], _meta=stamp)
        if name == "unlisten":
            del listens[ident]
            if arguments["how"] != "result":
                note("notifications/cancelled", requestId=ident)
            if arguments["how"] != "cancelled":
                say({"jsonrpc": "2.0", "id": ident, "result": {"resultType": "complete", "_meta": stamp}})


def answer(message: dict[str, Any]) -> Any:
    method, params = message["method"], message.get("params", {})
    if method == "subscriptions/listen" and "teller" in HABITS:
        return listen(message["id"], params)
    if method == "initialize" and SPEAKS_LEGACY:
        hello = {"tools": {"listChanged": True}, "logging": {}}
        return {"protocolVersion": "2025-06-18", "capabilities": hello, "serverInfo": {"name": "s", "version": "1"}}
    if method == "server/discover" and SPEAKS_MODERN:
        offered = {"tools": {"listChanged": True}} if "teller" in HABITS else {"tools": {}}
        return {"supportedVersions": ["2026-07-28"], "capabilities": offered, "resultType": "complete"}
    if method == "tools/list":
        return {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in tools]}
    if method == "tools/call":
        return call(message["id"], params)
    if method in ("ping", "logging/setLevel"):
        return {}
    return {"error": {"code": -32601, "message": f"no {method}"}}


def serve() -> None:
    initialized = SPEAKS_MODERN
    for line in sys.stdin:
        message = json.loads(line)
        seen.append(message)
        if "garbage" in HABITS:
            print("Welcome to the server!\n{not json\n[1,2]\n\n", flush=True)
        if message.get("method") == "notifications/cancelled":
            listens.pop(message["params"]["requestId"], None)
        if "id" not in message or "method" not in message or "mute" in HABITS:
            continue
        if message["method"] == "initialize":
            initialized = True
        elif not initialized:
            if "dies-early" in HABITS:
                sys.exit(1)
            if "deaf" in HABITS:
                continue
        said = answer(message)
        if said is not None:
            body = said if isinstance(said.get("error"), dict) else {"result": said}
            say({"jsonrpc": "2.0", "id": message["id"], **body})


def main() -> None:
    if "broken" in HABITS:
        sys.exit("cannot work like this")
    for habit in HABITS:
        if habit.startswith("single:"):
            try:
                os.close(os.open(habit.partition(":")[2], os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                sys.exit("another one is running")
    if "stubborn" in HABITS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "flood" in HABITS:
        sys.stderr.write("all is well\n" * 200_000)
    try:
        serve()
        while "stubborn" in HABITS:
            time.sleep(0.05)
    finally:
        for habit in HABITS:
            if habit.startswith("single:"):
                Path(habit.partition(":")[2]).unlink(missing_ok=True)


if __name__ == "__main__":
    main()

"""A client without an SDK, for tasks, which no SDK lets a client leave alone: ``python -m tests.matrix.clients.raw``.

It starts a task, closes its connection while the task works, and comes back on a new connection for the result.
"""

from __future__ import annotations

import http.client
import json
import time
from typing import Any
from urllib.parse import urlsplit

from tests.matrix.clients.features import Asked, Raw, asked, described

SECONDS = 1.0
"""How long the task works; the connection is gone in the meantime."""
WAIT_SECONDS = 6.0
LEGACY, MODERN = "2025-11-25", "2026-07-28"
TASKS = "io.modelcontextprotocol/tasks"
DONE = ("completed", "failed", "cancelled")


class Refused(Exception):
    """The server answered with an error."""


class Wire:
    """Requests to one endpoint, all on one connection until ``drop`` closes it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.address = (parts.hostname or "", parts.port)
        self.path = parts.path
        self.headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        self.last = 0
        self.connection = http.client.HTTPConnection(*self.address, timeout=WAIT_SECONDS)

    def drop(self) -> None:
        self.connection.close()
        self.connection = http.client.HTTPConnection(*self.address, timeout=WAIT_SECONDS)

    def post(self, message: Raw, headers: dict[str, str]) -> http.client.HTTPResponse:
        body = json.dumps({"jsonrpc": "2.0", **message})
        self.connection.request("POST", self.path, body, {**self.headers, **headers})
        return self.connection.getresponse()

    def request(self, method: str, params: Raw, **headers: str) -> Raw:
        self.last += 1
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        response = self.post({"id": self.last, "method": method, "params": params}, names)
        if session := response.getheader("mcp-session-id"):
            self.headers["mcp-session-id"] = session
        return result(response, self.last, method)

    def notify(self, method: str) -> None:
        self.post({"method": method}, {}).read()


def result(response: http.client.HTTPResponse, number: int, method: str) -> Raw:
    """The result of this request, from a body of JSON or of events."""
    if "event-stream" in (response.getheader("content-type") or ""):
        lines = iter(response.readline, b"")
        messages: Any = (json.loads(line[5:]) for line in lines if line.startswith(b"data:") and line[5:].strip())
    else:
        text = response.read()
        messages = [json.loads(text)] if text else []
    for message in messages:
        if message.get("id") == number or "error" in message:
            response.read()
            if "error" in message:
                raise Refused(f"{method}: HTTP {response.status} {json.dumps(message['error'])}")
            found: Raw = message["result"]
            return found
    raise Refused(f"{method}: HTTP {response.status} without an answer")


def legacy(wire: Wire, asked: Asked) -> Any:
    """Core tasks of 2025-11-25: asked for by the client, fetched with ``tasks/result`` in the same session."""
    capabilities: Raw = {"tasks": {"list": {}, "cancel": {}}}
    me = {"name": "matrix-raw", "version": "1.0.0"}
    hello = {"protocolVersion": LEGACY, "capabilities": capabilities, "clientInfo": me}
    wire.request("initialize", hello)
    wire.headers["mcp-protocol-version"] = LEGACY
    wire.notify("notifications/initialized")
    call = {"name": f"{asked.prefix}slow", "arguments": {"seconds": SECONDS}, "task": {"ttl": 60_000}}
    made = wire.request("tools/call", call)
    if "task" not in made:
        raise Refused(f"no task: {json.dumps(made)}")
    number = made["task"]["taskId"]
    wire.drop()
    status = finished(lambda: wire.request("tasks/get", {"taskId": number}))["status"]
    wire.drop()
    return [status, wire.request("tasks/result", {"taskId": number})["content"][0]["text"]]


def modern(wire: Wire, asked: Asked) -> Any:
    """The tasks extension: the server decides, the result comes with ``tasks/get``."""
    wire.headers["mcp-protocol-version"] = MODERN
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "matrix-raw", "version": "1.0.0"},
        "io.modelcontextprotocol/clientCapabilities": {"extensions": {TASKS: {}}},
    }
    name = f"{asked.prefix}slow"
    call = {"name": name, "arguments": {"seconds": SECONDS}, "_meta": meta}
    made = wire.request("tools/call", call, mcp_method="tools/call", mcp_name=name)
    if made.get("resultType") != "task":
        raise Refused(f"no task: {json.dumps(made)}")
    number = made["taskId"]
    wire.drop()
    asking = {"taskId": number, "_meta": meta}
    task = finished(lambda: wire.request("tasks/get", asking, mcp_method="tasks/get", mcp_name=number))
    return [task["status"], task["result"]["content"][0]["text"]]


def finished(get: Any) -> Raw:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        task: Raw = get()
        if task["status"] in DONE:
            return task
        if time.monotonic() > deadline:
            raise Refused(f"the task is still {task['status']}")
        time.sleep(0.05)


def look(asked: Asked) -> Raw:
    version, run = (MODERN, modern) if asked.mode == "modern" else (LEGACY, legacy)
    report: Raw = {"library": "none", "version": version, "features": {}}
    try:
        report["features"]["task"] = {"saw": run(Wire(asked.url or ""), asked)}
    except Exception as error:
        report["features"]["task"] = {"error": described(error)}
    return report


if __name__ == "__main__":
    print(json.dumps(look(asked())), flush=True)

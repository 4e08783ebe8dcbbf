"""A client that speaks JSON-RPC over HTTP, one request at a time, and writes down everything that it sees."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

HOP = "io.modelcontextprotocol/"
MODERN, LEGACY = "2026-07-28", "2025-11-25"
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
CAPABILITIES: dict[str, Any] = {"elicitation": {"form": {}}, "sampling": {}, "roots": {}}
SECONDS = 20.0

#: What the user, the model and the workspace of every client here answer.
ANSWERS: dict[str, Any] = {
    "elicitation/create": {"action": "accept", "content": {"name": "Ada", "username": "ada", "email": "a@example.org"}},
    "sampling/createMessage": {"role": "assistant", "content": {"type": "text", "text": "forty-two"}, "model": "m"},
    "roots/list": {"roots": [{"uri": "file:///home/ada", "name": "home"}]},
}


class Seen(dict[str, Any]):
    """What came back: ``result`` or ``error``, ``notes`` (notifications), ``asked`` (questions), HTTP ``status``."""


class Speaker:
    """One client of one era at one URL. Legacy clients keep a GET stream open and count what arrives there."""

    def __init__(self, url: str, era: str, capabilities: Mapping[str, Any] = CAPABILITIES) -> None:
        self.address = urlsplit(url)
        self.era = era
        self.capabilities = dict(capabilities)
        self.session: str | None = None
        self.told: list[str] = []
        self._next = 0
        self._stream: http.client.HTTPConnection | None = None
        self._listener: threading.Thread | None = None
        self.greeting = self._open() if era == "legacy" else self.ask("server/discover", {})

    def ask(self, method: str, params: Mapping[str, Any]) -> Seen:
        """Send a request and follow its stream to the answer, answering the questions on the way."""
        self._next += 1
        message = {"jsonrpc": "2.0", "id": self._next, "method": method, "params": self._stamped(params)}
        connection, response = self._post(message)
        seen = Seen(notes=[], asked=[], status=response.status)
        for each in messages(response):
            if each.get("id") == self._next and "method" not in each:
                seen |= {key: each[key] for key in ("result", "error") if key in each}
            elif "id" in each and "method" in each:
                seen["asked"].append((each["method"], each.get("params")))
                self.post({"jsonrpc": "2.0", "id": each["id"], "result": ANSWERS[each["method"]]})
            else:
                seen["notes"].append((each["method"], each.get("params")))
        if response.getheader("mcp-session-id") and method == "initialize":
            self.session = response.getheader("mcp-session-id")
        response.close()
        connection.close()
        return seen

    def post(self, message: Mapping[str, Any]) -> int:
        connection, response = self._post(message)
        response.read()
        connection.close()
        return response.status

    def close(self) -> None:
        if self._stream is not None and self._listener is not None:
            if self._stream.sock is not None:
                with contextlib.suppress(OSError):
                    self._stream.sock.shutdown(2)
            self._listener.join(SECONDS)
            self._stream.close()
        if self.session is not None:
            connection = self._connect()
            connection.request("DELETE", self.address.path, headers=self._headers({}))
            with connection.getresponse() as response:
                response.read()
            connection.close()

    def hears(self, method: str, count: int) -> bool:
        """Whether a notification has arrived this often on the GET stream, now or soon."""
        deadline = time.monotonic() + SECONDS / 4
        while self.told.count(method) < count and time.monotonic() < deadline:
            time.sleep(0.005)
        return self.told.count(method) >= count

    def _open(self) -> Seen:
        info = {"name": "differential", "version": "1"}
        seen = self.ask(
            "initialize", {"protocolVersion": LEGACY, "capabilities": self.capabilities, "clientInfo": info}
        )
        self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        self._stream = self._connect()
        self._stream.request("GET", self.address.path, headers=self._headers({}) | {"Accept": "text/event-stream"})
        response = self._stream.getresponse()
        self._listener = threading.Thread(target=self._listen, args=(response,), daemon=True)
        self._listener.start()
        return seen

    def _listen(self, response: http.client.HTTPResponse) -> None:
        try:
            for each in messages(response):
                self.told.append(each.get("method", ""))
        except (OSError, ValueError, AttributeError, http.client.HTTPException):
            pass  # closed
        finally:
            response.close()

    def _stamped(self, params: Mapping[str, Any]) -> dict[str, Any]:
        if self.era == "legacy":
            return dict(params)
        hop = {f"{HOP}protocolVersion": MODERN, f"{HOP}clientCapabilities": self.capabilities}
        return {**params, "_meta": {**params.get("_meta", {}), **hop}}

    def _headers(self, message: Mapping[str, Any]) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if self.era == "modern":
            method = message["method"]
            headers |= {"MCP-Protocol-Version": MODERN, "Mcp-Method": method}
            if method in NAMED:
                headers["Mcp-Name"] = message["params"][NAMED[method]]
        elif self.session is not None:
            headers |= {"Mcp-Session-Id": self.session, "MCP-Protocol-Version": LEGACY}
        return headers

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.address.hostname or "", self.address.port, timeout=SECONDS)

    def _post(self, message: Mapping[str, Any]) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = self._connect()
        connection.request("POST", self.address.path, json.dumps(message), self._headers(message))
        return connection, connection.getresponse()


def messages(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """The messages of a response, plain or streamed, as they arrive."""
    if not (response.getheader("content-type") or "").startswith("text/event-stream"):
        body = response.read()
        if body:
            yield json.loads(body)
        return
    while line := response.readline():
        if line.startswith(b"data:") and line[5:].strip():
            yield json.loads(line[5:])

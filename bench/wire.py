"""HTTP/1.1 and JSON-RPC as bytes: requests built beforehand, answers framed and judged at the least cost.

The shape of requests is that of the specification: 2026-07-28 (``modern``: headers repeat the body, ``_meta`` on every
request) and 2025-11-25 (``legacy``: a session).
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

Era = Literal["modern", "legacy"]
MODERN = "2026-07-28"
LEGACY = "2025-11-25"
CLIENT = {"name": "callgate-bench", "version": "1"}
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": CLIENT,
}
SESSION = b"@SESSION@"

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_SESSION = re.compile(rb"\r\nmcp-session-id: *([^\r]+)", re.IGNORECASE)


class Door(msgspec.Struct, frozen=True):
    """Where requests go and how they look there: ``token`` is a bearer token, ``session`` a legacy session id."""

    port: int
    path: str = "/mcp"
    era: Era = "modern"
    token: str = ""
    session: str = ""
    host: str = "127.0.0.1"


def message(method: str, params: dict[str, Any], number: int | None, era: Era) -> bytes:
    """One JSON-RPC request, or a notification when ``number`` is ``None``."""
    if era == "modern":
        params = {**params, "_meta": META}
    envelope = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    if number is None:
        del envelope["id"]
    return msgspec.json.encode(envelope)


def request(door: Door, method: str, params: dict[str, Any], number: int | None) -> bytes:
    """The bytes of a whole POST."""
    body = message(method, params, number, door.era)
    headers = [
        f"POST {door.path} HTTP/1.1",
        f"host: {door.host}:{door.port}",
        "content-type: application/json",
        "accept: application/json, text/event-stream",
        f"content-length: {len(body)}",
    ]
    if method != "initialize":
        headers.append(f"mcp-protocol-version: {MODERN if door.era == 'modern' else LEGACY}")
    if door.era == "modern":
        headers.append(f"mcp-method: {method}")
        if method == "tools/call":
            headers.append(f"mcp-name: {params['name']}")
    if door.session:
        headers.append(f"mcp-session-id: {door.session}")
    if door.token:
        headers.append(f"authorization: Bearer {door.token}")
    return "\r\n".join(headers).encode() + b"\r\n\r\n" + body


def call_params(tool: str, text: str) -> dict[str, Any]:
    return {"name": tool, "arguments": {"message": text, "n": 3, "flag": True}}


class Framing:
    """Finds the end of the one answer that is due on a connection; ``head`` and ``body`` hold it afterwards."""

    def __init__(self) -> None:
        self.head = b""
        self.body = b""
        self.status = 0
        self._length: int | None = None
        self._pending: list[bytes] = []
        self._have = 0
        self._need = 0

    def feed(self, data: bytes) -> bool:
        """Take what arrived; true when the answer is complete. ``ValueError`` when it is not HTTP as we know it."""
        if not self._pending:
            start = data.find(b"\r\n\r\n") + 4
            if start > 3 and data[:start] == self.head and self._length == len(data) - start:
                self.body = data[start:]  # the common case: same headers as the last time, all in one piece
                return True
        self._pending.append(data)
        self._have += len(data)
        return self._have >= self._need and self._complete()

    def _complete(self) -> bool:
        whole = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
        self._pending = [whole]
        start = whole.find(b"\r\n\r\n") + 4
        if start < 4:
            return False
        self._read_head(whole[:start])
        if self._length is None:
            return self._complete_chunks(whole[start:])
        self._need = start + self._length
        if self._have > self._need:
            raise ValueError(f"{self._have - self._need} bytes after the end of an answer")
        return self._have == self._need and self._done(whole[start:])

    def _read_head(self, head: bytes) -> None:
        if head == self.head:
            return
        self.head = head
        self.status = int(head[9:12])
        length = _LENGTH.search(head)
        if length is None and not _CHUNKED.search(head):
            raise ValueError(f"an answer without a length: {head[:200]!r}")
        self._length = int(length[1]) if length else None

    def _complete_chunks(self, body: bytes) -> bool:
        parts: list[bytes] = []
        at = 0
        while True:
            line = body.find(b"\r\n", at)
            if line < 0:
                return False
            size = int(body[at:line].split(b";")[0], 16)
            at = line + 2 + size + 2
            if len(body) < at:
                return False
            if size == 0:
                return self._done(b"".join(parts))
            parts.append(body[line + 2 : at - 2])

    def _done(self, body: bytes) -> bool:
        self.body = body
        self._pending = []
        self._have = self._need = 0
        return True

    @property
    def session(self) -> bytes:
        """The session id that the answer's headers gave, or nothing."""
        found = _SESSION.search(self.head)
        return found[1] if found else b""


class Expected(msgspec.Struct, frozen=True):
    """What the right answer holds: the id (``None``: the message is a notification), the text of the tool's first
    content block, the number of tools.
    """

    number: int | None = None
    text: str = ""
    tools: int = 0


class _Result(msgspec.Struct):
    isError: bool = False
    content: list[dict[str, Any]] = []
    tools: list[msgspec.Raw] = []


class _Answer(msgspec.Struct):
    id: int | str | None = None
    result: _Result | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")


_read_answer = msgspec.json.Decoder(_Answer).decode


def events(body: bytes) -> bytes:
    """The last JSON message of a body, which may be an event stream."""
    if body[:1] == b"{":
        return body
    found = [line[5:].strip() for line in body.split(b"\n") if line.startswith(b"data:")]
    return next((data for data in reversed(found) if data), b"")


def fault(status: int, body: bytes, expected: Expected) -> str:
    """Why an answer is not the expected one, or ``""``."""
    if expected.number is None:
        return "" if status == 202 else f"HTTP {status}"
    if status != 200:
        return f"HTTP {status}: {body[:200]!r}"
    try:
        answer = _read_answer(events(body))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"not a JSON-RPC answer: {error}: {body[:100]!r}"
    if bytes(answer.error) != b"null" or answer.result is None:
        return f"error: {bytes(answer.error)[:200]!r}"
    if answer.id != expected.number:
        return f"answer to {answer.id!r} instead of {expected.number}"
    return _result_fault(answer.result, body, expected)


def _result_fault(result: _Result, body: bytes, expected: Expected) -> str:
    if result.isError:
        return f"tool error: {body[:300]!r}"
    if expected.text and (not result.content or result.content[0].get("text") != expected.text):
        return "the tool's text did not come back"
    if len(result.tools) < expected.tools:
        return f"{len(result.tools)} tools listed instead of {expected.tools}"
    return ""

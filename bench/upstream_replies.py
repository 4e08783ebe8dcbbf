"""What the benchmark's MCP servers answer: both protocol eras, any number of tools, prepared once."""

from __future__ import annotations

from collections import Counter

import msgspec

CACHE = b'"ttlMs":600000,"cacheScope":"public","resultType":"complete"'
INFO = b'{"name":"bench","version":"1"}'
PAGE = 1000


class _Arguments(msgspec.Struct):
    message: msgspec.Raw = msgspec.Raw(b'""')


class _Params(msgspec.Struct):
    name: str = ""
    protocolVersion: str = "2025-11-25"
    cursor: str = "0"
    arguments: _Arguments = msgspec.field(default_factory=_Arguments)


class Request(msgspec.Struct):
    """One message from a client; ``id`` stays raw because it goes back as it came."""

    method: str = ""
    id: msgspec.Raw = msgspec.Raw(b"")
    params: _Params = msgspec.field(default_factory=_Params)


read_request = msgspec.json.Decoder(Request).decode


def tool(number: int) -> bytes:
    """The JSON of tool ``number``, about 450 bytes: the first one is ``echo``, the others only fill lists."""
    name = "echo" if number == 0 else f"tool_{number:05d}"
    schema = {
        "type": "object",
        "properties": {
            "message": {"type": "string", "description": "The text to send back."},
            "n": {"type": "integer", "description": "How often to repeat it.", "minimum": 1},
            "flag": {"type": "boolean", "description": "Whether to answer in capitals."},
        },
        "required": ["message"],
    }
    about = f"Sends back the message it was given. Number {number} of the tools of the benchmark's server."
    hints = {"readOnlyHint": True, "openWorldHint": False}
    return msgspec.json.encode({"name": name, "description": about, "inputSchema": schema, "annotations": hints})


class Replies:
    """The answers of one server with ``tools`` tools; counts the messages it was asked, by method."""

    def __init__(self, tools: int = 1) -> None:
        all_tools = [tool(number) for number in range(tools)]
        self.counts: Counter[str] = Counter()
        self._pages = [self._page(all_tools, start) for start in range(0, max(tools, 1), PAGE)]

    @staticmethod
    def _page(tools: list[bytes], start: int) -> bytes:
        end = start + PAGE
        more = b'"nextCursor":"%d",' % (end // PAGE) if end < len(tools) else b""
        return b'{"tools":[' + b",".join(tools[start:end]) + b"]," + more + CACHE + b"}"

    def answer(self, request: Request) -> bytes | None:
        """The whole JSON-RPC answer, or ``None`` for a notification."""
        method = request.method
        self.counts[method] += 1
        if not bytes(request.id):
            return None
        result = self._echo(request) if method == "tools/call" else self._other(method, request)
        if result is None:
            return b'{"jsonrpc":"2.0","id":%b,"error":{"code":-32601,"message":"Method not found"}}' % bytes(request.id)
        return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (bytes(request.id), result)

    def _echo(self, request: Request) -> bytes:
        text = bytes(request.params.arguments.message)
        return b'{"content":[{"type":"text","text":%b}],"isError":false,"resultType":"complete"}' % text

    def _other(self, method: str, request: Request) -> bytes | None:
        match method:
            case "tools/list":
                return self._pages[int(request.params.cursor)]
            case "initialize":
                version = msgspec.json.encode(request.params.protocolVersion)
                return b'{"protocolVersion":%b,"capabilities":{"tools":{}},"serverInfo":%b}' % (version, INFO)
            case "server/discover":
                return (
                    b'{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},'
                    b'"_meta":{"io.modelcontextprotocol/serverInfo":%b},%b}' % (INFO, CACHE)
                )
            case "ping":
                return b"{}"
        return None

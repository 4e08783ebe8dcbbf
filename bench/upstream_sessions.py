"""A server of the legacy era with sessions: ``python -m bench.upstream_sessions``. Prints ``ready PORT``.

Every ``initialize`` opens a session, every GET with a session is an event stream that stays open, as with the servers
that people write with the official SDKs.
"""

from __future__ import annotations

import asyncio
import secrets

from bench.upstream import ACCEPTED, Connection, Server
from bench.upstream_replies import read_request

OPENED = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nmcp-session-id: %b\r\ncontent-length: %d\r\n\r\n%b"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n3\r\n:\n\n\r\n"
NOT_MODERN = b'{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"Missing session ID"}}'
REFUSED = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
ENDED = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class SessionConnection(Connection):
    """One connection; ``session`` is what the request's header says."""

    session = b""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.url = b""
        self.session = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"mcp-session-id":
            self.session = value

    def on_message_complete(self) -> None:
        method = self.parser.get_method()
        if method == b"GET" and self.session:
            self.transport.write(STREAM)
        elif method == b"DELETE":
            self.transport.write(ENDED)
        else:
            super().on_message_complete()

    def post(self) -> None:
        request = read_request(b"".join(self.body))
        if request.method == "initialize":
            answer = self.server.replies.answer(request) or b""
            self.transport.write(OPENED % (secrets.token_hex(16).encode(), len(answer), answer))
        elif not self.session:
            self.transport.write(REFUSED % (len(NOT_MODERN), NOT_MODERN))
        elif not bytes(request.id):
            self.transport.write(ACCEPTED)
        else:
            super().post()


async def serve() -> None:
    loop = asyncio.get_running_loop()
    server = Server(10, 0.0)
    listener = await loop.create_server(lambda: SessionConnection(server), "127.0.0.1", 0, backlog=2048)
    print("ready", listener.sockets[0].getsockname()[1], flush=True)
    await listener.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())

"""A very fast MCP server over Streamable HTTP: ``python -m bench.upstream --tools 10 --servers 5``.

Prints ``ready PORT PORT …`` with one port for each server. Besides ``POST /mcp`` (both eras, stateless) every server
has ``GET /stats`` (messages received, by method), ``GET /hang`` (from now on only GETs are answered) and ``GET /heal``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import cast

import httptools
import msgspec

from bench.upstream_replies import Replies, read_request

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
ACCEPTED = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"
REFUSED = b"HTTP/1.1 405 Method Not Allowed\r\nallow: POST\r\ncontent-length: 0\r\n\r\n"


class Server:
    """One MCP server: its replies, how long a call takes (seconds), and whether it hangs."""

    def __init__(self, tools: int, delay: float) -> None:
        self.replies = Replies(tools)
        self.delay = delay
        self.hangs = False

    def page(self, url: bytes) -> bytes | None:
        """What a GET is answered; ``None`` for an address that does not exist."""
        if url in (b"/hang", b"/heal"):
            self.hangs = url == b"/hang"
        elif url != b"/stats":
            return None
        return msgspec.json.encode(dict(self.replies.counts))


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, the few parts of it that MCP clients use."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.parser = httptools.HttpRequestParser(self)
        self.body: list[bytes] = []
        self.url = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.close()

    def on_message_begin(self) -> None:
        self.body.clear()
        self.url = b""

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_body(self, data: bytes) -> None:
        self.body.append(data)

    def on_message_complete(self) -> None:
        if self.parser.get_method() != b"POST":
            page = self.server.page(self.url)
            self.transport.write(REFUSED if page is None else HEAD % (len(page), page))
        elif not self.server.hangs:
            self.post()

    def post(self) -> None:
        request = read_request(b"".join(self.body))
        answer = self.server.replies.answer(request)
        whole = ACCEPTED if answer is None else HEAD % (len(answer), answer)
        if self.server.delay and request.method == "tools/call":
            asyncio.get_running_loop().call_later(self.server.delay, self.transport.write, whole)
        else:
            self.transport.write(whole)


async def serve(servers: int, tools: int, delay: float) -> None:
    """Listen on ``servers`` free ports of the loopback interface until the process is ended."""
    loop = asyncio.get_running_loop()
    listeners = []
    for _ in range(servers):
        connect = partial(Connection, Server(tools, delay))
        listeners.append(await loop.create_server(connect, "127.0.0.1", 0, backlog=1024))
    print("ready", *(listener.sockets[0].getsockname()[1] for listener in listeners), flush=True)
    await asyncio.gather(*(listener.serve_forever() for listener in listeners))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.upstream", description=__doc__)
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--tools", type=int, default=1)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds that each call takes")
    chosen = parser.parse_args()
    run(chosen.servers, chosen.tools, chosen.delay)


def run(servers: int, tools: int, delay: float) -> None:
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):  # there are systems without uvloop: slower, still right
        import uvloop

        factory = uvloop.new_event_loop
    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(servers, tools, delay))


if __name__ == "__main__":
    main()

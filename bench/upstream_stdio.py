"""A fast MCP server over stdin and stdout: ``python -m bench.upstream_stdio --tools 10``.

Reads whatever has arrived, answers all of it in one write. ``bench/stats`` is a request of its own that returns the
messages received, by method.
"""

from __future__ import annotations

import argparse
import os

import msgspec

from bench.upstream_replies import Replies, Request, read_request

CHUNK = 1 << 18


def answer(replies: Replies, request: Request) -> bytes | None:
    if request.method == "bench/stats":
        counts = msgspec.json.encode(dict(replies.counts))
        return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (bytes(request.id), counts)
    return replies.answer(request)


def write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def serve(replies: Replies) -> None:
    """Answer lines until the other side closes the pipe."""
    rest = b""
    while chunk := os.read(0, CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        answers = [answer(replies, read_request(line)) for line in lines if line]
        found = b"".join(one + b"\n" for one in answers if one is not None)
        if found:
            write_all(found)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.upstream_stdio", description=__doc__)
    parser.add_argument("--tools", type=int, default=1)
    serve(Replies(parser.parse_args().tools))


if __name__ == "__main__":
    main()

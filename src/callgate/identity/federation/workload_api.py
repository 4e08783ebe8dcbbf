"""The SPIFFE Workload API: trust bundles of this machine's agent, followed as they change (``SPIFFE_Workload_API.md``).

Two calls of one gRPC service, whose answers are two small messages: they are read here, without generated code.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from callgate.errors import ConfigError

log = logging.getLogger("callgate.identity")

JWT_BUNDLES, X509_BUNDLES = "FetchJWTBundles", "FetchX509Bundles"
#: Where the bundles are in the answers of each.
_FIELDS = {JWT_BUNDLES: 1, X509_BUNDLES: 2}
#: Every request carries it, so that no web page can be made to send one (section 3).
_METADATA = (("workload.spiffe.io", "true"),)
LARGEST = 4 * 1024 * 1024
#: Longest pause between two attempts (seconds).
PAUSE = 30.0
Bundles = dict[str, bytes]


class WorkloadApi:
    """One endpoint, such as ``unix:///run/spire/agent.sock``. Raises ConfigError where gRPC is not installed."""

    def __init__(self, address: str) -> None:
        # gRPC reads this once. With its handlers of fork() some of the programs that we start die before they begin.
        os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
        try:
            import grpc.aio  # 50 ms that only who needs it waits for
        except ImportError:
            raise ConfigError(
                "`workload_api` needs gRPC, which is not installed.", hint="pip install 'callgate[spiffe]'"
            ) from None
        self._grpc = grpc
        self._target = address.removeprefix("tcp://")
        self._address = address

    async def follow(
        self, method: str, take: Callable[[Bundles], Awaitable[None]], failed: Callable[[], None] = lambda: None
    ) -> None:
        """Give ``take`` all bundles, by trust domain, now and whenever they change; never returns.

        A stream lasts as long as the agent does, so it has no deadline. When it ends it is opened anew, after 1, 2, 4
        … 30 s where that fails; ``failed`` is told.
        """
        failures = 0
        while True:
            try:
                async for bundles in self._bundles(method):
                    failures = 0
                    await take(bundles)
            except Exception as error:  # whatever happened, the last good bundle stays in use (TOK-4)
                what = error.code().name if isinstance(error, self._grpc.aio.AioRpcError) else repr(error)
                log.warning("the Workload API at %s does not give bundles: %s", self._address, what)
            failed()
            await asyncio.sleep(min(2.0**failures, PAUSE))
            failures = min(failures + 1, 10)

    async def _bundles(self, method: str) -> AsyncIterator[Bundles]:
        options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", LARGEST)]
        async with self._grpc.aio.insecure_channel(self._target, options=options) as channel:
            ask: Any = channel.unary_stream(f"/SpiffeWorkloadAPI/{method}")
            async for message in ask(b"", metadata=_METADATA):
                yield read_bundles(message, _FIELDS[method])


def read_bundles(message: bytes, field: int) -> Bundles:
    """The map ``trust domain -> bundle`` in a field of a message (``protobuf.dev/programming-guides/encoding``).

    Raises ValueError.
    """
    found: Bundles = {}
    for number, entry in _fields(message):
        if number == field:
            parts = dict(_fields(entry))
            found[parts.get(1, b"").decode()] = parts.get(2, b"")
    return found


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields that have bytes, texts or messages in them, by number; others are skipped."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 2:
            size, at = _varint(message, at)
        elif kind == 0:
            _, at = _varint(message, at)
            continue
        else:
            size = {1: 8, 5: 4}.get(kind, len(message))
        if at + size > len(message):
            raise ValueError("the answer is cut off")
        if kind == 2:
            yield tag >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise ValueError("the answer is cut off")

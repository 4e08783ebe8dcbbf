"""A demo server over stdin and stdout: one message a line."""

from __future__ import annotations

import asyncio
import sys

import msgspec

from callgate.demo.servers.protocol import Offer
from callgate.types import JSON


def serve(offer: Offer) -> None:
    """Answer until stdin ends."""
    asyncio.run(_serve(offer))


async def _serve(offer: Offer) -> None:
    while line := await asyncio.to_thread(sys.stdin.buffer.readline):  # no deadline: the gateway ends it
        answer = await offer.answer(msgspec.json.decode(line, type=dict), _say)
        if answer is not None:
            await _say(answer)


async def _say(message: JSON) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()

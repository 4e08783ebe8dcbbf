"""The `requestState` that modern clients get: sealed (AES-GCM), and bound to the request that it came with.

A state from a client is hostile input (rule MRTR-5). Only who got it can bring it back, through the same door, with the
same method, name and arguments, before it expires, and while the server is configured as it was (MRTR-6).
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from typing import Literal

import msgspec

from callgate.errors import ProtocolError
from callgate.gateway.sealed import Box
from callgate.gateway.wire import INVALID_PARAMS
from callgate.types import Call

#: ``pass``: a modern server asked, and ``inner`` is its own state. ``parked``: a call waits under ``handle``.
#: ``url``: a legacy server wants pages opened, and to be called again.
Kind = Literal["pass", "parked", "url"]

#: Members of ``params`` that a client adds when it comes back with answers.
BROUGHT = frozenset({"inputResponses", "requestState"})
#: The longest state of a server that is wrapped (characters).
LARGEST = 256 * 1024
#: The longest state of ours: JSON can make six characters of one, and base64 four of three.
LONGEST = 9 * LARGEST

FOREIGN = "The requestState is not valid for this request; nothing was run."
EXPIRED = "The requestState has expired; the call was not run again."
CHANGED = "The configuration of the server has changed since it asked; the call was not run again."

# How the answer is wanted is no part of what is asked.
_UNBOUND = BROUGHT | {"task"}
_VERSION = b"\x01"


class Round(msgspec.Struct, frozen=True, array_like=True):
    """What a state carries. ``request`` is the digest of whom and what it belongs to, ``config`` names the server's
    settings, ``node`` the process that made it.
    """

    kind: Kind
    request: bytes
    config: str
    node: bytes
    expires: float
    inner: str | None = None
    handle: bytes = b""


class Seal:
    """Seals and opens states. ``key`` is read when first needed; ``fingerprint`` names the settings of a server."""

    def __init__(
        self, key: Callable[[], bytes], fingerprint: Callable[[str], str], clock: Callable[[], float] = time.time
    ) -> None:
        self.node = os.urandom(8)
        self._box = Box(key, b"round", Round, LONGEST, _VERSION)
        self._fingerprint = fingerprint
        self._clock = clock

    def seal(self, call: Call, kind: Kind, ttl: float, inner: str | None = None, handle: bytes = b"") -> str:
        """The state for a question that was asked during this call."""
        config = self._fingerprint(call.tool.server)
        return self._box.seal(Round(kind, request_digest(call), config, self.node, self._clock() + ttl, inner, handle))

    def open(self, state: object, call: Call) -> Round:
        """What a retry's state carries; raises ``ProtocolError`` (-32602) unless it was made for this very call."""
        round = self._box.open(state)
        if round is None or round.request != request_digest(call):
            raise refused(FOREIGN)
        if round.expires < self._clock():
            raise refused(EXPIRED)
        if round.config != self._fingerprint(call.tool.server):
            raise refused(CHANGED)
        return round


def request_digest(call: Call) -> bytes:
    """Names whom and what a call is about: equal for a call and its retries, and for nothing else."""
    beside = {name: value for name, value in call.params.items() if name not in _UNBOUND}
    tool = call.tool
    bound = [call.principal.key, call.front.door, call.method, tool.server, tool.name, call.arguments, beside]
    return hashlib.sha256(msgspec.json.encode(bound, order="sorted")).digest()


def refused(why: str) -> ProtocolError:
    return ProtocolError(why, INVALID_PARAMS, hint="Make the call anew, without requestState, if it may run twice.")

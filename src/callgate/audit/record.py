"""What is known of one call when it has ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from callgate.types import Front, Outcome, Principal, Shadow


class Record(msgspec.Struct, frozen=True, gc=False):
    """One call, whatever became of it. The time it came in is part of its ``id``.

    ``rule`` decided under policy version ``policy``; ``reason`` says it in a sentence; ``error_code`` is the
    JSON-RPC code that the client got. Durations are nanoseconds (``upstream_ns`` is the server's share), sizes
    bytes. ``shadow`` is what rules in shadow mode would have done. The journal reads ``arguments`` after the call, in
    its own thread: nobody may change them.
    """

    id: int
    principal: Principal
    front: Front
    method: str
    server: str
    tool: str
    arguments: Mapping[str, Any] | None
    outcome: Outcome
    rule: str = ""
    policy: str = ""
    reason: str = ""
    error_code: int | None = None
    duration_ns: int = 0
    upstream_ns: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    trace_id: str = ""
    shadow: Shadow | None = None
    guard: tuple[Mapping[str, Any], ...] = ()

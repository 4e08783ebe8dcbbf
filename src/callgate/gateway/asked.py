"""A call as a client asks for it: what walks through the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from callgate.gateway.seal import Round
from callgate.guard import KeptResult
from callgate.policy import Charge
from callgate.types import Call, Conduct, Front, Principal, Tool, Verdict

UNJUDGED = Verdict("deny")
NOBODY = Conduct()


class Asked(msgspec.Struct):
    """A call as the client asked for it, and what became known of it on its way (for the record).

    ``headers`` are those to be compared with the arguments (``None``: nothing to compare); ``conduct`` is the client's
    end of the call; ``sent`` is ``time.perf_counter_ns()`` when the call left the house, 0 when it did not; ``round``
    is what the client's ``requestState`` carried. ``charge`` is what the call has used of its limits, ``leg`` how
    often it has come back. ``guard`` is what the guard found, ``kept`` the result that is read later, ``linked`` says
    that the answer holds a link of callgate's own (``guarding.py``).
    """

    id: int
    principal: Principal
    front: Front
    name: str
    arguments: Mapping[str, Any]
    meta: Mapping[str, Any]
    received: int
    size: int
    trace_id: str
    headers: Mapping[bytes, bytes] | None = None
    conduct: Conduct = NOBODY
    method: str = "tools/call"
    params: Mapping[str, Any] = msgspec.field(default_factory=dict)
    tool: Tool | None = None
    verdict: Verdict = UNJUDGED
    sent: int = 0
    round: Round | None = None
    charge: Charge | None = None
    leg: int = 0
    guard: tuple[Mapping[str, Any], ...] = ()
    kept: KeptResult | None = None
    linked: bool = False


def call_of(asked: Asked, tool: Tool) -> Call:
    """The call that was asked for, once it is known which tool it is about."""
    return Call(
        asked.id, asked.principal, tool, asked.arguments, asked.front, asked.received, asked.meta, asked.trace_id, "",
        asked.size, asked.method, asked.params,
    )  # fmt: skip

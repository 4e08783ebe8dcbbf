"""The life of one call. Read this page first.

``answer`` is the way of a call through the house, one stage a line; there is no other way to a server. The
caller was recognised when the message came in (``front.py``, ``stdio.py``), so an ``Asked`` always has its
principal. ``account.py`` wraps the way once: whatever happens, one audit record.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from callgate.errors import ConsentNeeded
from callgate.gateway.exchange import exchange
from callgate.gateway.ladder import check_parameters
from callgate.gateway.rounds import returned
from callgate.gateway.scopes import check_scopes
from callgate.gateway.seal import Round
from callgate.policy import settle
from callgate.types import Answer, Call, Conduct, Front, Principal, Tool, Verdict

if TYPE_CHECKING:
    from callgate.gateway.house import House

UNJUDGED = Verdict("deny")
NOBODY = Conduct()


class Asked(msgspec.Struct):
    """A call as the client asked for it, and what became known of it on its way (for the record).

    ``headers`` are those to be compared with the arguments (``None``: nothing to compare); ``conduct`` is the client's
    end of the call; ``sent`` is ``time.perf_counter_ns()`` when the call left the house, 0 when it did not; ``round``
    is what the client's ``requestState`` carried.
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


async def answer(asked: Asked, house: House) -> Answer:
    """From a name to the server's answer."""
    tool = house.known(asked) or await house.resolve(asked)  # exposed name → tool of a server
    asked.tool = tool
    if tool.header_arguments and asked.headers is not None:
        check_parameters(tool, asked.arguments, asked.headers)  # headers say what the body says
    call = call_of(asked, tool)
    if call.params:
        call, asked.round = returned(call, house)  # a client that comes back with answers has our state
    if call.principal.audience:
        check_scopes(call, house)  # a token of ours opens what its scopes say
    asked.verdict = verdict = house.policy.decide(call)  # allow / deny / ask, and the rule that said so
    permitted = settle(call, verdict)  # → Permitted, or Denied / AwaitingApproval
    asked.sent = time.perf_counter_ns()
    try:
        return await exchange(permitted, asked, house)  # the only line that leaves the house
    except ConsentNeeded as needed:  # the server did nothing: its user has to agree first
        return await house.consents.answer(needed, permitted, asked)


def call_of(asked: Asked, tool: Tool) -> Call:
    """The call that was asked for, once it is known which tool it is about."""
    return Call(
        asked.id, asked.principal, tool, asked.arguments, asked.front, asked.received, asked.meta, asked.trace_id, "",
        asked.size, asked.method, asked.params,
    )  # fmt: skip

"""The life of one call. Read this page first.

``answer`` is the way of a call through the house, one stage a line; there is no other way to a server. The
caller was recognised when the message came in (``front.py``, ``stdio.py``), so an ``Asked`` always has its
principal. ``account.py`` wraps the way once: whatever happens, one audit record.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from callgate.errors import ConsentNeeded
from callgate.gateway.asked import NOBODY, UNJUDGED, Asked, call_of
from callgate.gateway.exchange import exchange
from callgate.gateway.guarding import before, bounded, fitting
from callgate.gateway.ladder import check_parameters
from callgate.gateway.policies import treated
from callgate.gateway.rounds import returned
from callgate.gateway.scopes import check_scopes, wanting
from callgate.policy import settle
from callgate.types import Answer

if TYPE_CHECKING:
    from callgate.gateway.house import House

__all__ = ["NOBODY", "UNJUDGED", "Asked", "answer", "call_of"]


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
    if verdict.scopes:
        raise wanting(call, verdict, house)  # a better token would do
    permitted = settle(call, verdict)  # → Permitted, or Denied / AwaitingApproval
    if house.counting.any:
        asked.charge = await house.counting.charge(call, asked)  # counted, or refused: rates, quotas, budgets
    if house.guard.on and (said := before(call, asked, house)) is not None:
        return said  # the model can mend its arguments
    asked.sent = time.perf_counter_ns()
    try:
        reply = await exchange(permitted, asked, house)  # the only line that leaves the house
    except ConsentNeeded as needed:  # the server did nothing: its user has to agree first
        reply = await house.consents.answer(needed, permitted, asked)
    if house.guard.on:
        reply = fitting(reply, call, asked, house)  # results say what their schema says
    if house.policy.treats:
        reply = await treated(reply, call, asked, house)  # redact / cut / block
    return await bounded(reply, call, asked, house) if house.guard.on else reply

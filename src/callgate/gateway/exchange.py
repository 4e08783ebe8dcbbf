"""From a permitted call to its answer, also when the server asks back and client and server differ in era.

Who asks and who is asked decides the way: between equals questions pass through, a modern client's call to a legacy
server is parked (``parking.py``), a legacy client of a modern server is asked in the middle of its call
(``reentry.py``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from callgate.gateway.bus import SUBSCRIBING
from callgate.gateway.finding import ABOUT_TASKS
from callgate.gateway.guarding import given
from callgate.gateway.reentry import reenter
from callgate.gateway.rounds import ASKING, INPUT_REQUIRED, askable, naming
from callgate.gateway.task_answers import told
from callgate.gateway.task_making import made, sent, settled
from callgate.types import Answer, Conduct, Permitted

if TYPE_CHECKING:
    from callgate.gateway.house import House
    from callgate.gateway.pipeline import Asked


def exchange(permitted: Permitted, asked: Asked, house: House) -> Awaitable[Answer]:
    """Send the call; what the server asks meanwhile reaches the client in the way of the client's era."""
    call = permitted.call
    if asked.conduct.ask is not None:
        asked.conduct = naming(asked.conduct, call)
    if call.method != "tools/call":
        if asked.kept is not None:
            return given(asked.kept, asked)
        if call.method in SUBSCRIBING:
            return house.subscriptions.exchange(permitted, asked)
        if call.method in ABOUT_TASKS:
            return told(permitted, asked.conduct, house)
    elif call.tool.task_support or "task" in call.params:

        def onward(each: Permitted, conduct: Conduct) -> Coroutine[Any, Any, Answer]:
            mine = asked if conduct is asked.conduct else msgspec.structs.replace(asked, conduct=conduct)
            work = _onward(each, mine, house)
            return work if asked.charge is None else asked.charge.during(work)

        return made(permitted, asked.conduct, house, onward, fresh=asked.round is None)
    return _onward(permitted, asked, house)


async def _onward(permitted: Permitted, asked: Asked, house: House) -> Answer:
    call = permitted.call
    front = call.front
    if front.era == "modern" and (front.capabilities or asked.round is not None):
        if asked.round is not None and asked.round.kind == "parked":
            return await house.parking.resume(asked.round, permitted, asked)
        if call.method in ASKING and askable(front) and house.upstreams.era(call) != "modern":
            return await house.parking.begin(permitted, asked)
    if call.tool.task_support:
        answer = await sent(permitted, asked.conduct, house)
    else:
        answer = await house.upstreams.send(permitted, asked.conduct)
    if answer.result_type == INPUT_REQUIRED and front.era == "legacy" and answer.era == "modern":
        answer = await reenter(permitted, answer, house, asked.conduct)
    if answer.error is None and (answer.result_type is None or answer.result_type == "complete"):
        return answer  # nearly every one
    return settled(answer, call, house)

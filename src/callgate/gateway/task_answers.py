"""From a permitted request about a task to its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from callgate.gateway.task_fronts import DEEDS
from callgate.gateway.task_ids import unknown
from callgate.gateway.task_keepers import Hop, Keeper, Said, reading
from callgate.gateway.task_legacy import LegacyTask
from callgate.gateway.task_modern import ModernTask
from callgate.gateway.task_own import OwnTask
from callgate.types import Answer, Conduct, Permitted

if TYPE_CHECKING:
    from callgate.gateway.house import House

KEEPERS: dict[str, type[Any]] = {"modern": ModernTask, "legacy": LegacyTask, "callgate": OwnTask}


async def told(permitted: Permitted, conduct: Conduct, house: House) -> Answer:
    """Ask the task's keeper; what it says, the client is told in its own way."""
    call = permitted.call
    id = call.params["taskId"]
    ticket = house.tasks.ids.open(id, call.principal.key)
    if house.tasks.fingerprint(ticket.server) != ticket.digest:
        raise unknown()  # what one server made is not told to another
    entry = house.tasks.find(id, ticket, call)
    keeper: Keeper = KEEPERS[entry.ticket.kept](Hop(permitted, entry, house, conduct))
    try:
        with reading(ticket.server):
            answer = await DEEDS[call.front.era][call.method](keeper, entry, call)
    except Said as said:
        return Answer(error=said.error)
    return msgspec.structs.replace(answer, era=call.front.era)

"""``completion/complete``: the server proposes values for an argument of a prompt or a variable of a URI template.

Judged and recorded under the name of what is completed. Argument and context go to the server as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from callgate.audit import show_id
from callgate.errors import ProtocolError
from callgate.gateway import wire
from callgate.gateway.calling import asked_of, veiling
from callgate.gateway.finding import COMPLETE
from callgate.gateway.inbound import Inbound, Reply
from callgate.gateway.replies import answered, no_method
from callgate.types import PROMPT, RESOURCE, Front

if TYPE_CHECKING:
    from callgate.gateway.house import House

#: The types of references, the member that names what they refer to, the prefix of its name in policy and audit.
REFERENCES = (("ref/prompt", "name", PROMPT), ("ref/resource", "uri", RESOURCE))
#: What goes to the server beside the reference.
SENT = ("argument", "context")


async def complete(inbound: Inbound, front: Front, house: House) -> Reply:
    """Ask the server behind the reference. One that completes nothing says so itself: the method is unknown there."""
    view, params = await house.view_for(front, inbound.principal), inbound.params
    offered = any(house.catalog.offers(server, "completions") for server in view.servers)
    if not offered and not house.catalog.awaited(view):
        raise no_method(COMPLETE, front.era)
    prefix, ref = _reference(params.get("ref"))
    if not isinstance(params.get("argument"), dict):
        raise ProtocolError("completion/complete needs `argument` (an object).", wire.INVALID_PARAMS)
    asked = asked_of(inbound, front, prefix + next(reversed(ref.values())), _said(params))
    asked.method = COMPLETE
    asked.params = {"ref": ref, **{name: value for name, value in params.items() if name in SENT}}
    return answered(inbound.id, await veiling(asked, house), front, show_id(asked.id))


def _reference(said: Any) -> tuple[str, dict[str, str]]:
    """The prefix of the name in policy and audit, and the reference: type and name, nothing that stands beside them."""
    ref = said if isinstance(said, dict) else {}
    for kind, member, prefix in REFERENCES:
        if ref.get("type") == kind and isinstance(ref.get(member), str):
            return prefix, {"type": kind, member: ref[member]}
    hint = "A `ref/prompt` has a `name`, a `ref/resource` a `uri`."
    raise ProtocolError("completion/complete needs `ref` (an object).", wire.INVALID_PARAMS, hint=hint)


def _said(params: dict[str, Any]) -> dict[str, Any]:
    """What policy conditions and the audit log see as arguments: the argument's value under its name."""
    argument = params["argument"]
    name = argument.get("name")
    context = params.get("context")
    known = context.get("arguments") if isinstance(context, dict) else None
    said = dict(known) if isinstance(known, dict) else {}
    return {**said, **({name: argument.get("value")} if isinstance(name, str) else {})}

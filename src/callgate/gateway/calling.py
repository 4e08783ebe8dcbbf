"""Requests that go to a server: tools, prompts, resources, and methods that only the server knows.

Every one of them becomes an ``Asked`` and takes the one way through the pipeline.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from callgate.audit import new_id, show_id
from callgate.errors import Denied, ProtocolError
from callgate.gateway import wire
from callgate.gateway.account import governed
from callgate.gateway.caching import of_read
from callgate.gateway.finding import veiled
from callgate.gateway.inbound import Inbound, Reply
from callgate.gateway.pipeline import Asked
from callgate.gateway.replies import answered, in_old_words, no_method
from callgate.gateway.rewriting import shown
from callgate.telemetry import new_trace_id, parse_traceparent
from callgate.types import METHOD, PROMPT, RESOURCE, Answer, Front

if TYPE_CHECKING:
    from callgate.gateway.house import House

#: Method → the prefix of its names in policy and audit, the member that names what is read, the list it belongs to.
READS = {
    "prompts/get": (PROMPT, "name", "prompts/list"),
    "resources/read": (RESOURCE, "uri", "resources/list"),
}
#: Members of ``params`` that go on to the server beside what policy judges: multi round-trips and tasks.
BESIDE = ("inputResponses", "requestState", "task")
_PLAIN = re.compile(r"[A-Za-z0-9_.$-]+(/[A-Za-z0-9_.$-]+)*")


async def call(inbound: Inbound, front: Front, house: House) -> Reply:
    """``tools/call``."""
    params = inbound.params
    name, arguments = params.get("name"), params.get("arguments", {})
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise ProtocolError("tools/call needs `name` (a string) and `arguments` (an object).", wire.INVALID_PARAMS)
    asked = asked_of(inbound, front, name, arguments)
    if len(params) > 1 + ("arguments" in params) + ("_meta" in params):
        asked.params = beside(params)
    return answered(inbound.message["id"], shown(await governed(asked, house), asked), front, show_id(asked.id))


async def read(inbound: Inbound, front: Front, house: House) -> Reply:
    """``prompts/get`` and ``resources/read``, judged as ``server/prompt:name`` and ``server/resource:uri``."""
    params, method = inbound.params, inbound.method
    prefix, member, listed = READS[method]
    view = await house.view_for(front, inbound.principal)
    if listed not in view.others and not house.catalog.awaited(view) and not house.guard.book.spills:
        raise no_method(method, front.era)
    name, arguments = params.get(member), params.get("arguments", {}) if method == "prompts/get" else {}
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise ProtocolError(f"{method} needs `{member}` (a string).", wire.INVALID_PARAMS)
    asked = asked_of(inbound, front, prefix + name, arguments)
    asked.method = method
    # What was judged, and nothing that stands beside it.
    asked.params = {member: name, **({"arguments": arguments} if arguments else {}), **beside(params)}
    answer = await veiling(asked, house)
    if front.era == "modern" and method == "resources/read":
        answer = of_read(answer, asked, house)
    elif front.era == "legacy" and method == "resources/read":
        answer = in_old_words(answer)
    return answered(inbound.id, answer, front, show_id(asked.id))


async def veiling(asked: Asked, house: House) -> Answer:
    """The answer as its caller may read it, for what is found by guessing as easily as by listing."""
    try:
        return shown(await governed(asked, house), asked)
    except Denied as error:
        raise veiled(error, asked, house) from None


async def forward(inbound: Inbound, front: Front, house: House) -> Reply:
    """A method that is not in the table, at a server's own door: the server may know it (rule EXT-2).

    Policy judges it as ``server/method:NAME``.
    """
    method = inbound.method
    if not inbound.door.startswith("server:") or len(method) > 128 or not _PLAIN.fullmatch(method):
        raise no_method(method, front.era)
    asked = asked_of(inbound, front, METHOD + method, {})
    asked.method = method
    asked.params = {name: value for name, value in inbound.params.items() if name != "_meta"}
    asked.arguments = asked.params
    return answered(inbound.id, await governed(asked, house), front, show_id(asked.id))


def asked_of(inbound: Inbound, front: Front, name: str, arguments: dict[str, Any]) -> Asked:
    """The call that a message asks for, before anything is known about it."""
    meta = inbound.params.get("_meta", {})
    trace = parse_traceparent(meta["traceparent"]) if "traceparent" in meta else None
    return Asked(
        new_id(), inbound.principal, front, name, arguments, meta, inbound.received, inbound.size,
        trace[0] if trace else new_trace_id(), inbound.headers if front.era == "modern" else None, inbound.conduct,
    )  # fmt: skip


def beside(params: dict[str, Any]) -> dict[str, Any]:
    return {name: params[name] for name in BESIDE if name in params}

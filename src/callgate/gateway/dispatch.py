"""From a message to its reply, whatever the transport.

A transport hands over an ``Inbound`` (who, through which door, the decoded message) and gets a ``Reply`` back.
``METHODS`` says for each method in which eras it exists and who answers it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from callgate.audit import new_id, show_id
from callgate.errors import CallgateError, ProtocolError
from callgate.gateway import wire
from callgate.gateway.account import governed
from callgate.gateway.discovery import discover, initialize
from callgate.gateway.ladder import LOG_LEVELS, MISSING_CAPABILITY, envelope
from callgate.gateway.listing import MEMBERS, Listed, page
from callgate.gateway.pipeline import Asked, Emit
from callgate.gateway.session import Session, Transport
from callgate.telemetry import new_trace_id, parse_traceparent
from callgate.types import PROMPT, RESOURCE, Answer, Front, Principal, RpcError

if TYPE_CHECKING:
    from callgate.gateway.house import House

#: HTTP status of JSON-RPC error codes in the modern era; every other code is answered 200 (mcp-protocol section 5).
STATUS = {-32700: 400, -32600: 400, -32601: 404, -32602: 400, -32020: 400, -32021: 400, -32022: 400}
#: What a server's code becomes for a modern client and for a legacy one (rules ERR-1, ERR-4).
TO_MODERN = {-32002: -32602, -32042: -32603}
TO_LEGACY = {-32020: -32602, -32022: -32602}
#: Codes that MCP reserves. What a server says with them is about callgate's own request, not about the client's,
#: and most of them are not defined at all (rules ERR-2, ERR-5).
RESERVED = range(-32099, -32019)
#: Codes of callgate's own (errors.py): a server that answers with one must not pass for the policy.
OWN = range(-31599, -31399)
#: The client called its request off; whoever still reads the answer is told.
CANCELLED = -31499


class Inbound(msgspec.Struct):
    """One message with everything known about how it came in. ``headers`` is ``None`` on stdio."""

    message: dict[str, Any]
    principal: Principal
    door: str
    size: int
    received: int
    headers: Mapping[bytes, bytes] | None = None
    session: Session | None = None
    emit: Emit | None = None

    @property
    def id(self) -> Any:
        return self.message.get("id")

    @property
    def params(self) -> dict[str, Any]:
        return self.message.get("params") or {}


class Reply(msgspec.Struct, frozen=True):
    """What goes back: an HTTP status, the JSON (empty for an accepted notification), a session id, a call id."""

    body: bytes = b""
    status: int = 200
    session: str = ""
    call: str = ""


Method = Callable[[Inbound, Front, "House"], Awaitable[Reply]]


def check_shape(message: Any) -> dict[str, Any]:
    """A request or notification of JSON-RPC 2.0 with object ``params``; raises ``ProtocolError`` (-32600)."""
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise ProtocolError("The body must be one JSON-RPC 2.0 message.")
    if not isinstance(message.get("method"), str):
        raise ProtocolError("The message has no method; responses are not accepted here.")
    if "id" in message and (not isinstance(message["id"], (str, int)) or isinstance(message["id"], bool)):
        raise ProtocolError("The id must be a string or an integer.")
    params = message.get("params", {})
    if not isinstance(params, dict):
        raise ProtocolError("params must be an object.", wire.INVALID_PARAMS)
    meta = params.get("_meta", {})
    if not isinstance(meta, dict):
        raise ProtocolError("params._meta must be an object.", wire.INVALID_PARAMS)
    return message


def id_of(message: Any) -> str | int | None:
    """The id of a message, or ``None`` where there is none that could be answered."""
    id = message.get("id") if isinstance(message, dict) else None
    return id if isinstance(id, (str, int)) and not isinstance(id, bool) else None


def is_response(message: Any) -> bool:
    """Whether a message answers a request of ours."""
    return isinstance(message, dict) and "method" not in message and ("result" in message or "error" in message)


async def modern(inbound: Inbound, house: House) -> Reply:
    """Answer one message of the modern era: stateless, everything is in the message."""
    if "id" not in inbound.message:
        return Reply(status=202)
    try:
        front = envelope(inbound.message, inbound.headers, inbound.door)
        return await _method(inbound, "modern")(inbound, front, house)
    except CallgateError as error:
        return failure(inbound.id, error, modern=True)


async def in_session(inbound: Inbound, house: House) -> Reply:
    """Answer one message inside a legacy session; a request is known by its id while it runs, to be cancelled by it."""
    message, session = inbound.message, inbound.session
    assert session is not None
    if is_response(message):
        return Reply(status=202)  # an answer to a request of ours; there are none yet
    check_shape(message)
    if "id" not in message:
        return _notified(inbound, session)
    key, task = wire.encode(message["id"]), asyncio.current_task()
    if key in session.running:
        raise ProtocolError("A request with this id is still running.")
    assert task is not None
    session.running[key] = task
    try:
        return await _method(inbound, "legacy")(inbound, session.front, house)
    except CallgateError as error:
        # In this era an HTTP error status is about the transport; a client may not look into its body.
        return msgspec.structs.replace(failure(inbound.id, error, modern=False), status=200)
    finally:
        del session.running[key]


def called_off(id: Any) -> Reply:
    """The answer to a request that was cancelled: HTTP wants one, and its sender will ignore it."""
    return Reply(wire.error(id, RpcError(CANCELLED, "The request was cancelled.")))


def failure(id: Any, error: CallgateError, *, modern: bool) -> Reply:
    """The reply for an error of ours, with a hint where there is one."""
    message = f"{error.message} {error.hint}".strip()
    data = dict(error.data) if error.data else None
    body = wire.error(id, RpcError(error.rpc_code, message, data))
    status = getattr(error, "http_status", None) if isinstance(error, ProtocolError) else error.status
    if modern and isinstance(error, ProtocolError) is False:
        status = STATUS.get(error.rpc_code, error.status)
    call = str(data["callId"]) if data and "callId" in data else ""
    return Reply(body, status or 200, call=call)


async def _list(inbound: Inbound, front: Front, house: House) -> Reply:
    view, method = house.view(inbound.door), inbound.message["method"]
    if method != "tools/list" and method not in view.others:
        raise _no_method(method, front.era)
    return _result(inbound, page(house, Listed(method, view, inbound.principal, front), inbound.params.get("cursor")))


async def _call(inbound: Inbound, front: Front, house: House) -> Reply:
    params = inbound.params
    name, arguments = params.get("name"), params.get("arguments", {})
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise ProtocolError("tools/call needs `name` (a string) and `arguments` (an object).", wire.INVALID_PARAMS)
    asked = _asked(inbound, front, name, arguments)
    answer = await governed(asked, house, inbound.emit)
    return _answered(inbound.id, answer, front, show_id(asked.id))


async def _read(inbound: Inbound, front: Front, house: House) -> Reply:
    """``prompts/get`` and ``resources/read`` at a server's own door: judged and recorded as ``server/prompt:name``."""
    params, method = inbound.params, inbound.message["method"]
    prefix, member, listed = READS[method]
    if listed not in house.view(inbound.door).others:
        raise _no_method(method, front.era)
    name, arguments = params.get(member), params.get("arguments", {}) if method == "prompts/get" else {}
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise ProtocolError(f"{method} needs `{member}` (a string).", wire.INVALID_PARAMS)
    asked = _asked(inbound, front, prefix + name, arguments)
    asked.method = method
    # What was judged, and nothing that stands beside it.
    asked.params = {member: name, **({"arguments": arguments} if arguments else {})}
    answer = await governed(asked, house, inbound.emit)
    if front.era == "modern" and method == "resources/read" and answer.error is None:
        answer = msgspec.structs.replace(answer, result=wire.private(answer.result))
    return _answered(inbound.id, answer, front, show_id(asked.id))


def _asked(inbound: Inbound, front: Front, name: str, arguments: dict[str, Any]) -> Asked:
    meta = inbound.params.get("_meta", {})
    trace = parse_traceparent(meta.get("traceparent"))
    return Asked(
        new_id(), inbound.principal, front, name, arguments, meta, inbound.received, inbound.size,
        trace[0] if trace else new_trace_id(), inbound.headers if front.era == "modern" else None,
    )  # fmt: skip


def _answered(id: Any, answer: Answer, front: Front, call: str) -> Reply:
    if answer.error is not None:
        error = _translated(answer.error, front)
        status = STATUS.get(error.code, 200) if front.era == "modern" else 200
        return Reply(wire.error(id, error), status, call=call)
    result = answer.result
    if front.era == "modern" and answer.result_type is None:
        result = wire.with_member(result, b"resultType", b'"complete"')
    return Reply(wire.result(id, result), call=call)


def _translated(error: RpcError, front: Front) -> RpcError:
    """A server's error as a client of this era may see it."""
    codes = TO_MODERN if front.era == "modern" else TO_LEGACY
    if error.code in codes:
        return msgspec.structs.replace(error, code=codes[error.code])
    if error.code == MISSING_CAPABILITY and front.era == "modern" and not _declared(error, front):
        return error
    if error.code in RESERVED or error.code in OWN:
        return RpcError(wire.INTERNAL_ERROR, f"The server refused the request of the gateway: {error.message}")
    return error


def _declared(error: RpcError, front: Front) -> bool:
    """Whether the client declared what a server misses; then what is missing is the gateway's relay of it (ERR-5)."""
    needed = error.data.get("requiredCapabilities") if isinstance(error.data, dict) else None
    return not isinstance(needed, dict) or needed.keys() <= front.capabilities.keys()


async def _ping(inbound: Inbound, front: Front, house: House) -> Reply:
    return _result(inbound, b"{}")


async def _set_level(inbound: Inbound, front: Front, house: House) -> Reply:
    level = inbound.params.get("level")
    if level not in LOG_LEVELS or inbound.session is None:
        raise ProtocolError(f"level must be one of {', '.join(LOG_LEVELS)}.", wire.INVALID_PARAMS)
    inbound.session.set_log_level(level)
    return _result(inbound, b"{}")


async def _discover(inbound: Inbound, front: Front, house: House) -> Reply:
    return _result(inbound, discover(house, house.view(inbound.door), inbound.principal, front))


def start_session(inbound: Inbound, house: House, transport: Transport = "http") -> tuple[Session, Reply]:
    """Answer ``initialize``: a session bound to the principal and the door."""
    session, result = initialize(house, house.view(inbound.door), inbound.principal, inbound.params, transport)
    return session, Reply(wire.result(inbound.id, result), session=session.id)


def _notified(inbound: Inbound, session: Session) -> Reply:
    method = inbound.message["method"]
    if method == "notifications/initialized":
        session.initialized = True
    elif method == "notifications/cancelled":
        task = session.running.get(wire.encode(inbound.params.get("requestId")))
        if task is not None:
            task.cancel()
    return Reply(status=202)


def _method(inbound: Inbound, era: str) -> Method:
    name = inbound.message["method"]
    method = METHODS[era].get(name)
    if method is None:
        raise _no_method(name, era)
    return method


def _no_method(name: str, era: str) -> ProtocolError:
    status = 404 if era == "modern" else 200
    return ProtocolError(f"Method not found: {name[:80]}", wire.METHOD_NOT_FOUND, status=status)


def _result(inbound: Inbound, payload: bytes) -> Reply:
    return Reply(wire.result(inbound.id, payload))


#: Method → the prefix of its names in policy and audit, the member that names what is read, the list it belongs to.
READS = {
    "prompts/get": (PROMPT, "name", "prompts/list"),
    "resources/read": (RESOURCE, "uri", "resources/list"),
}
BOTH: Mapping[str, Method] = {**dict.fromkeys(MEMBERS, _list), **dict.fromkeys(READS, _read)}
METHODS: Mapping[str, Mapping[str, Method]] = {
    "modern": {"server/discover": _discover, "tools/call": _call, **BOTH},
    "legacy": {"ping": _ping, "logging/setLevel": _set_level, "tools/call": _call, **BOTH},
}


def now() -> int:
    return time.perf_counter_ns()

"""What a client is told: a server's answer in the words of the client's era, or an error of ours."""

from __future__ import annotations

from typing import Any

import msgspec

from callgate.errors import CallgateError, InsufficientScope, ProtocolError
from callgate.gateway import wire
from callgate.gateway.counting import headers_of
from callgate.gateway.inbound import Reply
from callgate.gateway.ladder import MISSING_CAPABILITY
from callgate.gateway.rounds import URL_REQUIRED, declares
from callgate.types import Answer, Front, RpcError

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
#: A resource that does not exist, up to 2025-11-25.
NOT_FOUND = -32002
#: The client called its request off; whoever still reads the answer is told.
CANCELLED = -31499


def answered(id: Any, answer: Answer, front: Front, call: str) -> Reply:
    """The reply that carries a server's answer."""
    if answer.error is not None:
        error = answer.error if _pages(answer, front) else translated(answer.error, front)
        status = STATUS.get(error.code, 200) if front.era == "modern" else 200
        return Reply(wire.error(id, error), status, call=call)
    result = answer.result
    if front.era == "modern" and answer.result_type is None:
        result = wire.with_member(result, b"resultType", b'"complete"')
    return Reply(wire.result(id, result), call=call)


def translated(error: RpcError, front: Front) -> RpcError:
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
    return not isinstance(needed, dict) or declares(front.capabilities, needed)


def _pages(answer: Answer, front: Front) -> bool:
    """Whether a server of 2025-11-25 asks a client of that version to open pages, which both of them know."""
    error = answer.error
    asks = (
        error is not None
        and error.code == URL_REQUIRED
        and isinstance(error.data, dict)
        and "elicitations" in error.data
    )
    url = declares(front.capabilities, {"elicitation": {"url": {}}})
    return asks and url and answer.era == "legacy" and front.version == "2025-11-25"


def in_old_words(answer: Answer) -> Answer:
    """A modern server's "there is no such resource" as a legacy client knows it."""
    error = answer.error
    about = error.data if error is not None and isinstance(error.data, dict) else {}
    if error is None or answer.era != "modern" or error.code != wire.INVALID_PARAMS or "uri" not in about:
        return answer
    return msgspec.structs.replace(answer, error=msgspec.structs.replace(error, code=NOT_FOUND))


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
    challenge = error.challenge if isinstance(error, InsufficientScope) else ""
    return Reply(body, status or 200, call=call, challenge=challenge, headers=headers_of(error))


def no_method(name: str, era: str) -> ProtocolError:
    status = 404 if era == "modern" else 200
    return ProtocolError(f"Method not found: {name[:80]}", wire.METHOD_NOT_FOUND, status=status)

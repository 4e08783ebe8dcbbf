"""One message with everything known about how it came in, and what goes back."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from callgate.errors import ProtocolError
from callgate.gateway import wire
from callgate.gateway.session import Session
from callgate.types import Conduct, Front, Principal

if TYPE_CHECKING:
    from callgate.gateway.house import House

#: The client's end of a message whose sender reads no stream and cannot be asked.
NOBODY = Conduct()


class Inbound(msgspec.Struct):
    """A message, who sent it, and through which door. ``headers`` is ``None`` on stdio; ``conduct`` is the client's end
    while the message is answered.
    """

    message: dict[str, Any]
    principal: Principal
    door: str
    size: int
    received: int
    headers: Mapping[bytes, bytes] | None = None
    session: Session | None = None
    conduct: Conduct = NOBODY

    @property
    def id(self) -> Any:
        return self.message.get("id")

    @property
    def method(self) -> str:
        return str(self.message["method"])

    @property
    def params(self) -> dict[str, Any]:
        return self.message.get("params") or {}


class Reply(msgspec.Struct, frozen=True):
    """What goes back: an HTTP status, the JSON (empty for an accepted notification), a session id, a call id, and what
    a refusal says of the token that would do (``WWW-Authenticate``), and further header lines.
    """

    body: bytes = b""
    status: int = 200
    session: str = ""
    call: str = ""
    challenge: str = ""
    headers: bytes = b""


Handler = Callable[[Inbound, Front, "House"], Awaitable[Reply]]


def result(inbound: Inbound, payload: bytes) -> Reply:
    """The reply with this raw JSON as its result."""
    return Reply(wire.result(inbound.id, payload))


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


#: When a message came in.
now = time.perf_counter_ns

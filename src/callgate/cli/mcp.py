"""callgate's own client: one request of the modern era (2026-07-28), stateless, over HTTP."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from callgate import __version__
from callgate.cli.remote import Remote, about
from callgate.egress import EventStream, Response
from callgate.errors import NotFound, Unauthenticated, UpstreamError

VERSION = "2026-07-28"
PREFIX = "io.modelcontextprotocol/"
PROGRESS_TOKEN = "callgate"
_PLAIN = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")

Note = Callable[[Mapping[str, Any]], None]


class Said(msgspec.Struct, frozen=True):
    """What came back: a result or a JSON-RPC error, and the call id where the gateway named one."""

    result: dict[str, Any] | None
    error: dict[str, Any] | None
    call_id: str


async def ask(
    gateway: Remote, path: str, method: str, params: Mapping[str, Any], *, note: Note | None = None, **more: Any
) -> Said:
    """Send one request to the endpoint at ``path``. ``note`` gets every notification that comes before the answer.

    ``headers`` are added to the request, ``timeout`` is seconds. Raises ``NotFound`` when there is no such
    endpoint, ``Unauthenticated``, ``UpstreamError``.
    """
    meta: dict[str, Any] = {
        PREFIX + "protocolVersion": VERSION,
        PREFIX + "clientCapabilities": {},
        PREFIX + "clientInfo": {"name": "callgate", "version": __version__},
    }
    if note is not None:
        meta |= {PREFIX + "logLevel": "info", "progressToken": PROGRESS_TOKEN}
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
    headers = _headers(method, params.get("name")) | more.pop("headers", {})
    if (token := await gateway.credential()) is not None:
        headers["authorization"] = f"Bearer {token}"
    response = await gateway.send("POST", gateway.base + path, headers, msgspec.json.encode(message), **more)
    call_id = response.headers.get(b"callgate-call-id", b"").decode("latin-1")
    try:
        reply = _read(response.body) if response.events is None else await _reply(response.events, note)
    except UpstreamError as error:
        raise about(error, gateway.base) from None
    if response.status == 401:
        raise _stranger(reply, response, gateway.base + path)
    return _said(reply, response.status, call_id, gateway.base + path)


async def _reply(events: EventStream, note: Note | None) -> dict[str, Any]:
    """The answer at the end of a stream; notifications before it go to ``note``."""
    while (event := await events.next()) is not None:
        said = _read(event)
        if "method" not in said:
            events.finish()
            return said
        if note is not None:
            note(said)
    return {}


def _headers(method: str, name: str | None) -> dict[str, str]:
    headers = {
        "accept": "application/json, text/event-stream",
        "content-type": "application/json",
        "mcp-protocol-version": VERSION,
        "mcp-method": method,
    }
    if name is not None:
        headers["mcp-name"] = header_value(name)
    return headers


def header_value(text: str) -> str:
    """A value as a routing header carries it: as it is, or in the base64 sentinel (rule HDR-2).

    >>> header_value("git/status"), header_value("ä")
    ('git/status', '=?base64?w6Q=?=')
    """
    if _PLAIN.fullmatch(text) and not text.startswith("=?base64?"):
        return text
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


def _read(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError:
        return {}


def _stranger(reply: Mapping[str, Any], response: Response, url: str) -> Unauthenticated:
    """A gateway that issues tokens says in its challenge where. What it issued for another endpoint does not open
    this one, which only the audience in `whoami` shows.
    """
    error = reply.get("error")
    message = str(error.get("message", "")) if isinstance(error, dict) else "The gateway does not know who you are."
    hint = "Give your key or token with --token (CALLGATE_TOKEN)."
    challenge = response.headers.get(b"www-authenticate", b"")
    if b"resource_metadata=" in challenge:
        hint = "Sign in with `callgate login`, or give your key or token with --token (CALLGATE_TOKEN)."
    if b'error="invalid_token"' in challenge:
        hint += f" A token must be for {url} or the whole gateway: `callgate whoami` shows its audience."
    return Unauthenticated(message, hint=hint)


def _said(reply: Mapping[str, Any], status: int, call_id: str, url: str) -> Said:
    error, result = reply.get("error"), reply.get("result")
    if isinstance(error, dict) and "code" in error:
        if status == 404 and error["code"] != -32601:
            raise NotFound(str(error.get("message", "")))
        data = error.get("data")
        told = data.get("callId", "") if isinstance(data, dict) else ""
        return Said(None, error, call_id or str(told))
    if isinstance(result, dict):
        return Said(result, None, call_id)
    raise UpstreamError(f"{url} answered {status} and nothing that callgate understands.")

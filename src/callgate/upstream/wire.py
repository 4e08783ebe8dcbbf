"""JSON-RPC as it travels between callgate and a server: what is written, and how an answer is read.

Messages are read once into an envelope whose ``result`` stays raw bytes; nothing is re-modelled.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from callgate.errors import UpstreamError
from callgate.types import Answer, Call, Era, RpcError

from .capabilities import for_modern

MODERN = "2026-07-28"
LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
HOP = "io.modelcontextprotocol/"
METHOD_NOT_FOUND = -32601
INTERNAL_ERROR = -32603
LIST_CHANGED = frozenset(f"notifications/{kind}/list_changed" for kind in ("tools", "prompts", "resources"))
LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")

# As numbers: ``bytes`` looks for a number first and finds that anything else is none, which takes 2,000 instructions.
_LF, _CR = 10, 13
_JUDGED = frozenset({"name", "arguments", "_meta"})
#: A legacy client that set no level gets what servers of its era send by themselves.
UNASKED = b'"%blogLevel":"info"' % HOP.encode()
_FLAGS = re.compile(r"-([0-9a-f]{2})\Z")

encode = msgspec.json.Encoder().encode


class Envelope(msgspec.Struct):
    """Any JSON-RPC message. Absent members have their defaults."""

    id: int | str | None = None
    method: str | None = None
    params: msgspec.Raw = msgspec.Raw(b"")
    result: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = msgspec.Raw(b"")


class _Peek(msgspec.Struct, rename="camel"):
    is_error: bool | None = None
    result_type: str | None = None


_envelope = msgspec.json.Decoder(Envelope).decode
_batch = msgspec.json.Decoder(list[Envelope]).decode
_peek = msgspec.json.Decoder(_Peek).decode
_error = msgspec.json.Decoder(RpcError).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode


def read(message: bytes) -> Envelope:
    """Decode one message; ``UpstreamError`` if it is not a JSON-RPC object."""
    try:
        return _envelope(message)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise UpstreamError(f"sent something that is not a JSON-RPC message ({error})") from None


def read_all(said: bytes) -> Sequence[Envelope]:
    """What a server said at once: one message, or the batch that servers of 2025-03-26 may make of several."""
    try:
        return (read(said),)
    except UpstreamError:
        if found := _batched(said):
            return found
        raise


def _batched(said: bytes) -> Sequence[Envelope]:
    try:
        return _batch(said)
    except (msgspec.MsgspecError, RecursionError):
        return ()


def params_of(envelope: Envelope) -> dict[str, Any]:
    """The parameters of a notification or request; ``{}`` when absent or not an object."""
    try:
        return _object(envelope.params) if len(memoryview(envelope.params)) else {}
    except (msgspec.MsgspecError, RecursionError):
        return {}


def answer(envelope: Envelope, era: Era) -> Answer:
    """The answer in an envelope: a raw one-line UTF-8 JSON object, or the server's error as it is."""
    raw = bytes(envelope.result)
    if not raw or (raw == b"null" and has_error(envelope)):
        return Answer(error=error_of(envelope), era=era)
    try:
        if not raw.isascii():
            raw.decode()
        if _LF in raw or _CR in raw:
            raw = msgspec.json.format(raw, indent=-1)
        peek = _peek(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamError(f"sent a result that cannot be used ({error})") from None
    return Answer(result=raw, era=era, is_error=peek.is_error is True, result_type=peek.result_type)


def has_error(envelope: Envelope) -> bool:
    return bytes(envelope.error) not in (b"", b"null")


def error_of(envelope: Envelope) -> RpcError:
    try:
        return _error(envelope.error)
    except (msgspec.MsgspecError, RecursionError):
        raise UpstreamError("sent a message that is neither a result nor a JSON-RPC error") from None


def result_object(raw: Answer, method: str) -> dict[str, Any]:
    """The result of one of callgate's own requests; its error becomes an ``UpstreamError``."""
    if raw.error is not None:
        raise UpstreamError(f"answered `{method}` with error {raw.error.code}: {raw.error.message[:300]}")
    try:
        return _object(raw.result)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise UpstreamError(f"answered `{method}` with something unusable ({error})") from None


def request(ident: int, method: str, params: Mapping[str, Any] | bytes) -> bytes:
    body = params if isinstance(params, bytes) else encode(params)
    return b'{"jsonrpc":"2.0","id":%d,"method":%b,"params":%b}' % (ident, encode(method), body)


def notification(method: str, params: Mapping[str, Any] | None = None) -> bytes:
    if params is None:
        return b'{"jsonrpc":"2.0","method":%b}' % encode(method)
    return b'{"jsonrpc":"2.0","method":%b,"params":%b}' % (encode(method), encode(params))


class Stamp:
    """Builds the requests of callers, and ``_meta``, for one server's era."""

    def __init__(self, era: Era, client_info: Mapping[str, Any]) -> None:
        self._hop = b""
        self._plain = b""  # the same for a client that declares nothing: nearly every one
        if era == "modern":
            self._hop = b'"%b":"%b","%b":%b,"%b":' % (
                HOP.encode() + b"protocolVersion",
                MODERN.encode(),
                HOP.encode() + b"clientInfo",
                encode(client_info),
                HOP.encode() + b"clientCapabilities",
            )
            self._plain = self._hop + for_modern(None)
        self._names: dict[str, bytes] = {}

    def own(self) -> bytes:
        """``_meta`` of callgate's own requests."""
        return b"{%b}" % self._plain

    def call(self, call: Call, ident: int, wants_progress: bool) -> bytes:
        """The whole request: what was judged, and metadata of this hop."""
        if call.method != "tools/call":
            return self._other(call, ident, wants_progress)
        name = self._names.get(call.tool.name)
        if name is None:
            if len(self._names) > 4096:
                self._names.clear()
            name = self._names[call.tool.name] = encode(call.tool.name)
        meta = self._meta(call, ident, wants_progress)
        return b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":%b,"arguments":%b%b%b}}' % (
            ident,
            name,
            encode(call.arguments),
            _beside(call.params) if call.params else b"",
            b',"_meta":{%b}' % meta if meta else b"",
        )

    def _other(self, call: Call, ident: int, wants_progress: bool) -> bytes:
        meta = self._meta(call, ident, wants_progress)
        body = encode(call.params)
        if meta:
            body = body[:-1] + (b"," if call.params else b"") + b'"_meta":{%b}}' % meta
        return request(ident, call.method, body)

    def _meta(self, call: Call, ident: int, wants_progress: bool) -> bytes:
        """The client's own keys go on; those of its hop, its progress token, its span and its baggage do not."""
        parts = []
        if self._hop:
            front = call.front
            parts.append(self._hop + for_modern(front) if front.capabilities else self._plain)
            if front.log_level is not None:
                parts.append(b'"%blogLevel":%b' % (HOP.encode(), encode(front.log_level)))
            elif front.era == "legacy":
                parts.append(UNASKED)
        if call.trace_id:
            parts.append(b'"traceparent":"%b"' % _traceparent(call))
        if wants_progress:
            parts.append(b'"progressToken":%d' % ident)
        for key, value in call.meta.items():
            if key.startswith(HOP) or key in _OF_THIS_HOP or (key == "traceparent" and call.trace_id):
                continue
            parts.append(encode(key) + b":" + encode(value))
        return b",".join(parts)


#: Keys of the client's `_meta` that are for callgate. Baggage would tell a server what the client, not callgate, says
#: about users and agents (rules DEL-12, DEL-13).
_OF_THIS_HOP = frozenset({"progressToken", "baggage"})


def _beside(params: Mapping[str, Any]) -> bytes:
    """Members of ``tools/call`` that stand beside what was judged: answers to questions, a wish for a task."""
    return b"".join(b",%b:%b" % (encode(name), encode(value)) for name, value in params.items() if name not in _JUDGED)


def _traceparent(call: Call) -> bytes:
    """A child of the call's span (W3C Trace Context, section 3.2); the client's sampling decision stays."""
    flags = "01"
    given = call.meta.get("traceparent")
    if isinstance(given, str) and (found := _FLAGS.search(given)):
        flags = found[1]
    return b"00-%b-%016x-%b" % (call.trace_id.encode(), random.getrandbits(64) or 1, flags.encode())

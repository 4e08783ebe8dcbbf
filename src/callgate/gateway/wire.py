"""JSON-RPC on the wire: read strictly, once; write compactly.

What was judged is what is sent: a message is decoded to plain objects, and everything that leaves is encoded
from them again. A message with duplicate keys is refused, because two readers could see two messages.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from callgate.errors import ProtocolError
from callgate.types import RpcError

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603

decode = msgspec.json.Decoder().decode
encode = msgspec.json.Encoder().encode


def read(body: bytes, max_depth: int) -> Any:
    """Decode one message strictly; raises ``ProtocolError`` (-32700) for anything but plain, finite JSON.

    >>> read(b'{"a":1,"a":2}', 64)
    Traceback (most recent call last):
    callgate.errors.ProtocolError: The message is not valid JSON: the key 'a' appears twice in one object.
    """
    try:
        message = decode(body)
        canonical = encode(message) == body
    except (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError) as why:
        raise _unreadable(str(why) or type(why).__name__) from None
    if not canonical:
        # Only a text that differs from its own re-encoding can hold a key twice.
        _refuse_duplicates(body)
    if body.count(b"[") + body.count(b"{") > max_depth:
        _refuse_deep(message, max_depth)
    return message


def _unreadable(why: str) -> ProtocolError:
    return ProtocolError(f"The message is not valid JSON: {why}.", PARSE_ERROR)


def _refuse_duplicates(body: bytes) -> None:
    try:
        json.loads(body, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as why:
        raise _unreadable(str(why)) from None


def _distinct(pairs: list[tuple[str, Any]]) -> None:
    keys = {key for key, _ in pairs}
    if len(keys) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:64]!r} appears twice in one object")


def _refuse_deep(message: Any, max_depth: int) -> None:
    level, depth = [message], 0
    while level:
        depth += 1
        if depth > max_depth:
            raise ProtocolError(f"The message nests deeper than {max_depth} levels.", PARSE_ERROR)
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, (dict, list))
        ]


def result(id: Any, payload: bytes) -> bytes:
    """A JSON-RPC response around the raw JSON of its result."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (encode(id), payload)


def error(id: Any, problem: RpcError) -> bytes:
    """A JSON-RPC error response; ``id`` is ``None`` when the request's could not be read."""
    return encode({"jsonrpc": "2.0", "id": id, "error": problem})


def notification(method: str, params: dict[str, Any] | None = None) -> bytes:
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if params is not None:
        message["params"] = params
    return encode(message)


def with_member(object_: bytes, key: bytes, value: bytes) -> bytes:
    """The JSON object with one member put in front. The object must not have that member yet.

    >>> with_member(b'{"a":1}', b"b", b"2")
    b'{"b":2,"a":1}'
    """
    rest = object_.lstrip()[1:]
    comma = b"" if rest.lstrip()[:1] == b"}" else b","
    return b'{"%b":%b%b%b' % (key, value, comma, rest)

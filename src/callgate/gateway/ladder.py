"""The checks on a modern request's envelope and headers, in the order that gives one mistake one answer.

Required ``_meta`` keys → headers agree with the body → version supported → (in dispatch) method exists.
Source: specification 2026-07-28, streamable-http, "Request Metadata" and "Server Validation".
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from callgate.errors import ProtocolError
from callgate.gateway.wire import INVALID_PARAMS
from callgate.types import Front, Tool

MODERN_VERSIONS = ("2026-07-28",)
LEGACY_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
#: The same as headers say them.
LEGACY_HEADERS = frozenset(version.encode() for version in LEGACY_VERSIONS)

HEADER_MISMATCH = -32020
MISSING_CAPABILITY = -32021
UNSUPPORTED_VERSION = -32022

PREFIX = "io.modelcontextprotocol/"
VERSION_KEY = PREFIX + "protocolVersion"
CAPABILITIES_KEY = PREFIX + "clientCapabilities"
CLIENT_KEY = PREFIX + "clientInfo"
LOG_LEVEL_KEY = PREFIX + "logLevel"

LOG_LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")

#: Method → the member of ``params`` that the ``Mcp-Name`` header repeats.
NAMED = {
    "tools/call": "name", "prompts/get": "name", "resources/read": "uri",
    "tasks/get": "taskId", "tasks/update": "taskId", "tasks/cancel": "taskId",
}  # fmt: skip
ROUTING = (b"mcp-protocol-version", b"mcp-method", b"mcp-name")

Headers = Mapping[bytes, bytes]


def envelope(message: Mapping[str, Any], headers: Headers | None, door: str) -> Front:
    """Check a modern request and return how it came in; ``headers`` is ``None`` on stdio."""
    meta = _meta(message)
    version, capabilities = meta.get(VERSION_KEY), meta.get(CAPABILITIES_KEY)
    if not isinstance(version, str):
        raise _bad_meta(VERSION_KEY, "a string")
    if not isinstance(capabilities, dict):
        raise _bad_meta(CAPABILITIES_KEY, "an object")
    if headers is not None and not _plainly_agree(message, version, headers):
        _agree(message, version, headers)
    if version not in MODERN_VERSIONS:
        raise unsupported(version)
    level = meta.get(LOG_LEVEL_KEY)
    if level is not None and level not in LOG_LEVELS:
        raise _bad_meta(LOG_LEVEL_KEY, "one of " + ", ".join(LOG_LEVELS))
    if CLIENT_KEY in meta and not isinstance(meta[CLIENT_KEY], dict):
        raise _bad_meta(CLIENT_KEY, "an object")
    transport = "http" if headers is not None else "stdio"
    return Front(door, version, "modern", transport, capabilities, level)  # type: ignore[arg-type]


def is_modern(message: Mapping[str, Any], headers: Headers | None) -> bool:
    """Whether a message opens in the modern way: the body decides, the header only where the body is silent."""
    params = message.get("params")
    meta = params.get("_meta") if isinstance(params, dict) else None
    if isinstance(meta, dict) and (VERSION_KEY in meta or CAPABILITIES_KEY in meta):
        return True
    if headers is None or message.get("method") == "initialize":
        return False
    version = headers.get(b"mcp-protocol-version")
    return version is not None and version not in LEGACY_HEADERS


def unsupported(version: str) -> ProtocolError:
    data = {"supported": list(MODERN_VERSIONS), "requested": version}
    return ProtocolError(f"Unsupported protocol version: {version[:40]}", UNSUPPORTED_VERSION, data=data)


def check_parameters(tool: Tool, arguments: Mapping[str, Any], headers: Headers) -> None:
    """Check the ``Mcp-Param-*`` headers of a call against its arguments (rule HDR-7)."""
    for suffix, path in tool.header_arguments:
        name = b"mcp-param-" + suffix.lower().encode()
        value = _at(arguments, path)
        if value is None or isinstance(value, (dict, list)):
            continue
        raw = headers.get(name)
        if raw is None:
            raise mismatch(f"The header Mcp-Param-{suffix} is missing; the argument {'.'.join(path)} has a value.")
        if not _same(value, decoded(raw)):
            raise mismatch(f"The header Mcp-Param-{suffix} differs from the argument {'.'.join(path)}.")


def mismatch(message: str) -> ProtocolError:
    return ProtocolError(message, HEADER_MISMATCH)


def decoded(raw: bytes) -> str:
    """A header value, its base64 sentinel taken off (rules HDR-2, HDR-3).

    >>> decoded(b"=?base64?w6Q=?=")
    'ä'
    """
    if any(byte < 0x20 or byte > 0x7E for byte in raw):
        raise mismatch("A routing header holds characters that are not allowed in a header.")
    if not (raw.startswith(b"=?base64?") and raw.endswith(b"?=") and len(raw) >= 11):
        return raw.decode("ascii")
    inner = raw[9:-2]
    try:
        plain = base64.b64decode(inner, validate=True)
        if base64.b64encode(plain) != inner:
            raise ValueError
        return plain.decode()
    except (binascii.Error, ValueError):
        raise mismatch("A routing header holds base64 that cannot be decoded.") from None


def _meta(message: Mapping[str, Any]) -> Mapping[str, Any]:
    params = message.get("params")
    meta = params.get("_meta") if isinstance(params, dict) else None
    if not isinstance(meta, dict):
        raise _bad_meta(VERSION_KEY, "a string")
    return meta


def _bad_meta(key: str, what: str) -> ProtocolError:
    return ProtocolError(f"params._meta must hold {key!r} ({what}).", INVALID_PARAMS)


def _plainly_agree(message: Mapping[str, Any], version: str, headers: Headers) -> bool:
    """Whether the headers of a ``tools/call`` are the body's values, letter by letter: nearly every request's are.

    Anything else (another method, an encoded name, a mistake) is looked at closely by ``_agree``.
    """
    name = message["params"].get("name")
    return (
        headers.get(b"mcp-method") == b"tools/call" == message["method"].encode()
        and headers.get(b"mcp-protocol-version") == version.encode()
        and isinstance(name, str)
        and name.isascii()
        and not name.startswith("=?")
        and headers.get(b"mcp-name") == name.encode()
    )


def _agree(message: Mapping[str, Any], version: str, headers: Headers) -> None:
    _match(headers, b"mcp-protocol-version", "MCP-Protocol-Version", version)
    method = message["method"]
    _match(headers, b"mcp-method", "Mcp-Method", method)
    member = NAMED.get(method)
    if member is not None:
        name = message["params"].get(member)
        if isinstance(name, str):
            _match(headers, b"mcp-name", "Mcp-Name", name)


def _match(headers: Headers, key: bytes, name: str, expected: str) -> None:
    raw = headers.get(key)
    if raw is None:
        raise mismatch(f"The header {name} is missing.")
    if raw != expected.encode() and decoded(raw) != expected:
        raise mismatch(f"The header {name} differs from the body.")
    if not raw.isascii() or (raw.startswith(b"=?base64?") and decoded(raw) != expected):
        raise mismatch(f"The header {name} differs from the body.")


def _at(arguments: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if not isinstance(arguments, Mapping):
            return None
        arguments = arguments.get(key)
    return arguments


def _same(value: Any, text: str) -> bool:
    if isinstance(value, bool):
        return text == ("true" if value else "false")
    if isinstance(value, (int, float)):
        try:
            return float(text) == float(value)
        except (ValueError, OverflowError):
            return False
    return bool(text == value)

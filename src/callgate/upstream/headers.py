"""Routing headers of Streamable HTTP (2026-07-28, `basic/transports/streamable-http.mdx`)."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from callgate.types import Tool

_PLAIN = re.compile(r"[\x20-\x7e]*")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def header_value(text: str) -> bytes:
    """A value as it travels (HDR-2): as it is when plain, else ``=?base64?…?=``.

    >>> header_value("naïve")
    b'=?base64?bmHDr3Zl?='
    """
    looks_encoded = text.startswith("=?base64?") and text.endswith("?=")
    if _PLAIN.fullmatch(text) and text == text.strip() and not looks_encoded:
        return text.encode()
    return b"=?base64?%b?=" % base64.b64encode(text.encode("utf-8", "surrogatepass"))


def param_headers(tool: Tool, arguments: Mapping[str, Any]) -> bytes:
    """``Mcp-Param-*`` lines for the arguments that are really sent (HDR-6, HDR-10)."""
    lines = []
    for name, path in tool.header_arguments:
        value = _at(arguments, path)
        if isinstance(value, bool):
            text = "true" if value else "false"
        elif isinstance(value, (str, int)):
            text = str(value)
        elif isinstance(value, float) and value.is_integer():
            text = str(int(value))
        else:
            continue
        if _TOKEN.fullmatch(name):
            lines.append(b"mcp-param-%b: %b\r\n" % (name.lower().encode(), header_value(text)))
    return b"".join(lines)


def _at(arguments: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if not isinstance(arguments, Mapping):
            return None
        arguments = arguments.get(key)
    return arguments

"""``x-mcp-header``: which arguments of a tool are mirrored into ``Mcp-Param-*`` headers.

Source: specification 2026-07-28, streamable-http, "Custom Headers from Tool Parameters" (rules HDR-4, HDR-5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

ANNOTATION = "x-mcp-header"
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TYPES = {"string", "integer", "boolean"}
_ONE = {
    "items", "contains", "unevaluatedItems", "additionalProperties", "propertyNames", "unevaluatedProperties",
    "not", "if", "then", "else", "contentSchema",
}  # fmt: skip
_LISTS = {"allOf", "anyOf", "oneOf", "prefixItems"}
_MAPS = {"patternProperties", "dependentSchemas", "$defs", "definitions"}

HeaderArguments = tuple[tuple[str, tuple[str, ...]], ...]


class BadAnnotation(Exception):
    """The schema carries an annotation that the specification forbids; the tool must not be listed (HDR-5)."""


def header_arguments(schema: object) -> HeaderArguments:
    """The (header suffix, argument path) pairs of a tool's input schema; raises ``BadAnnotation``.

    >>> header_arguments({"properties": {"city": {"type": "string", "x-mcp-header": "City"}}})
    (('City', ('city',)),)
    """
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for path, node in _positions(schema):
        if ANNOTATION not in node:
            continue
        name = _checked(node, path)
        if name.lower() in found:
            raise BadAnnotation(f"{ANNOTATION} {name!r} is used twice")
        found[name.lower()] = (name, path or ())
    return tuple(found.values())


def _checked(node: Mapping[str, Any], path: tuple[str, ...] | None) -> str:
    name = node[ANNOTATION]
    if not path:
        raise BadAnnotation(f"{ANNOTATION} stands where no chain of `properties` leads")
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise BadAnnotation(f"{ANNOTATION} of {'.'.join(path)!r} is not a header token")
    kind = node.get("type")
    if not isinstance(kind, str) or kind not in _TYPES:
        raise BadAnnotation(f"{ANNOTATION} of {'.'.join(path)!r} is on a type other than string, integer, boolean")
    return name


def _positions(root: object) -> Iterator[tuple[tuple[str, ...] | None, Mapping[str, Any]]]:
    """Every schema inside ``root`` with its path of ``properties`` keys (``None`` once another keyword was passed)."""
    stack: list[tuple[tuple[str, ...] | None, object]] = [((), root)]
    while stack:
        path, node = stack.pop()
        if not isinstance(node, dict):
            continue
        yield path, node
        for keyword, value in node.items():
            if keyword == "properties" and isinstance(value, dict):
                stack.extend(((*path, key) if path is not None else None, child) for key, child in value.items())
            elif keyword in _ONE:
                stack.append((None, value))
            elif keyword in _LISTS and isinstance(value, list):
                stack.extend((None, child) for child in value)
            elif keyword in _MAPS and isinstance(value, dict):
                stack.extend((None, child) for child in value.values())

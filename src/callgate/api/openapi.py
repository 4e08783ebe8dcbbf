"""The OpenAPI document, made from the table of operations."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from callgate import __version__
from callgate.api.shapes import Failure

if TYPE_CHECKING:
    from callgate.api.operations import Operation

_ALWAYS = (401, 421)
_PARTS = {"id": "A call id.", "name": "The name of an agent."}


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The OpenAPI 3.1 document; every shape stands once in its components."""
    table = tuple(operations)
    types = {each for one in table for each in (one.gives, one.takes) if isinstance(each, type) and each is not dict}
    order = sorted({*types, Failure}, key=lambda each: each.__name__)
    schemas, components = msgspec.json.schema_components(order, ref_template="#/components/schemas/{name}")
    known = dict(zip(order, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for one in table:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, known)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "callgate admin API",
            "version": __version__,
            "description": "What an operator may read, and revoke. It is served on the admin listener only.",
        },
        "security": [{"bearer": []}, {}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The operator's token, or a credential that the gateway accepts.",
                }
            },
        },
    }


def _operation(one: Operation, known: dict[type, Any]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "description": _PARTS[name]}
        for name in re.findall(r"\{(\w+)\}", one.path)
    ] + [
        {"name": each.name, "in": "query", "schema": {"type": "string"}, "description": each.says} for each in one.query
    ]
    said: dict[str, Any] = {"operationId": one.name, "summary": one.says, "responses": _responses(one, known)}
    if parameters:
        said["parameters"] = parameters
    if one.takes is not None:
        said["requestBody"] = {"required": True, "content": _content(known[one.takes])}
    return said


def _responses(one: Operation, known: dict[type, Any]) -> dict[str, Any]:
    gives = known.get(one.gives, {"type": "object"})
    failures = {
        str(code): {"description": HTTPStatus(code).phrase, "content": _content(known[Failure])}
        for code in sorted({*_ALWAYS, *one.refusals})
    }
    return {"200": {"description": one.says, "content": _content(gives)}, **failures}


def _content(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}

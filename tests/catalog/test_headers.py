"""Which ``x-mcp-header`` annotations hold (rule HDR-4)."""

from __future__ import annotations

from typing import Any

import pytest

from callgate.catalog.headers import BadAnnotation, header_arguments


def schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def mirrored(name: Any = "City", type: Any = "string") -> dict[str, Any]:
    return {"type": type, "x-mcp-header": name}


@pytest.mark.rule("HDR-4")
@pytest.mark.parametrize(
    "broken",
    [
        schema(a=mirrored("")),
        schema(a=mirrored("no spaces")),
        schema(a=mirrored("line\nbreak")),
        schema(a=mirrored(7)),
        schema(a=mirrored(type="number")),
        schema(a=mirrored(type=["string", "null"])),
        schema(a=mirrored(type="object")),
        schema(a=mirrored("City"), b=mirrored("city")),
        schema(a={"type": "array", "items": mirrored()}),
        schema(a={"oneOf": [mirrored()]}),
        {"allOf": [schema(a=mirrored())]},
        {"if": schema(a=mirrored())},
        {"$defs": {"x": mirrored()}},
        mirrored(),
    ],
)
def test_a_forbidden_annotation_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(BadAnnotation):
        header_arguments(broken)


@pytest.mark.rule("HDR-4")
def test_nested_properties_are_reached_and_data_is_not_mistaken_for_an_annotation() -> None:
    nested = schema(place=schema(city=mirrored()), n=mirrored("N", "integer"), ok=mirrored("Ok", "boolean"))
    nested["default"] = {"x-mcp-header": "not one"}
    assert set(header_arguments(nested)) == {("City", ("place", "city")), ("N", ("n",)), ("Ok", ("ok",))}


@pytest.mark.parametrize("nothing", [None, True, {}, [], {"properties": None}])
def test_a_schema_without_annotations_mirrors_nothing(nothing: object) -> None:
    assert header_arguments(nothing) == ()

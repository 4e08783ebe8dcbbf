"""The JSON Schema (2020-12) of ``callgate.yaml``, for editors: made from the model, never by hand."""

from __future__ import annotations

from typing import Any

import msgspec

from .clients import NAME
from .model import Settings


def schema() -> dict[str, Any]:
    """The schema, durations and sizes in their text forms included."""
    _, found = msgspec.json.schema_components([Settings], ref_template="#/$defs/{name}")
    parts = {name: _tidy(part) for name, part in sorted(found.items())}
    whole = parts.pop("Settings")
    names = {"pattern": f"^{NAME.pattern}$"}
    for section in ("servers", "virtual_servers"):
        whole["properties"][section]["propertyNames"] = names
    parts["Server"]["oneOf"] = [{"required": ["command"]}, {"required": ["url"]}]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **whole,
        "title": "callgate.yaml",
        "$defs": parts,
    }


def schema_text() -> str:
    """The schema as it is published in ``docs/callgate.schema.json``."""
    return msgspec.json.format(msgspec.json.encode(schema(), order=None), indent=2).decode() + "\n"


def _tidy(value: Any) -> Any:
    """A pattern beside a number is the text form of a duration or size: there both types are right."""
    if isinstance(value, list):
        return [_tidy(part) for part in value]
    if not isinstance(value, dict):
        return value
    tidied = {key: _tidy(part) for key, part in value.items() if not (key == "required" and part == [])}
    if "pattern" in tidied and tidied.get("type") in ("number", "integer"):
        tidied["type"] = [tidied["type"], "string"]
    return tidied

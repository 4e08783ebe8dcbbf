"""Which servers make tasks of tool calls, in either era, and which of their tools can be tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from callgate.types import JSON, Listing

#: The extension of the modern era.
TASKS = "io.modelcontextprotocol/tasks"
#: What a legacy server declares that makes tasks of tool calls; callgate keeps the list itself.
DECLARED: JSON = {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}


def offers_tasks(listing: Listing) -> bool:
    """Whether a server makes tasks of tool calls, by what it declared."""
    path = ("extensions", TASKS) if listing.era == "modern" else ("tasks", "requests", "tools", "call")
    found: Any = listing.capabilities
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return isinstance(found, Mapping)


def task_support(listing: Listing, definition: Mapping[str, Any]) -> Literal["", "optional", "required"]:
    """Whether a legacy server can run a tool as a task, or runs it in no other way."""
    execution = definition.get("execution")
    support = execution.get("taskSupport") if isinstance(execution, dict) else None
    if listing.era == "modern" or support not in ("optional", "required") or not offers_tasks(listing):
        return ""
    return support  # type: ignore[no-any-return]


def as_task(listing: Listing, definition: JSON) -> JSON:
    """A modern server's tool as clients of 2025-11-25 must see it to ask for a task; its server decides each time."""
    if listing.era != "modern" or not offers_tasks(listing) or "execution" in definition:
        return definition
    return {**definition, "execution": {"taskSupport": "optional"}}

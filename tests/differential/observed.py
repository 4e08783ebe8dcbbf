"""What must be equal of two observations, and what may differ because there is a door."""

from __future__ import annotations

from typing import Any

from tests.differential.speaker import Seen

#: Codes of errors that the door gives in the server's place, in its own words.
DOOR = frozenset({-32601, -32602, -32002})
#: What a list may be told about caching, and in which order it comes, is the door's own (it filters by policy).
#: `resultType` of a modern server reaches legacy clients, who ignore it.
HINTS = ("ttlMs", "cacheScope")
SERVER_INFO = "io.modelcontextprotocol/serverInfo"
LISTS = ("tools", "prompts", "resources", "resourceTemplates")


def essence(seen: Seen) -> dict[str, Any]:
    """An observation without what may differ."""
    kept: dict[str, Any] = {
        "asked": [_told(*each) for each in seen["asked"]],
        "notes": [_told(*each) for each in seen["notes"]],
    }
    if "error" in seen:
        error = seen["error"]
        kept["error"] = (error["code"], "" if error["code"] in DOOR else error["message"])
    if "result" in seen:
        kept["result"] = _result(seen["result"])
    return kept


def _told(method: str, params: Any) -> tuple[str, Any]:
    """A question or notification. callgate gives every call a trace, which servers that trace repeat."""
    if isinstance(params, dict) and "_meta" in params:
        meta = {key: value for key, value in params["_meta"].items() if key != "traceparent"}
        params = {**params, "_meta": meta} if meta else {key: params[key] for key in params if key != "_meta"}
    return method, params


def _entry(entry: dict[str, Any]) -> dict[str, Any]:
    """The door offers tools as tasks to legacy clients, where the server makes tasks in the modern way."""
    return {key: value for key, value in entry.items() if key != "execution"}


def _result(result: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in result.items() if key not in HINTS}
    for name in LISTS:
        if name in kept:
            kept[name] = sorted(map(_entry, kept[name]), key=lambda each: str(each.get("name")))
    if "requestState" in kept or kept.get("resultType") == "input_required":
        kept["requestState"] = "sealed"  # the door seals what the server sealed
    if kept.get("resultType") == "complete":
        del kept["resultType"]
    meta = {key: value for key, value in kept.pop("_meta", {}).items() if key != SERVER_INFO}
    return {**kept, "_meta": meta} if meta else kept

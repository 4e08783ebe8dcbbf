"""What callgate declares to a server: what the client declared, as far as callgate can relay it (rule EXT-3).

The eras write some capabilities differently: ``elicitation: {}`` of a legacy client means forms, ``tasks`` and
``roots.listChanged`` exist only there. Unknown keys are dropped; nothing is ever added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from callgate.types import JSON, Front

#: Methods of servers' requests that clients can be asked, and what the client must have declared for each.
ASKED = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"} | {
    f"tasks/{verb}": "tasks" for verb in ("get", "result", "list", "cancel")
}

_MODERN_TASKS = "io.modelcontextprotocol/tasks"
# These say how the client logs in to callgate; a server has nothing to do with that.
_OF_THE_HOP = frozenset(
    {"io.modelcontextprotocol/oauth-client-credentials", "io.modelcontextprotocol/enterprise-managed-authorization"}
)
_LARGEST = 16 * 1024  # bytes of the extensions that are relayed
_REMEMBERED = 1024  # what clients declared, and what became of it
_LONGEST = 4096  # bytes of a declaration that is remembered

_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_memo: dict[tuple[str, bytes], bytes] = {}


def for_modern(front: Front | None) -> bytes:
    """``clientCapabilities`` of a request to a modern server."""
    if front is None or not front.capabilities:
        return b"{}"
    return _remembered("modern", front, _modern)


def for_legacy(front: Front) -> bytes:
    """``capabilities`` of ``initialize``; equal declarations give equal bytes."""
    return _remembered(f"legacy for {front.era}", front, _legacy) if front.capabilities else b"{}"


def decoded(capabilities: bytes) -> JSON:
    return _decode(capabilities)


def mirrored(front: Front) -> bool:
    """Whether a client of the legacy era declared something that servers can only use on legacy connections."""
    return front.era == "legacy" and not front.capabilities.keys().isdisjoint(ASKED.values())


def permits(declared: Mapping[str, Any], method: str, params: Mapping[str, Any]) -> bool:
    """Whether a server that was told ``declared`` may ask this (PARK-7)."""
    needed = ASKED.get(method)
    allowed = None if needed is None else declared.get(needed)
    if allowed is None:
        return False
    if needed == "elicitation":
        mode = params.get("mode", "form")
        return isinstance(mode, str) and mode in allowed
    return needed != "sampling" or "tools" in allowed or not {"tools", "toolChoice"} & params.keys()


def _remembered(kind: str, front: Front, make: Callable[[Front], JSON]) -> bytes:
    key = kind, _encode(front.capabilities)
    found = _memo.get(key)
    if found is None:
        found = _encode(make(front))
        if len(key[1]) <= _LONGEST:
            if len(_memo) >= _REMEMBERED:
                _memo.clear()
            _memo[key] = found
    return found


def _modern(front: Front) -> JSON:
    known = _common(front.capabilities)
    extensions = _extensions(front.capabilities)
    return known | ({"extensions": extensions} if extensions else {})


def _legacy(front: Front) -> JSON:
    given = front.capabilities
    known = _common(given)
    extensions = _extensions(given)
    extensions.pop(_MODERN_TASKS, None)  # tasks of the legacy era are something else
    if extensions:
        known["extensions"] = extensions
    if front.era == "legacy":
        if "roots" in known and given["roots"].get("listChanged") is True:
            known["roots"] = {"listChanged": True}
        if isinstance(tasks := given.get("tasks"), dict):
            known["tasks"] = {key: tasks[key] for key in ("list", "cancel", "requests") if _is_object(tasks.get(key))}
    return known


def _common(given: Mapping[str, Any]) -> JSON:
    """What both eras write alike."""
    known: JSON = {}
    if isinstance(elicitation := given.get("elicitation"), dict):
        modes: JSON = {mode: {} for mode in ("form", "url") if _is_object(elicitation.get(mode))}
        known["elicitation"] = modes or {"form": {}}
    if isinstance(sampling := given.get("sampling"), dict):
        known["sampling"] = {key: {} for key in ("context", "tools") if _is_object(sampling.get(key))}
    if isinstance(given.get("roots"), dict):
        known["roots"] = {}
    return known


def _extensions(given: Mapping[str, Any]) -> JSON:
    extensions = given.get("extensions")
    if not isinstance(extensions, dict):
        return {}
    relayed = {name: value for name, value in extensions.items() if _is_object(value) and name not in _OF_THE_HOP}
    return relayed if len(_encode(relayed)) <= _LARGEST else {}


def _is_object(value: object) -> bool:
    return isinstance(value, dict)

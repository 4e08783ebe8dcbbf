"""What of a definition is pinned, and how two of them differ.

Everything that a model or a client may read is pinned, members that nobody knows included: what is left out of the
digest is what a server can change unseen. Only pictures (``icons``) are left out, whose addresses expire.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from callgate.types import JSON

UNPINNED = frozenset({"icons"})
#: Characters of a value that a difference shows.
SHOWN = 2000
#: Differences that are named; the rest is counted.
MOST = 200

_encode = msgspec.json.Encoder(order="sorted").encode


class Difference(msgspec.Struct, frozen=True, omit_defaults=True):
    """One difference: where (``inputSchema.properties.path.type``), and both values as JSON (texts as they are)."""

    path: str
    kind: Literal["added", "removed", "changed"]
    before: str = ""
    after: str = ""


def pinned(definition: Mapping[str, Any]) -> bytes:
    """The part of a definition that is pinned: JSON with its members in order."""
    return _encode({name: value for name, value in definition.items() if name not in UNPINNED})


def digest(definition: Mapping[str, Any]) -> str:
    """The SHA-256 of what is pinned (rule GRD-2).

    >>> digest({"name": "a", "title": "b"}) == digest({"title": "b", "name": "a", "icons": []})
    True
    """
    return hashlib.sha256(pinned(definition)).hexdigest()


def differences(before: JSON, after: JSON) -> list[Difference]:
    """How two definitions differ in what is pinned, in the order of paths."""
    old, new = ({name: value for name, value in each.items() if name not in UNPINNED} for each in (before, after))
    found: list[Difference] = []
    for each in _differing("", old, new):
        if len(found) == MOST:
            found.append(Difference("…", "changed", "", f"more than {MOST} differences"))
            break
        found.append(each)
    return sorted(found, key=lambda each: (each.path == "…", each.path))


def _differing(path: str, old: Any, new: Any) -> Iterator[Difference]:
    """A walk over members without recursion, so that deep ones cannot stop it; lists are compared as wholes."""
    stack = [(path, old, new)]
    while stack:
        path, old, new = stack.pop()
        if type(old) is type(new) and old == new:
            continue
        if not isinstance(old, dict) or not isinstance(new, dict):
            yield Difference(path, "changed", _shown(old), _shown(new))
            continue
        for name in sorted(old.keys() | new.keys(), reverse=True):
            inner = f"{path}.{name}" if path else str(name)
            if name in old and name in new:
                stack.append((inner, old[name], new[name]))
            elif name in old:
                yield Difference(inner, "removed", _shown(old[name]))
            else:
                yield Difference(inner, "added", "", _shown(new[name]))


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else _encode(value).decode()
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"

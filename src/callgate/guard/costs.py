"""How much work a JSON Schema can make, counted before anything is validated against it (rule SCH-5).

A validator cannot be interrupted, and a schema comes from a stranger: a page of it can ask for more work than there is
time. So the evaluations are counted that one branch of an instance can cause, by its depth. References must lead
somewhere inside the document.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

#: Bounds on one schema: nesting, objects in it, length of its references.
DEPTH, NODES, REFERENCE = 64, 5000, 2000
#: The deepest instance that is counted for; requests are not deeper (``limits.max_depth``), and results are measured.
LEVELS = 64
#: More evaluations than this for one branch are not told apart.
ENDLESS = 10**9

_IN_PLACE = ("not", "if", "then", "else")
_IN_PLACE_LISTS = ("allOf", "anyOf", "oneOf")
_IN_PLACE_MAPS = ("dependentSchemas", "dependencies")
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_MAPS = frozenset({"properties", "patternProperties", "dependentSchemas", "dependencies", "$defs", "definitions"})
_DATA = frozenset({"const", "enum", "default", "examples", "example"})


class Unusable(Exception):
    """The schema cannot be used; the text says why, about the schema."""


class Graph:
    """A schema as a graph: what is evaluated with a node on the same value, and on values inside."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._ids: dict[str, Any] = {"": schema}
        self._anchors: dict[tuple[str, str], Any] = {}
        self._dynamic: dict[str, list[Any]] = {}
        self._bases: dict[int, str] = {}
        self._nodes: list[dict[str, Any]] = []
        self._gather(schema)
        self._beside = {id(node): list(self._same_value(node)) for node in self._nodes}
        self._order = self._sorted(schema)

    def costs(self) -> tuple[int, ...]:
        """The most evaluations that one branch of an instance causes, by the depth of the instance. The last one
        holds for all deeper ones where it is the same as the one before it.
        """
        before: dict[int, int] = {}
        found: list[int] = []
        for _ in range(LEVELS + 1):
            now = self._level(before)
            found.append(now[id(self._ids[""])])
            if now == before:
                break
            before = now
        return tuple(found)

    def _level(self, before: dict[int, int]) -> dict[int, int]:
        """The cost of each node for instances one deeper than those of ``before``."""
        own: dict[int, int] = {}
        inside: dict[int, tuple[int, int]] = {}
        for node in self._order:
            beside = self._beside[id(node)]
            lists, objects = _in_array(node, before), _in_object(node, before)
            lists += sum(inside[id(each)][0] for each in beside)
            objects += sum(inside[id(each)][1] for each in beside)
            inside[id(node)] = min(lists, ENDLESS), min(objects, ENDLESS)
            own[id(node)] = min(1 + sum(own[id(each)] for each in beside), ENDLESS)
        return {key: min(cost + max(inside[key]), ENDLESS) for key, cost in own.items()}

    def _gather(self, schema: dict[str, Any]) -> None:
        """Every object that may be a schema, with the base of its references."""
        stack: list[tuple[Any, str, int, bool]] = [(schema, "", 0, True)]
        while stack:
            node, base, depth, speaks = stack.pop()
            if depth > DEPTH:
                raise Unusable(f"it nests deeper than {DEPTH} levels")
            if isinstance(node, dict) and speaks:
                self._nodes.append(node)
                base = self._bases[id(node)] = self._named(node, base)
            if len(self._nodes) > NODES:
                raise Unusable(f"it has more than {NODES} parts")
            members = node.items() if isinstance(node, dict) else enumerate(node)
            for name, each in members:
                # Below `properties` every name is a property's, also `enum` or `$ref`.
                if isinstance(each, dict | list) and not (speaks and name in _DATA):
                    stack.append((each, base, depth + 1, not (speaks and name in _MAPS and isinstance(each, dict))))

    def _named(self, node: dict[str, Any], base: str) -> str:
        for key in ("$id", "id"):
            name = node.get(key)
            if isinstance(name, str) and len(name) <= REFERENCE and not (key == "id" and ":" not in name):
                whole, fragment = urldefrag(urljoin(base, name))
                if fragment:
                    self._anchors[whole, fragment] = node
                else:
                    base = whole
                    self._ids.setdefault(base, node)
        for key in ("$anchor", "$dynamicAnchor"):
            name = node.get(key)
            if isinstance(name, str):
                self._anchors[base, name] = node
                if key == "$dynamicAnchor":
                    self._dynamic.setdefault(name, []).append(node)
        return base

    def _same_value(self, node: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for key in _IN_PLACE:
            if isinstance(node.get(key), dict):
                yield node[key]
        for key in _IN_PLACE_LISTS:
            yield from _schemas(node.get(key))
        for key in _IN_PLACE_MAPS:
            yield from _schemas(node.get(key))
        for key in _REFERENCES:
            reference = node.get(key)
            if isinstance(reference, str):
                yield from self._targets(node, reference, key)

    def _targets(self, node: dict[str, Any], reference: str, key: str) -> list[dict[str, Any]]:
        if len(reference) > REFERENCE:
            raise Unusable("it has a reference that is too long")
        whole, fragment = urldefrag(urljoin(self._bases[id(node)], reference))
        if key == "$dynamicRef" and fragment in self._dynamic:
            return self._dynamic[fragment]
        target = self._ids.get(whole) if not fragment or fragment.startswith("/") else None
        if target is not None and fragment:
            target = _pointed(target, fragment)
        elif fragment and target is None:
            target = self._anchors.get((whole, fragment))
        if isinstance(target, bool):
            return []
        if not isinstance(target, dict) or id(target) not in self._bases:
            raise Unusable(f"its reference {reference[:100]!r} leads out of it, and nothing is fetched")
        return [target]

    def _sorted(self, schema: dict[str, Any]) -> list[dict[str, Any]]:
        """All nodes, those first that others are evaluated with. Raises ``Unusable`` for a circle."""
        order: list[dict[str, Any]] = []
        state: dict[int, int] = {}
        for first in self._nodes:
            stack: list[tuple[dict[str, Any], bool]] = [(first, False)]
            while stack:
                node, done = stack.pop()
                if done:
                    state[id(node)] = 2
                    order.append(node)
                elif state.get(id(node)) is None:
                    state[id(node)] = 1
                    stack.append((node, True))
                    for each in self._beside[id(node)]:
                        if state.get(id(each)) == 1:
                            raise Unusable("it refers to itself without end")
                        stack.append((each, False))
        return order


def _schemas(value: Any) -> list[dict[str, Any]]:
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [each for each in members if isinstance(each, dict)]


def _of(value: Any, costs: dict[int, int]) -> int:
    return costs.get(id(value), 0) if isinstance(value, dict) else 0


def _in_array(node: dict[str, Any], costs: dict[int, int]) -> int:
    items = node.get("items")
    places = [*_schemas(node.get("prefixItems")), *(_schemas(items) if isinstance(items, list) else [items])]
    places += [node.get("additionalItems"), node.get("unevaluatedItems")]
    return max(_of(each, costs) for each in places) + _of(node.get("contains"), costs)


def _in_object(node: dict[str, Any], costs: dict[int, int]) -> int:
    named = [*_schemas(node.get("properties")), node.get("additionalProperties"), node.get("unevaluatedProperties")]
    matched = node.get("patternProperties")  # each pattern is tried on each name, whatever is said of the value
    patterns = sum(_of(each, costs) for each in _schemas(matched)) + (len(matched) if isinstance(matched, dict) else 0)
    return max(_of(each, costs) for each in named) + patterns + _of(node.get("propertyNames"), costs)


def _pointed(root: Any, pointer: str) -> Any:
    """What a JSON pointer leads to (RFC 6901), or ``None``."""
    for part in pointer[1:].split("/"):
        step = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(root, dict):
            root = root.get(step)
        elif isinstance(root, list) and step.isdigit() and int(step) < len(root):
            root = root[int(step)]
        else:
            return None
    return root

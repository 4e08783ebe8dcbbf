"""Layers: the same tree from files, environment and flags, merged without losing where each value stands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

from callgate.errors import ConfigError, nearest

from .decode import fields, is_struct, kind, members, split
from .model import Settings
from .node import Node, Source, Span, Step, copy_map
from .yaml_text import scalar

Layer = Literal["flag", "environment", "file", "user file", "system file", "default"]

PREFIX = "CALLGATE_"
# Read by the commands that talk to a gateway, by the demo, and by the store of secrets: not settings.
NOT_SETTINGS = frozenset(
    {"CALLGATE_URL", "CALLGATE_TOKEN", "CALLGATE_ADMIN_URL", "CALLGATE_DEMO_STAY", "CALLGATE_SECRETS_KEY"}
)
SECRET_PREFIX = "CALLGATE_SECRET_"
_ALL_THE_WAY = 100
_SECTIONS = 2  # the file, and the sections in it; one server or virtual server is replaced whole


def merge_files(low: Node, high: Node) -> Node:
    """Lay one file over another: sections merge by key, everything else is replaced."""
    return _merge(low, high, _SECTIONS)


def merge_values(low: Node, high: Node) -> Node:
    """Lay flags or variables, which set single values, over files."""
    return _merge(low, high, _ALL_THE_WAY)


def _merge(low: Node, high: Node, depth: int) -> Node:
    if high.kind == "scalar" and high.data is None:
        return low  # `servers:` with nothing below takes nothing away
    if low.kind != "map" or high.kind != "map" or depth == 0:
        return high
    items, keys = dict(low.items), dict(low.keys)
    for key, child in high.items.items():
        below = items.get(key)
        whole = below is None or (depth == _SECTIONS and key == "policy")  # two policies never mix
        items[key] = child if whole or below is None else _merge(below, child, depth - 1)
        if items[key] is not below:
            keys[str(key)] = high.keys[str(key)]
    return copy_map(high, items, keys)


def from_flags(flags: Mapping[str, Any], folder: str) -> Node:
    """The layer of the command line; ``None`` means that a flag was not given."""
    root = Node("map", Source("command line", "", "flag", folder), Span(0, 0))
    for name, value in flags.items():
        if value is not None:
            source = Source("command line", f"{name}={_shown(value)}", "flag", folder)
            root = _put(root, tuple(name.split(".")), _value(value, source, Span(0, len(name) + 1, 10_000)), len(name))
    return root


def from_environment(env: Mapping[str, str], folder: str, problems: list[ConfigError]) -> Node:
    """The layer of ``CALLGATE_*``: ``__`` separates levels, ``CALLGATE_AUDIT__DURABILITY=strict``.

    Values are read as YAML scalars, values of lists are separated by commas. Unknown names go to ``problems``.
    """
    root = Node("map", Source("environment", "", "environment", folder), Span(0, 0))
    for name, text in sorted(env.items()):
        if not name.startswith(PREFIX) or name in NOT_SETTINGS or name.startswith(SECRET_PREFIX) or not text:
            continue
        source = Source("environment", f"{name}={text}", "environment", folder)
        path = tuple(part.lower() for part in name.removeprefix(PREFIX).split("__"))
        type_ = _type_at(Settings, path)
        if type_ is None:
            if "SECRET" in name:  # a misspelt name does not make it less of one
                source = Source("environment", f"{name}=…", "environment", folder)
            problems.append(_unknown(name, source))
            continue
        span = Span(0, len(name) + 1, 10_000)
        value: Any = text
        if all(kind(part) == "list" for part in members(type_)):
            value = [part.strip() for part in text.split(",") if part.strip()]
        root = _put(root, path, _value(value, source, span), len(name))
    return root


def variables() -> list[str]:
    """The environment variables that set something, without those of single servers."""
    return [PREFIX + "__".join(path).upper() for path in _paths(Settings, ())]


def _unknown(name: str, source: Source) -> ConfigError:
    found = nearest(name, variables())
    hint = f"did you mean `{found}`?" if found else "unset it; `callgate config show` lists the keys"
    return source.wrong(f"environment variable `{name}` names no setting", Span(0, 0, len(name)), hint)


def _paths(type_: Any, path: tuple[str, ...]) -> Iterable[tuple[str, ...]]:
    for key, field in fields(type_).items():
        bare = split(field.type)[0]
        if is_struct(bare):
            yield from _paths(bare, (*path, key))
        elif kind(bare) != "map":
            yield (*path, key)


def _type_at(type_: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        bare = split(type_)[0]
        if is_struct(bare):
            field = fields(bare).get(step)
            type_ = field.type if field is not None else None
        elif kind(bare) == "map" and get_args(bare):
            type_ = get_args(bare)[1]
        else:
            return None
        if type_ is None:
            return None
    whole = all(is_struct(split(part)[0]) or kind(part) == "map" for part in members(type_))
    return None if whole else type_


def _put(root: Node, path: tuple[str, ...], value: Node, key_length: int) -> Node:
    """``root`` with ``value`` at ``path``; every key on the way points at the text that named it."""
    node = value
    span = Span(0, 0, key_length)
    for step in reversed(path):
        outer = Node("map", value.source, span)
        outer.put(step, node, span)
        node = outer
    return merge_values(root, node)


def _value(value: Any, source: Source, span: Span) -> Node:
    if isinstance(value, Mapping):
        node = Node("map", source, span)
        for key, child in value.items():
            node.put(str(key), _value(child, source, span), span)
        return node
    if isinstance(value, (list, tuple)):
        node = Node("list", source, span)
        for at, child in enumerate(value):
            node.put(at, _value(child, source, span))
        return node
    data = scalar(value) if isinstance(value, str) else value
    return Node("scalar", source, span, data, _shown(value))


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def node_at(root: Node, path: Iterable[Step]) -> Node | None:
    node: Node | None = root
    for step in path:
        node = node.items.get(step) if node is not None else None
    return node

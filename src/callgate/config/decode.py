"""Nodes → msgspec types, with every mistake collected and placed.

``msgspec.convert`` stops at the first mistake and knows no places, so the tree is walked along the type first:
unknown and missing keys, wrong types and broken bounds become problems, durations and sizes become numbers. What
is then handed to msgspec is expected to convert.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from callgate.errors import ConfigError, Place, nearest

from .node import Node, Path_, together
from .units import seconds, size

_ABSENT: Any = object()
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "`true` or `false`"}
_UNITS = {"seconds": "a duration such as `30s`", "bytes": "a size such as `1MiB`"}


def decode_node(node: Node, type_: Any, path: Path_ = ()) -> Any:
    """See ``callgate.config.decode``; ``path`` is where the node stands in its document, for messages."""
    walk = _Walk()
    value = walk.value(node, type_, dotted(path))
    if value is _ABSENT and not walk.problems:
        value = walk.struct(Node("map", node.source, node.span), split(type_)[0], dotted(path))
    if not walk.problems:
        try:
            return msgspec.convert(value, type_)
        except msgspec.ValidationError as error:
            walk.leftover(node, dotted(path), str(error))
    raise together(walk.problems, node.source.name)


def dotted(path: Iterable[str | int]) -> str:
    """``("servers", "time", "args", 0)`` → ``servers.time.args[0]``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def split(type_: Any) -> tuple[Any, tuple[msgspec.Meta, ...]]:
    """The type without its annotations, and the annotations."""
    if get_origin(type_) is not Annotated:
        return type_, ()
    bare, *metas = get_args(type_)
    inner, more = split(bare)
    return inner, (*more, *(meta for meta in metas if isinstance(meta, msgspec.Meta)))


def members(type_: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the type alone, without ``None``."""
    bare, _ = split(type_)
    if get_origin(bare) in (Union, types.UnionType):
        return tuple(part for part in get_args(bare) if part is not type(None))
    return (bare,)


def nullable(type_: Any) -> bool:
    return type(None) in get_args(split(type_)[0])


def unit(type_: Any) -> str:
    """``"seconds"``, ``"bytes"`` or ``""``."""
    for meta in split(type_)[1]:
        if meta.extra and "unit" in meta.extra:
            return str(meta.extra["unit"])
    return next((found for part in members(type_) if part is not split(type_)[0] and (found := unit(part))), "")


def is_struct(type_: Any) -> bool:
    return isinstance(type_, type) and issubclass(type_, msgspec.Struct)


@cache
def fields(type_: Any) -> Mapping[str, msgspec.structs.FieldInfo]:
    """The keys of a struct as they are written in a file."""
    return {field.encode_name: field for field in msgspec.structs.fields(type_)}


def kind(type_: Any) -> str:
    """What a type looks like in a file: ``map``, ``list``, ``any``, ``odd`` (left to msgspec) or ``scalar``."""
    bare = split(type_)[0]
    origin = get_origin(bare) or bare
    if origin is Any or origin is object:
        return "any"
    if is_struct(origin):
        config = origin.__struct_config__
        return "odd" if config.array_like or config.tag is not None else "map"
    if origin in (dict, Mapping) or getattr(origin, "__name__", "") == "Mapping":
        return "map"
    if isinstance(origin, type) and issubclass(origin, (tuple, list, set, frozenset)):
        args = get_args(bare)
        return "odd" if issubclass(origin, tuple) and args and args[-1] is not Ellipsis else "list"
    return "scalar"


def describe(type_: Any) -> str:
    """What a value of this type is called in a message."""
    if found := unit(type_):
        return _UNITS[found]
    parts = []
    for part in members(type_):
        bare = split(part)[0]
        if get_origin(bare) is Literal:
            parts.append(one_of(get_args(bare)))
        else:
            parts.append({"map": "a mapping", "list": "a list"}.get(kind(bare)) or _WORDS.get(bare, "a value"))
    return " or ".join(dict.fromkeys(parts))


def one_of(choices: Iterable[Any]) -> str:
    return "one of " + ", ".join(f"`{choice}`" for choice in choices)


def _found(node: Node) -> str:
    if node.kind != "scalar":
        return "a mapping" if node.kind == "map" else "a list"
    if node.data is None:
        return "nothing"
    if node.data == "":
        return "empty text"
    return f"`{_cut(node.raw)}`" if isinstance(node.data, (bool, int, float)) else f"the text `{_cut(node.raw)}`"


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


class _Walk:
    def __init__(self) -> None:
        self.problems: list[ConfigError] = []

    def wrong(self, message: str, place: Place, hint: str = "") -> Any:
        self.problems.append(ConfigError(message, hint=hint, place=place))
        return _ABSENT

    def value(self, node: Node, type_: Any, name: str) -> Any:
        """The value of ``node`` ready for msgspec; ``_ABSENT`` when empty or when a problem was noted."""
        if node.kind == "scalar" and node.data is None:  # `servers:` with nothing below it
            return None if nullable(type_) or type_ is Any else _ABSENT
        choices = members(type_)
        fitting = [part for part in choices if kind(part) in (node.kind, "any")]
        if not fitting:
            return self.misfit(node, type_, name)
        if node.kind == "map":
            return self.mapping(node, fitting[0], name)
        if node.kind == "list":
            return self.sequence(node, fitting[0], type_, name)
        return self.scalar(node, type_, name)

    def misfit(self, node: Node, type_: Any, name: str) -> Any:
        if any(kind(part) == "odd" for part in members(type_)):
            return node.plain()
        hint = ""
        if node.kind == "scalar" and any(kind(part) == "list" for part in members(type_)):
            hint = f"write it as a list: [{_cut(node.raw)}]"
        return self.wrong(f"{_named(name)} must be {describe(type_)}, not {_found(node)}", node.place(), hint)

    def mapping(self, node: Node, part: Any, name: str) -> Any:
        bare = split(part)[0]
        if is_struct(bare):
            return self.struct(node, bare, name)
        args = get_args(bare)
        if kind(part) == "any" or not args:
            return node.plain()
        values = {key: self.required(child, args[1], _join(name, key)) for key, child in node.fields()}
        return {key: value for key, value in values.items() if value is not _ABSENT}

    def struct(self, node: Node, type_: Any, name: str) -> Any:
        known = fields(type_)
        for key in node.items:
            if key not in known:
                self.unknown(node, str(key), known, name)
        values = {}
        for key, field in known.items():
            child = node.items.get(key)
            value = self.required(child, field.type, _join(name, key), field.required) if child is not None else _ABSENT
            if child is None and field.required:
                place = node.place()
                self.wrong(f"{_named(name)} needs the key `{key}`", place, f"add `{key}:` with {describe(field.type)}")
            if value is not _ABSENT:
                values[key] = value
        return values

    def unknown(self, node: Node, key: str, known: Mapping[str, Any], name: str) -> None:
        found = nearest(key, known) or nearest(_snake(key), known)
        hint = f"did you mean `{found}`?" if found else "known keys: " + ", ".join(f"`{one}`" for one in known)
        where = f" in `{name}`" if name else ""
        self.wrong(f"unknown key `{key}`{where}", node.key_place(key), hint)

    def required(self, node: Node, type_: Any, name: str, needed: bool = True) -> Any:
        """``value``, where emptiness is a problem unless a default stands in."""
        before = len(self.problems)
        value = self.value(node, type_, name)
        empty = value is _ABSENT and len(self.problems) == before
        if empty and needed and any(is_struct(split(part)[0]) for part in members(type_)):
            return self.struct(Node("map", node.source, node.span), members(type_)[0], name)
        if empty and needed:
            return self.wrong(f"{_named(name)} is empty", node.place(), f"it must be {describe(type_)}")
        return value

    def sequence(self, node: Node, part: Any, type_: Any, name: str) -> Any:
        args = get_args(split(part)[0])
        if kind(part) == "any" or not args:
            return node.plain()
        values = [self.required(child, args[0], f"{name}[{at}]") for at, child in node.items.items()]
        _, metas = split(type_)
        least = max((meta.min_length or 0 for meta in metas), default=0)
        if len(values) < least:
            return self.wrong(
                f"{_named(name)} needs at least {least} entry", node.place(), "add one, or remove the key"
            )
        return [value for value in values if value is not _ABSENT]

    def scalar(self, node: Node, type_: Any, name: str) -> Any:
        data = node.data
        if measure := unit(type_):
            if isinstance(data, str):
                data = seconds(data) if measure == "seconds" else size(data)
            if data is None:
                return self.wrong(
                    f"{_named(name)} must be {_UNITS[measure]}, not {_found(node)}", node.place(), _unit_hint(measure)
                )
        elif isinstance(data, (bool, int, float)) and self.wants_text(type_):
            data = node.raw  # `args: [--port, 8080]`: no reason to be strict, the text is at hand
        try:
            msgspec.convert(data, type_)
        except msgspec.ValidationError as error:
            return self.refuse(node, data, type_, name, str(error))
        return data

    def wants_text(self, type_: Any) -> bool:
        parts = [split(part)[0] for part in members(type_)]
        return str in parts and not any(part in (bool, int, float) or part is Any for part in parts)

    def refuse(self, node: Node, data: Any, type_: Any, name: str, why: str) -> Any:
        choices = [choice for part in members(type_) if get_origin(part) is Literal for choice in get_args(part)]
        if choices:
            found = nearest(node.raw, [str(choice) for choice in choices])
            hint = f"did you mean `{found}`?" if found else ""
            return self.wrong(f"{_named(name)} must be {one_of(choices)}, not {_found(node)}", node.place(), hint)
        bound = _bound(data, type_)
        if data == "" and bound.startswith("text"):
            return self.wrong(f"{_named(name)} is empty", node.place(), f"it must be {bound}")
        if bound:
            return self.wrong(f"{_named(name)} must be {bound}, not {_found(node)}", node.place())
        if why.startswith("Expected") and describe(type_) != "a value":
            hint = ""
            if isinstance(data, str) and bool in members(type_):
                hint = "write `true` or `false`; other words are text"
            return self.wrong(f"{_named(name)} must be {describe(type_)}, not {_found(node)}", node.place(), hint)
        return self.wrong(f"{_named(name)}: {why}", node.place())

    def leftover(self, node: Node, name: str, why: str) -> None:
        """What only msgspec saw (unions of structs, ``__post_init__``); its path is as exact as it can be."""
        message, _, path = why.partition(" - at `$")
        for step in path.rstrip("`").replace("[", ".[").split("."):
            key: str | int = int(step[1:-1]) if step[1:-1].isdigit() else step
            if key in node.items:
                node, name = node.items[key], f"{name}[{key}]" if isinstance(key, int) else _join(name, key)
        self.wrong(f"{_named(name)}: {message}", node.place())


def _named(name: str) -> str:
    return f"`{name}`" if name else "the file"


def _snake(key: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[-\s]", "_", key).lower()


def _join(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _unit_hint(measure: str) -> str:
    if measure == "seconds":
        return "write seconds as a number, or a unit: `250ms`, `30s`, `5m`, `1h`"
    return "write bytes as a number, or a unit: `64KB`, `1MiB`, `1GiB`"


def _bound(data: Any, type_: Any) -> str:
    """The bound that ``data`` breaks, in words."""
    metas = [*split(type_)[1], *(meta for part in members(type_) for meta in split(part)[1])]
    number = isinstance(data, (int, float)) and not isinstance(data, bool)
    for meta in metas:
        if number and meta.gt is not None and data <= meta.gt:
            return f"greater than {meta.gt}"
        if number and meta.ge is not None and data < meta.ge:
            return f"at least {meta.ge}"
        if number and meta.le is not None and data > meta.le:
            return f"at most {meta.le}"
        if isinstance(data, str) and meta.min_length and len(data) < meta.min_length:
            return "text that is not empty"
        if isinstance(data, str) and meta.pattern:
            return f"text that matches `{meta.pattern}`"
    return ""

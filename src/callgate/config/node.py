"""The tree of a parsed file: every value knows the file, line and column that it came from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from callgate.errors import ConfigError, Place

Step = str | int
Path_ = tuple[Step, ...]

_BREAKS = re.compile(r"\r\n|[\n\r\x85\u2028\u2029]")  # YAML counts all of these as line ends
MAX_DEPTH = 64
MAX_NODES = 200_000


class Span(NamedTuple):
    """0-based line and column, and how many characters of that line are meant."""

    line: int
    column: int
    length: int = 1


class Source:
    """Where text came from: a file, an environment variable, the command line.

    ``layer`` is set by the loader; ``folder`` is what relative paths inside the text resolve against.
    """

    __slots__ = ("folder", "layer", "lines", "name")

    def __init__(self, name: str, text: str, layer: str = "", folder: str = "") -> None:
        self.name = name
        self.lines = _BREAKS.split(text)
        self.layer = layer
        self.folder = folder

    def place(self, span: Span) -> Place:
        line = min(span.line, len(self.lines) - 1)
        text = self.lines[line]
        column = min(span.column, len(text))
        length = max(1, min(span.length, len(text) - column))
        return Place(file=self.name, line=line + 1, column=column + 1, length=length, text=text)

    def wrong(self, message: str, span: Span, hint: str = "") -> ConfigError:
        return ConfigError(message, hint=hint, place=self.place(span))


class Node:
    """One value. A mapping or list keeps its children in ``items``, a scalar its value in ``data``.

    ``raw`` is a scalar as it was written (``"1.10"`` for the number 1.1); ``keys`` are the places of the keys
    of a mapping; ``size`` counts this node and everything below, aliases counted each time they are used.
    """

    __slots__ = ("data", "items", "keys", "kind", "raw", "size", "source", "span")

    def __init__(self, kind: str, source: Source, span: Span, data: Any = None, raw: str = "") -> None:
        self.kind = kind  # "map", "list" or "scalar"
        self.source = source
        self.span = span
        self.data = data
        self.raw = raw
        self.items: dict[Step, Node] = {}
        self.keys: dict[str, Span] = {}
        self.size = 1

    def put(self, key: Step, value: Node, span: Span | None = None) -> None:
        self.items[key] = value
        self.size += value.size
        if span is not None and isinstance(key, str):
            self.keys[key] = span

    def plain(self) -> Any:
        """The value as dicts, lists and scalars."""
        if self.kind == "map":
            return {key: value.plain() for key, value in self.items.items()}
        if self.kind == "list":
            return [value.plain() for value in self.items.values()]
        return self.data

    def fields(self) -> Iterator[tuple[str, Node]]:
        for key, value in self.items.items():
            yield str(key), value

    def place(self) -> Place:
        return self.source.place(self.span)

    def key_place(self, key: str) -> Place:
        """Where the key of a mapping stands. After a merge, key and mapping may come from different files."""
        span = self.keys.get(key)
        if span is None:
            return self.place()
        child = self.items.get(key)
        return (child.source if child is not None else self.source).place(span)


def copy_map(node: Node, items: Mapping[Step, Node], keys: Mapping[str, Span]) -> Node:
    """A mapping with the place of ``node`` and other children."""
    fresh = Node("map", node.source, node.span)
    for key, value in items.items():
        fresh.put(key, value, keys.get(str(key)))
    return fresh


def together(problems: list[ConfigError], name: str) -> ConfigError:
    """One error out of several, in the order of the files: a single problem speaks for itself."""
    files: dict[str, int] = {}
    for problem in problems:
        files.setdefault(problem.place.file if problem.place else "", len(files))
    problems = sorted(problems, key=lambda problem: _order(problem, files))
    first = problems[0]
    if len(problems) == 1:
        return ConfigError(first.message, hint=first.hint, place=first.place, problems=problems)
    return ConfigError(f"{name} has {len(problems)} problems", place=first.place, problems=problems)


def _order(problem: ConfigError, files: Mapping[str, int]) -> tuple[int, int, int]:
    place = problem.place
    return (files[place.file], place.line, place.column) if place else (files[""], 0, 0)

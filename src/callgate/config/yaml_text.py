"""YAML text → nodes.

The parser is PyYAML's, the rest is ours: only ``true`` and ``false`` are booleans (``on``, ``off``, ``yes`` and
``no`` are text), a key stands once and is text, and what aliases expand to is bounded. The tree is built from
parser events with a stack of our own, so deep nesting is refused instead of exhausting the C stack.
"""

from __future__ import annotations

import math
import re
from typing import Any

from callgate.errors import ConfigError

from .node import MAX_DEPTH, MAX_NODES, Node, Source, Span, Step, together

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS = {"": None, "~": None, **{form: value for word, value in (("null", None), ("true", True), ("false", False))
                                  for form in (word, word.title(), word.upper())}}  # fmt: skip
_TAG = "tag:yaml.org,2002:"
_BRACKETS = "check that each `[` and `{` is closed and that commas stand between the parts"
_INDENT = "check the indentation: entries of one list or mapping start in the same column"
# What the parser says (a part of it), what we say, and what to do.
_SYNTAX = (
    ("unexpected end of stream", "this quote is never closed", "close it, or remove it"),
    ("expected ',' or", "a comma or a closing bracket is missing", _BRACKETS),
    ("expected node content", "a value is missing here", _BRACKETS),
    ("expected the node content", "a value is missing here", _BRACKETS),
    (
        "mapping values are not allowed",
        "a `:` cannot stand here",
        "put text with a `: ` in quotes, or check the indentation",
    ),
    ("expected ':'", "a key without a `:` after it", "add the `:`, or check the indentation"),
    ("expected key", "a key is expected here", _INDENT),
    ("expected <block end>", "this does not belong to the lines above", _INDENT),
    ("expected '-'", "a `-` is expected here", _INDENT),
    ("cannot start any token", "a value cannot start with this character", "put the value in quotes"),
    ("unknown escape", "a wrong escape in this text", r"write a backslash as \\, or use single quotes"),
    ("alphabetic or numeric", "`*` and `&` at the start of a value need a name", "put the value in quotes"),
)


def scalar(text: str) -> Any:
    """The value of a plain scalar: null, a boolean, a number, else the text itself.

    Numbers with leading zeros stay text: YAML versions disagree on what they mean.

    >>> [scalar(text) for text in ("true", "on", "12", "1.5", "0x10", "010", "")]
    [True, 'on', 12, 1.5, 16, '010', None]
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text, 0) if len(text) <= 100 else text
    if _FLOAT.fullmatch(text):
        number = float(text)
        return number if math.isfinite(number) else text
    return text


def parse_yaml(text: str, source: Source) -> Node:
    """Parse one YAML document.

    Raises ``ConfigError`` with every problem found.
    """
    import yaml  # 10 ms, and only needed when there is a file

    builder = _Builder(source)
    parser: Any = None
    try:
        parser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
        while parser.check_event():
            builder.take(parser.get_event())
    except yaml.MarkedYAMLError as error:
        builder.problems.append(_syntax(error, source, builder.stack))
    except yaml.reader.ReaderError as error:
        builder.problems.append(_unreadable(error, text, source))
    except UnicodeEncodeError as error:
        builder.problems.append(_strange(text, error.start, source))
    except _Stop:
        pass
    finally:
        if parser is not None:
            parser.dispose()
    if builder.problems:
        raise together(builder.problems, source.name)
    return builder.root or Node("scalar", source, Span(0, 0))


class _Stop(Exception):
    """The problem is such that reading on makes no sense."""


class _Open:
    """A mapping or list that is not closed yet."""

    __slots__ = ("key", "key_span", "node")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.key: str | None = None
        self.key_span = node.span


class _Builder:
    """Builds the tree from events."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[ConfigError] = []
        self.root: Node | None = None
        self.stack: list[_Open] = []
        self.anchors: dict[str, Node] = {}
        self.count = 0
        self.documents = 0

    def take(self, event: Any) -> None:
        kind = type(event).__name__
        if kind == "ScalarEvent":
            self.add(self.scalar(event), event.anchor)
        elif kind == "MappingStartEvent" or kind == "SequenceStartEvent":
            self.open(event, "map" if kind == "MappingStartEvent" else "list")
        elif kind == "MappingEndEvent" or kind == "SequenceEndEvent":
            self.close()
        elif kind == "AliasEvent":
            self.alias(event)
        elif kind == "DocumentStartEvent":
            self.documents += 1
            if self.documents > 1:
                self.stop(
                    "a second document starts here", _span(event), "keep one document in a file; remove the `---`"
                )

    def wrong(self, message: str, span: Span, hint: str = "") -> None:
        self.problems.append(self.source.wrong(message, span, hint))
        if len(self.problems) >= 50:  # more does not help anybody
            raise _Stop

    def stop(self, message: str, span: Span, hint: str) -> None:
        self.wrong(message, span, hint)
        raise _Stop

    def open(self, event: Any, kind: str) -> None:
        span = _span(event)
        if len(self.stack) >= MAX_DEPTH:
            self.stop(f"nested more than {MAX_DEPTH} levels deep", span, "flatten the file")
        if event.tag not in (None, "!", _TAG + ("map" if kind == "map" else "seq")):
            self.wrong(f"tag `{_short(event.tag)}` is not known here", span, "remove the tag")
        node = Node(kind, self.source, span)
        if event.anchor:
            self.anchors[event.anchor] = node
        self.stack.append(_Open(node))

    def close(self) -> None:
        self.add(self.stack.pop().node, None)

    def alias(self, event: Any) -> None:
        span = _span(event)
        node = self.anchors.get(event.anchor)
        if node is None:
            self.wrong(f"alias `*{event.anchor}` names nothing", span, "text that starts with `*` must be in quotes")
            node = Node("scalar", self.source, span)
        elif any(node is part.node for part in self.stack):
            self.stop(f"alias `*{event.anchor}` contains itself", span, "write the value out instead")
        self.add(node, None, span)

    def add(self, node: Node, anchor: str | None, span: Span | None = None) -> None:
        span = span or node.span
        if anchor:
            self.anchors[anchor] = node
        self.count += node.size if span is not node.span else 1
        if self.count > MAX_NODES:
            self.stop(f"more than {MAX_NODES:,} values after expanding aliases", span, "write the values out instead")
        if not self.stack:
            self.root = node
        elif self.stack[-1].node.kind == "list":
            parent = self.stack[-1].node
            parent.put(len(parent.items), node)
        else:
            self.add_to_map(self.stack[-1], node, span)

    def add_to_map(self, part: _Open, node: Node, span: Span) -> None:
        if part.key is None:
            part.key, part.key_span = self.key(node, span), span
            return
        key, part.key = part.key, None
        if key in part.node.items:
            first = part.node.keys[key].line + 1
            self.wrong(
                f"key `{key}` is given twice", part.key_span, f"it stands in line {first} already; keep one of them"
            )
        else:
            part.node.put(key, node, part.key_span)

    def key(self, node: Node, span: Span) -> str:
        if node.kind == "scalar" and node.data == "<<" and node.raw == "<<":
            self.wrong("merge keys (`<<`) are not supported", span, "write the keys out")
        elif node.kind == "scalar" and isinstance(node.data, str):
            return node.data
        elif node.kind == "scalar":
            shown = node.raw or "(nothing)"
            self.wrong(f"key `{shown}` is not text", span, f'put it in quotes: "{node.raw}"')
        else:
            self.wrong("a key must be text, not a list or mapping", span, "put the key in quotes")
        return f"\0{len(self.problems)}"  # a stand-in, so that the value after it is still read

    def scalar(self, event: Any) -> Node:
        tag, text, span = event.tag, event.value, _span(event)
        data: Any = text
        if tag is None:
            data = scalar(text) if event.implicit[0] else text
        elif tag in ("!", _TAG + "str"):
            pass
        elif tag in (_TAG + "int", _TAG + "float", _TAG + "bool", _TAG + "null"):
            data = scalar(text)
        else:
            self.wrong(f"tag `{_short(tag)}` is not known here", span, "remove the tag")
        return Node("scalar", self.source, span, data, text)


def _span(event: Any) -> Span:
    start, end = event.start_mark, event.end_mark
    length = end.column - start.column if end.line == start.line else 10_000
    return Span(start.line, start.column, max(1, length))


def _short(tag: str) -> str:
    return tag.replace(_TAG, "!!")


def _syntax(error: Any, source: Source, stack: list[_Open]) -> ConfigError:
    problem = str(error.problem or error.context or "unreadable")
    mark = error.problem_mark or error.context_mark
    span = Span(mark.line, mark.column) if mark is not None else Span(0, 0)
    if "end of stream" in problem or not _line(source, span).strip():
        # The end of the file tells nothing; where the open part starts does.
        context = error.context_mark
        opened = [Span(context.line, context.column)] if context is not None else []
        opened += [part.node.span for part in stack[-1:]]
        span = next((found for found in opened if _line(source, found).strip()), span)
    text = _line(source, span)
    if "cannot start any token" in problem and text[span.column : span.column + 1] == "\t":
        return source.wrong("not valid YAML: a tab where only spaces may stand", span, "indent with spaces")
    if "expected key" in problem and text[: span.column].rstrip().endswith(("'", '"')):
        return source.wrong("not valid YAML: text after a closing quote", span, "put all of the value in quotes")
    said, hint = next(((said, hint) for part, said, hint in _SYNTAX if part in problem), (problem, ""))
    return source.wrong(f"not valid YAML: {said}", span, hint)


def _line(source: Source, span: Span) -> str:
    return "".join(source.lines[span.line : span.line + 1])


def _unreadable(error: Any, text: str, source: Source) -> ConfigError:
    position = error.position if isinstance(error.position, int) else 0
    found = re.search(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text)
    return _strange(text, found.start() if found else position, source)


def _strange(text: str, position: int, source: Source) -> ConfigError:
    before = Source("", text[:position]).lines
    code = f"U+{ord(text[position]):04X}" if position < len(text) else "unknown"
    span = Span(len(before) - 1, len(before[-1]))
    return source.wrong(
        f"character {code} is not allowed in YAML", span, "remove it, or write it as an escape inside quotes"
    )


def build_scalar(text: str, source: Source, span: Span) -> Node:
    """A node for text that is not from a file, such as an environment variable."""
    return Node("scalar", source, span, scalar(text), text)


__all__ = ["Step", "build_scalar", "parse_yaml", "scalar"]

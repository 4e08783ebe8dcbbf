"""JSON text → nodes, with the comments and trailing commas that the files of AI clients have (JSONC)."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from typing import Any

import msgspec

from callgate.errors import ConfigError

from .node import MAX_DEPTH, MAX_NODES, Node, Source, Span, together

_TOKEN = re.compile(
    r"""(?P<skip>[ \t\r\n\ufeff]+|//[^\r\n]*|/\*.*?\*/)
      |(?P<string>"(?:[^"\\\x00-\x1f]|\\.)*")
      |(?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?(?![0-9A-Za-z_.]))
      |(?P<word>[A-Za-z_$][A-Za-z0-9_$]*)
      |(?P<mark>[{}\[\]:,])""",
    re.VERBOSE | re.DOTALL,
)
_WORDS = {"true": True, "false": False, "null": None}


def parse_json(text: str, source: Source) -> Node:
    """Parse JSON or JSONC.

    Raises ``ConfigError`` with every problem found (a broken syntax ends the search).
    """
    return _Reader(text, source).read()


class _Reader:
    def __init__(self, text: str, source: Source) -> None:
        self.text = text
        self.source = source
        self.problems: list[ConfigError] = []
        self.position = 0
        self.count = 0
        self.kind = ""
        self.token = ""
        self.start = 0
        self.line_starts = [0, *(found.end() for found in re.finditer(r"\r\n|[\n\r\x85\u2028\u2029]", text))]

    def read(self) -> Node:
        try:
            node = self.whole()
        except ConfigError as error:
            raise together([*self.problems, error], self.source.name) from None
        if self.problems:
            raise together(self.problems, self.source.name)
        return node

    def whole(self) -> Node:
        self.advance()
        node = self.value(0)
        if self.kind != "end":
            raise self.wrong(f"`{self.token}` follows after the end of the JSON value", "remove it")
        return node

    def advance(self) -> None:
        """Read the next token into ``kind``, ``token`` and ``start``."""
        while True:
            self.start = self.position
            if self.start >= len(self.text):
                self.kind, self.token = "end", ""
                return
            found = _TOKEN.match(self.text, self.start)
            if found is None:
                raise self.stray()
            self.position = found.end()
            self.kind, self.token = str(found.lastgroup), found.group()
            if self.kind != "skip":
                return

    def stray(self) -> ConfigError:
        self.token = self.text[self.start]
        if self.token == '"':
            return self.wrong("not valid JSON: this text is not closed", 'end it with `"` on the same line')
        if self.token == "'":
            return self.wrong("not valid JSON: text stands in double quotes", "write \" instead of '")
        return self.wrong(
            f"not valid JSON: `{self.token}` cannot stand here", "remove it, or put the text in double quotes"
        )

    def span(self, start: int | None = None, length: int | None = None) -> Span:
        start = self.start if start is None else start
        line = bisect_right(self.line_starts, start) - 1
        return Span(line, start - self.line_starts[line], max(1, len(self.token) if length is None else length))

    def wrong(self, message: str, hint: str = "") -> ConfigError:
        return self.source.wrong(message, self.span(), hint)

    def value(self, depth: int) -> Node:
        self.count += 1
        if depth > MAX_DEPTH or self.count > MAX_NODES:
            raise self.wrong(f"more than {MAX_DEPTH} levels or {MAX_NODES:,} values", "make the file smaller")
        if self.token == "{" and self.kind == "mark":
            return self.mapping(depth)
        if self.token == "[" and self.kind == "mark":
            return self.sequence(depth)
        node = Node("scalar", self.source, self.span(), self.scalar(), self.token)
        if isinstance(node.data, str):
            node.raw = node.data
        self.advance()
        return node

    def scalar(self) -> Any:
        if self.kind == "string":
            return self.string()
        if self.kind == "number":
            return self.number()
        if self.kind == "word" and self.token in _WORDS:
            return _WORDS[self.token]
        if self.kind == "end":
            raise self.wrong("not valid JSON: the file ends where a value is expected", "close each `{` and `[`")
        raise self.wrong(f"not valid JSON: `{self.token}` is not a value", f'put text in double quotes: "{self.token}"')

    def number(self) -> int | float:
        whole = not any(sign in self.token for sign in ".eE")
        if whole and len(self.token) <= 100:
            return int(self.token)
        number = math.inf if whole else float(self.token)
        if not math.isfinite(number):
            raise self.wrong("this number is too large", "write a smaller number, or text in quotes")
        return number

    def string(self) -> str:
        try:
            return msgspec.json.decode(self.token.encode(), type=str)
        except (msgspec.DecodeError, UnicodeEncodeError):
            raise self.wrong("not valid JSON: a wrong escape in this text", r"write a backslash as \\") from None

    def expect(self, mark: str, why: str) -> None:
        if self.kind != "mark" or self.token != mark:
            found = f"`{self.token}` stands" if self.token else "the file ends"
            raise self.wrong(f"not valid JSON: {found} where `{mark}` is expected", why)
        self.advance()

    def mapping(self, depth: int) -> Node:
        node = Node("map", self.source, self.span())
        self.advance()
        while not (self.kind == "mark" and self.token == "}"):
            if self.kind != "string":
                found = f"`{self.token}` stands" if self.token else "the file ends"
                raise self.wrong(
                    f"not valid JSON: {found} where a key is expected", "keys stand in double quotes; close each `{`"
                )
            key, span = self.string(), self.span()
            self.advance()
            self.expect(":", "a key needs a `:` after it")
            child = self.value(depth + 1)
            if key in node.items:
                first = node.keys[key].line + 1
                hint = f"it stands in line {first} already; keep one of them"
                self.problems.append(self.source.wrong(f"key `{key}` is given twice", span, hint))
            else:
                node.put(key, child, span)
            self.separate("}")
        self.advance()
        return node

    def sequence(self, depth: int) -> Node:
        node = Node("list", self.source, self.span())
        self.advance()
        while not (self.kind == "mark" and self.token == "]"):
            node.put(len(node.items), self.value(depth + 1))
            self.separate("]")
        self.advance()
        return node

    def separate(self, end: str) -> None:
        if not (self.kind == "mark" and self.token == end):
            self.expect(",", f"parts are separated by `,` and end with `{end}`")

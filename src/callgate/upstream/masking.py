"""Secrets of a server taken out of what it says where people read it: its log, its errors (rule SEC-7).

Only values that callgate gave to this server itself are known here, so the cost is a search for a few strings in a
line or an error; results of calls are not touched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, AnyStr

import msgspec

from callgate.types import Answer

MASKED = "********"
#: Shorter values are words like any other.
LEAST = 8
#: Values that are remembered; the oldest are forgotten first.
MOST = 64
#: Pieces of one value that are looked for.
PIECES = 256
DEEPEST = 64


class Mask:
    """The secret values of one server. ``learn`` them; ``text``, ``line`` and ``answer`` hide them."""

    def __init__(self) -> None:
        self._values: dict[str, None] = {}
        self._texts: tuple[str, ...] = ()
        self._lines: tuple[bytes, ...] = ()

    def learn(self, value: str) -> None:
        """Hide ``value`` from now on: as it is, in JSON, and its lines and words where they stand alone."""
        if len(value) < LEAST:
            return
        if value in self._values:  # in use: what was replaced long ago is forgotten before it
            self._values[value] = self._values.pop(value)
            return
        self._values[value] = None
        while len(self._values) > MOST:
            del self._values[next(iter(self._values))]
        texts = {piece for known in self._values for piece in _pieces(known)}
        self._texts = tuple(sorted(texts, key=len, reverse=True))
        self._lines = tuple(text.encode("utf-8", "surrogateescape") for text in self._texts)

    def text(self, text: str) -> str:
        """``text`` without the values; a value that was cut off at the end is hidden too."""
        for value in self._texts:
            if value in text:
                text = text.replace(value, MASKED)
        cut = max((_overlap(text, value) for value in self._texts), default=0)
        return text[:-cut] + MASKED if cut >= LEAST else text

    def line(self, line: bytes) -> bytes:
        for value in self._lines:
            if value in line:
                line = line.replace(value, MASKED.encode())
        return line

    def unfinished(self, line: bytes) -> int:
        """How many bytes at the end of ``line`` may be the beginning of a value."""
        return max((_overlap(line, value) for value in self._lines), default=0)

    def answer(self, answer: Answer) -> Answer:
        """``answer``, which is an error, without the values."""
        error = answer.error
        if error is None or not self._texts:
            return answer
        hidden = msgspec.structs.replace(error, message=self.text(error.message), data=self.value(error.data))
        return msgspec.structs.replace(answer, error=hidden)

    def value(self, value: Any, depth: int = 0) -> Any:
        """Any JSON value without the values in its strings; what is nested too deep to be looked into is hidden."""
        if not self._texts:
            return value
        if isinstance(value, str):
            return self.text(value)
        if depth > DEEPEST and isinstance(value, (list, Mapping)):
            return MASKED
        if isinstance(value, list):
            return [self.value(each, depth + 1) for each in value]
        if isinstance(value, Mapping):
            return {self.text(str(name)): self.value(each, depth + 1) for name, each in value.items()}
        return value


def _pieces(value: str) -> list[str]:
    """What to look for: a header may hold a scheme before the token, a key has many lines."""
    parts = [part for part in re.split(r"\s+", value, maxsplit=PIECES) if len(part) >= LEAST]
    lines = [line for line in value.splitlines()[:PIECES] if len(line.strip()) >= LEAST]
    escaped = [json.dumps(value, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)]
    return [value, *escaped, *lines, *parts]


def _overlap(text: AnyStr, value: AnyStr) -> int:
    """The length of the longest end of ``text`` that is a beginning of ``value``, but not all of it.

    >>> _overlap("the token is abcd", "abcdefgh")
    4
    """
    last, size = text[-1:], min(len(value) - 1, len(text))
    while last and (at := value.rfind(last, 0, size)) >= 0:
        if text.endswith(value[: at + 1]):
            return at + 1
        size = at
    return 0

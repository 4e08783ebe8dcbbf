"""Patterns: ``*`` any run of characters, ``?`` one character, ``[ab]`` one of these. Letters match exactly."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from .bounded import Bounded

MAX_SERVERS = 1_024
_WILD = re.compile(r"[*?\[]")


def flaw(pattern: str) -> str:
    """What is wrong with a pattern for a name, or ``""``.

    >>> flaw("agent:*"), flaw("agent:[ab")
    ('', 'the `[` is never closed')
    """
    if not pattern.strip():
        return "it is empty"
    if "[" in re.sub(r"\[!?\]?[^\]]*\]", "", pattern):
        return "the `[` is never closed"
    return ""


def tool_flaw(pattern: str) -> str:
    """What is wrong with a pattern over ``server/tool``, or ``""``.

    >>> tool_flaw("git/*"), tool_flaw("git"), tool_flaw("/status")
    ('', 'it has no `/`', 'nothing stands before the `/`')
    """
    server, slash, tool = pattern.partition("/")
    if pattern.strip() and not slash:
        return "it has no `/`"
    if slash and not server.strip():
        return "nothing stands before the `/`"
    if slash and not tool.strip():
        return "nothing stands after the `/`"
    return flaw(server) or flaw(tool)


class Names:
    """Several patterns, of which one must match.

    >>> Names(["agent:*", "bob"]).match("agent:ci"), Names(["bob"]).match("Bob")
    (True, False)
    """

    __slots__ = ("_exact", "_wild")

    def __init__(self, patterns: Iterable[str]) -> None:
        patterns = tuple(patterns)
        self._exact = frozenset(pattern for pattern in patterns if not _WILD.search(pattern))
        self._wild = tuple(_compile(pattern) for pattern in patterns if _WILD.search(pattern))

    def match(self, name: str) -> bool:
        return name in self._exact or any(wild.match(name) for wild in self._wild)

    def match_any(self, names: Iterable[str]) -> bool:
        if not self._exact.isdisjoint(names):
            return True
        return bool(self._wild) and any(wild.match(name) for name in names for wild in self._wild)

    def names(self, name: str) -> bool:
        """Whether ``name`` is written out, not merely covered by a wildcard."""
        return name in self._exact


class ToolGlobs:
    """Patterns over ``server/tool``; the two halves are matched apart, so no tool name can pose as a server."""

    __slots__ = ("_pairs",)

    def __init__(self, patterns: Iterable[str]) -> None:
        halves = (pattern.partition("/") for pattern in patterns)
        self._pairs = tuple((Names([server]), Names([tool])) for server, _, tool in halves)

    def match(self, server: str, tool: str) -> bool:
        return any(servers.match(server) and tools.match(tool) for servers, tools in self._pairs)


class ToolIndex:
    """Which of many lists of patterns match a tool, as a bit mask; made for looking up thousands of tools.

    For each server the patterns that can match are sorted once: those for all its tools, those that name a tool,
    and the rest, each different pattern being tried once.

    >>> bin(ToolIndex([["git/*"], ["*/status"], ["time/*", "git/s*"]]).mask("git", "status"))
    '0b111'
    """

    __slots__ = ("_patterns", "_servers")

    def __init__(self, patterns: Iterable[Iterable[str]]) -> None:
        halves = ((1 << at, pattern.partition("/")) for at, several in enumerate(patterns) for pattern in several)
        self._patterns = tuple((bit, Names([server]), tool) for bit, (server, _, tool) in halves)
        self._servers: Bounded[str, _ServerIndex] = Bounded(MAX_SERVERS)

    def mask(self, server: str, tool: str) -> int:
        index = self._servers.get(server)
        if index is None:
            index = self._of_server(server)
            self._servers.put(server, index)
        mask = index.all | index.named.get(tool, 0)
        for match, bits in index.wild:
            if match(tool):
                mask |= bits
        return mask

    def _of_server(self, server: str) -> _ServerIndex:
        named: dict[str, int] = {}
        for bit, servers, tool in self._patterns:
            if servers.match(server):
                named[tool] = named.get(tool, 0) | bit
        everything = named.pop("*", 0)
        wild = {pattern: named.pop(pattern) for pattern in list(named) if _WILD.search(pattern)}
        return _ServerIndex(everything, named, tuple((_compile(pattern).match, bits) for pattern, bits in wild.items()))


class _ServerIndex(NamedTuple):
    all: int
    named: dict[str, int]
    wild: tuple[tuple[Callable[[str], object], int], ...]


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(pattern))

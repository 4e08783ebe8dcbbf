"""The table: which client meets which server through which door, and what each of them shall see.

What is not said here is expected to work. ``ABSENT`` names what an SDK has no words for: there is no such cell.
``UNABLE`` names what cannot work although it can be asked for: such a cell must end in a clear error.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

LEGACY, MODERN = "2025-11-25", "2026-07-28"

DOORS = {
    "direct-http": "without callgate, over HTTP",
    "direct-stdio": "without callgate, over stdio",
    "gate-http": "HTTP in front (`/mcp`), HTTP behind",
    "gate-stdio": "`callgate stdio` in front, stdio behind",
}

SAW: dict[str, Any] = {
    "plain": {"text": "häuschen", "structured": {"text": "häuschen"}, "kept": "häuschen"},
    "progress": [[1, 3], [2, 3], [3, 3]],
    "cancel": "the server noticed",
    "elicit": "accept Ada",
    "sample": "forty-two",
    "roots": "file:///matrix/one",
    "list_changed": "told and listed",
    "subscribe": "the right URI",
    "logging": ["warning: loud"],
    "completion": ["paris", "park", "party"],
    "pagination": [1000, 1000],
    "task": ["completed", "done"],
}
"""Each feature, and what a client sees when it works."""


class Client(NamedTuple):
    """A script of ``clients/`` in one mode."""

    script: str
    mode: str
    library: str

    @property
    def name(self) -> str:
        return f"{self.script}-{self.mode}"

    @property
    def version(self) -> str:
        return MODERN if self.mode == "modern" else LEGACY


class Server(NamedTuple):
    """A script of ``servers/``."""

    name: str
    library: str
    dual: bool


class Pair(NamedTuple):
    """A client, a server, and what is between them: everything that one client process looks at."""

    client: Client
    server: Server
    door: str

    def __str__(self) -> str:
        return f"{self.client.name}-{self.server.name}-{self.door}"


class Cell(NamedTuple):
    pair: Pair
    feature: str

    def __str__(self) -> str:
        return f"{self.pair}-{self.feature}"


class Said(NamedTuple):
    """Something about the cells that these patterns match. ``says`` is a pattern for the clear error of a cell."""

    reason: str
    feature: str = "*"
    client: str = "*"
    server: str = "*"
    door: str = "*"
    says: str = ""

    def covers(self, cell: Cell) -> bool:
        client, server, door = cell.pair
        real = (cell.feature, client.name, server.name, door)
        return all(map(fnmatchcase, real, (self.feature, self.client, self.server, self.door)))


CLIENTS = [
    Client("py1", "legacy", "mcp 1.x (Python)"),
    Client("py2", "legacy", "mcp 2.x (Python)"),
    Client("py2", "modern", "mcp 2.x (Python)"),
    Client("ts1", "legacy", "@modelcontextprotocol/sdk 1.x"),
    Client("ts2", "legacy", "@modelcontextprotocol/client 2.x"),
    Client("ts2", "modern", "@modelcontextprotocol/client 2.x"),
    Client("fastmcp4", "legacy", "FastMCP 4"),
    Client("fastmcp4", "modern", "FastMCP 4"),
    Client("raw", "legacy", "no SDK"),
    Client("raw", "modern", "no SDK"),
]
SERVERS = [
    Server("py1", "mcp 1.x (Python)", False),
    Server("py2", "mcp 2.x (Python)", True),
    Server("ts1", "@modelcontextprotocol/sdk 1.x", False),
    Server("ts2", "@modelcontextprotocol/server 2.x", True),
    Server("fastmcp4", "FastMCP 4", True),
]

ABSENT = [
    Said(
        "A modern client and a legacy server have no version in common.",
        client="*-modern",
        server="?y1",
        door="direct-*",
    ),
    Said(
        "A modern client and a legacy server have no version in common.",
        client="*-modern",
        server="?s1",
        door="direct-*",
    ),
    Said("No SDK lets a client leave a task alone and come back for it: `raw` does that.", "task", "py?-*"),
    Said("No SDK lets a client leave a task alone and come back for it: `raw` does that.", "task", "ts?-*"),
    Said("No SDK lets a client leave a task alone and come back for it: `raw` does that.", "task", "fastmcp4-*"),
    Said("Over stdio the connection is the process: a task does not outlive it.", "task", door="*-stdio"),
    Said("The Python SDK 2.x has no tasks.", "task", server="py2"),
    Said("The TypeScript SDK 2.x has no tasks.", "task", server="ts2"),
    Said("FastMCP offers tasks to modern clients only.", "task", "raw-legacy", "fastmcp4"),
    Said("FastMCP offers no subscriptions to resources.", "subscribe", server="fastmcp4"),
    Said("Without an SDK there is only the feature that the SDKs lack.", "[!t]*", "raw-*"),
]
UNABLE = [
    Said(
        "FastMCP does not serve subscriptions/listen, and a modern client hears of changes nowhere else.",
        "list_changed",
        "*-modern",
        "fastmcp4",
        "direct-*",
        says="Method not found",
    ),
]


def pairs() -> Iterator[Pair]:
    """Neighbours have different servers, so that they can be looked at together."""
    for door in DOORS:
        for client in CLIENTS:
            for server in SERVERS:
                yield Pair(client, server, door)


def absent(cell: Cell) -> Said | None:
    return next((said for said in ABSENT if said.covers(cell)), None)


def unable(cell: Cell) -> Said | None:
    return next((said for said in UNABLE if said.covers(cell)), None)


def cells() -> list[Cell]:
    """Every cell that there is, those of one pair beside each other."""
    every = (Cell(pair, feature) for pair in pairs() for feature in SAW)
    return [cell for cell in every if not absent(cell)]


def features(pair: Pair) -> list[str]:
    """What the client of this pair is asked for."""
    return [feature for feature in SAW if not absent(Cell(pair, feature))]

"""What every client script is asked to do, and how it tells what it saw: one JSON object on stdout.

The scripts run in environments of their own (``python -m tests.clients.mcp1 …``), so this module and its package use
the standard library only.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from dataclasses import dataclass, field
from typing import Any

SECONDS = 30.0
"""Longest time for everything that one script does."""


@dataclass
class Asked:
    """Where the server is (``url``, or the ``command`` to start), and how its tools' names begin."""

    url: str | None
    command: list[str]
    prefix: str
    mode: str

    @property
    def environment(self) -> dict[str, str]:
        """For a stdio server: clients pass on next to nothing of their own environment unless they are told."""
        return dict(os.environ)


@dataclass
class Report:
    """What a client saw.

    ``echoed`` and ``structured`` are the two halves of one result, ``progress`` the (done, total) pairs of one call,
    ``failed`` the text of a tool that fails, ``unknown`` the JSON-RPC code for a tool that does not exist. ``pinged``
    is ``None`` where the protocol has no ping.
    """

    library: str
    version: str = ""
    server: str = ""
    tools: list[str] = field(default_factory=list)
    echoed: str = ""
    structured: Any = None
    progress: list[tuple[float, float | None]] = field(default_factory=list)
    failed: str = ""
    unknown: int | None = None
    pinged: bool | None = None

    def tell(self) -> None:
        print(json.dumps(dataclasses.asdict(self)))


def asked() -> Asked:
    parser = argparse.ArgumentParser()
    parser.add_argument("--prefix", default="")
    parser.add_argument("--mode", default="auto", choices=["auto", "legacy"])
    parser.add_argument("--url")
    parser.add_argument("command", nargs="*", help="after --: the stdio server to start")
    given = parser.parse_args()
    if bool(given.url) == bool(given.command):
        parser.error("give either --url or a command")
    return Asked(given.url, given.command, given.prefix, given.mode)

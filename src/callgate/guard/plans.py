"""What is done with the calls of one tool, worked out when it is listed, so that a call looks it up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from callgate.guard.costs import Unusable
from callgate.guard.rules import Rulebook, Rules
from callgate.guard.schemas import Schema
from callgate.types import JSON, Tool

#: Plans that are kept; without them they are made again.
MOST = 20_000
_EMPTY: JSON = {"type": "object"}

encode = msgspec.json.Encoder().encode


class Plan(msgspec.Struct, frozen=True):
    """``flaws``: why a schema cannot be used, and whether that stops calls. ``structured``: results have a schema."""

    rules: Rules
    arguments: Schema | None = None
    results: Schema | None = None
    structured: bool = False
    flaws: tuple[tuple[str, bool], ...] = ()


class Plans:
    """By server and definition: what two callers are shown differently has two plans."""

    def __init__(self, book: Rulebook) -> None:
        self._book = book
        self._made: dict[tuple[str, str, bytes], Plan] = {}

    def of(self, tool: Tool) -> Plan:
        """The plan of a tool that is called."""
        plan = self._made.get((tool.server, tool.name, tool.definition))
        if plan is None:
            plan = self.make(tool.server, tool.name, msgspec.json.decode(tool.definition, type=dict[str, Any]))
        return plan

    def make(self, server: str, name: str, definition: Mapping[str, Any]) -> Plan:
        rules = self._book.of(f"{server}/{name}")
        flaws: list[tuple[str, bool]] = []
        arguments = results = None
        output = definition.get("outputSchema")
        if rules.arguments != "off":
            arguments = _schema("input", definition.get("inputSchema", _EMPTY), flaws, stops=True)
        if rules.results != "off" and output is not None:
            results = _schema("output", output, flaws, stops=rules.results == "block")
        plan = Plan(rules, arguments, results, output is not None, tuple(flaws))
        if len(self._made) >= MOST:
            self._made.clear()
        self._made[server, name, encode(definition)] = plan
        return plan


def _schema(which: str, schema: Any, flaws: list[tuple[str, bool]], *, stops: bool) -> Schema | None:
    try:
        return Schema(schema)
    except Unusable as why:
        flaws.append((f"The {which} schema cannot be used: {why}.", stops))
        return None

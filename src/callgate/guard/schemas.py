"""Values against JSON Schemas that come from servers. Nothing is ever fetched (rules GRD-1, SCH-1, SCH-4, SCH-5)."""

from __future__ import annotations

from itertools import islice
from typing import Any

import msgspec

from callgate.guard.costs import LEVELS, Graph, Unusable

#: The dialects by their URI (without a `#` at the end); a schema that names none is of the first.
DIALECTS = {
    "https://json-schema.org/draft/2020-12/schema": "Draft202012Validator",
    "https://json-schema.org/draft/2019-09/schema": "Draft201909Validator",
    "http://json-schema.org/draft-07/schema": "Draft7Validator",
    "http://json-schema.org/draft-06/schema": "Draft6Validator",
    "http://json-schema.org/draft-04/schema": "Draft4Validator",
}
#: Evaluations that one value may cause at most: some fifty milliseconds.
BUDGET = 5_000_000
#: Steps back that a regular expression with look-around may take, and bytes that a compiled one may need.
BACKTRACKS, PATTERN_BYTES = 10_000, 1 << 20
#: Evaluations times bytes of the schema up to which all mistakes are looked for; beyond it, the first one. The library
#: makes all of them before it gives one: a list of required names makes as many for each value.
ALL = 500_000
#: Mistakes that are named, and characters of each.
MISTAKES, LENGTH = 5, 200


class Schema:
    """A schema that can be used. Making one raises ``Unusable`` for every other."""

    def __init__(self, schema: Any) -> None:
        if not isinstance(schema, dict):
            raise Unusable("it is not an object")
        made = _dialect(schema.get("$schema"))
        self._size = len(msgspec.json.encode(schema))
        try:
            self._costs = Graph(schema).costs()
        except ValueError:  # a URI that is none
            raise Unusable("it has a reference that is no URI") from None
        self._validator = _compiled(made, schema)

    def mistakes(self, value: Any, size: int) -> list[str]:
        """What is wrong with a value of ``size`` bytes of JSON, by its place; empty: nothing."""
        if self._costs[-1] * size > BUDGET and (why := self._too_much(value)):
            return [why]
        if self._validator.is_valid(value):
            return []
        nodes, depth = _measured(value)
        if self._size * nodes * self._costs[min(depth, len(self._costs) - 1)] > ALL:
            return [_said(self._first(value))]
        return [_said(each) for each in islice(self._validator.iter_errors(value), MISTAKES)]

    def _first(self, value: Any) -> Any:
        import jsonschema_rs

        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as mistake:
            return mistake
        raise AssertionError("what is not valid has a mistake")  # pragma: no cover

    def _too_much(self, value: Any) -> str:
        """Size in bytes is an upper bound, so look closer before saying no."""
        nodes, depth = _measured(value)
        steady = len(self._costs) <= LEVELS or self._costs[-1] == self._costs[-2]
        cost = self._costs[min(depth, len(self._costs) - 1)]
        if depth >= len(self._costs) and not steady:
            return "(whole): it nests too deep to be checked"
        return "(whole): checking it would take too long" if cost * nodes > BUDGET else ""


def _dialect(said: Any) -> str:
    if said is None:
        return next(iter(DIALECTS.values()))
    name = DIALECTS.get(said.rstrip("#")) if isinstance(said, str) else None
    if name is None:
        raise Unusable(f"its dialect {str(said)[:100]!r} is not supported (2020-12, 2019-09, draft 7, 6 and 4 are)")
    return name


def _compiled(dialect: str, schema: dict[str, Any]) -> Any:
    import jsonschema_rs  # only where something is validated

    options = jsonschema_rs.FancyRegexOptions(BACKTRACKS, PATTERN_BYTES, PATTERN_BYTES)
    try:
        return getattr(jsonschema_rs, dialect)(
            schema, offline=True, validate_formats=False, pattern_options=options, mask="the value"
        )
    except BaseException as why:  # a panic of the library is no Exception
        if isinstance(why, (KeyboardInterrupt, SystemExit, MemoryError)):
            raise
        raise Unusable(f"it is no valid schema ({_first_line(why)})") from None


def _first_line(why: BaseException) -> str:
    return (str(why).splitlines() or [type(why).__name__])[0][:LENGTH]


def _said(mistake: Any) -> str:
    place = "".join(f"/{str(step)[:60]}" for step in mistake.instance_path)
    return f"{place or '(whole)'}: {_first_line(Exception(mistake.message))}"


def _measured(value: Any) -> tuple[int, int]:
    """How many values stand inside a value, itself included, and how deep they nest."""
    nodes, depth, level = 0, -1, [value]
    while level:
        depth += 1
        nodes += len(level)
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return nodes, depth

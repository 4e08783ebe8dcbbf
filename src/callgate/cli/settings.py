"""`callgate config show` and `callgate config schema`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from callgate.cli.options import Config, Output
from callgate.cli.output import Column, emit, field, json_line
from callgate.config import load, schema_text
from callgate.config import show as rows_of


def _value(row: Any) -> str:
    value = row["value"]
    return value if isinstance(value, str) else json_line(value)


KEY, VALUE = Column("KEY", field("key"), keep=True), Column("VALUE", _value)
ORIGIN = Column("ORIGIN", field("origin"))


def show(
    *, origin: Annotated[bool, Parameter(negative="")] = False, config: Config = None, output: Output = None
) -> int:
    """Show every setting and its value; what looks like a secret is masked.

    Parameters
    ----------
    origin
        Say where each value comes from.
    """
    rows = [row._asdict() for row in rows_of(load(config), origin=origin)]
    if not origin:
        rows = [{name: value for name, value in row.items() if name != "origin"} for row in rows]
    emit(msgspec.to_builtins(rows), (KEY, VALUE, ORIGIN) if origin else (KEY, VALUE), output)
    return 0


def schema() -> int:
    """Print the JSON Schema of callgate.yaml."""
    print(schema_text(), end="")
    return 0

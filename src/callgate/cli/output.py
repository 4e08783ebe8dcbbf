"""What commands print: data on stdout, everything else on stderr.

A table on a terminal, lines of tab-separated values (without a header) when piped, or what ``-o`` says. Text that
comes from servers and callers never reaches a terminal with control characters in it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from callgate.cli.options import Format

#: Columns of a table that is asked for with ``-o table`` where there is no terminal.
WIDE = 200
_CONTROLS = re.compile("[\x7f-\x9f]")

Cell = Callable[[Mapping[str, Any]], object]


class Column(msgspec.Struct, frozen=True):
    """One column: its title, and how to get its value from a row. ``keep``: never cut it; ``right``: numbers;
    ``cut``: shorten words that are too long, where others go on in the next line.
    """

    title: str
    cell: Cell
    keep: bool = False
    right: bool = False
    cut: bool = False


def field(name: str) -> Cell:
    return lambda row: row.get(name)


def on_terminal() -> bool:
    return sys.stdout.isatty()


def colours(stream: Any = None) -> bool:
    """Whether to colour what goes to ``stream`` (default stdout). https://no-color.org"""
    stream = sys.stdout if stream is None else stream
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def say(text: str) -> None:
    """A word to the user, beside the data."""
    print(plain(text, lines=True), file=sys.stderr, flush=True)


def plain(value: object, *, lines: bool = False) -> str:
    """``value`` as text without control characters; ``lines`` keeps line ends and tabs.

    >>> plain("a\\x1b[31mb\\n"), plain(None), plain(["a", "b"])
    ('a�[31mb ', '', 'a, b')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or (lines and one in "\n\t") else " " if one in "\n\t\r" else "\ufffd" for one in text
    )


def emit(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], output: Format | None) -> None:
    """Print rows in the format asked for; JSON and YAML have everything, tables the columns."""
    if output == "table" or (output is None and on_terminal()):
        _table(rows, columns)
    elif output is None:
        for row in rows:
            print(tsv(row, columns))
    else:
        emit_value(list(rows), output)


def emit_value(value: Any, output: Format) -> None:
    """Print one value as JSON or YAML; of a list, ``jsonl`` prints one element a line."""
    if output == "yaml":
        import yaml

        print(yaml.safe_dump(msgspec.to_builtins(value), sort_keys=False, allow_unicode=True), end="")
    elif output == "jsonl":
        for one in value if isinstance(value, list) else [value]:
            print(json_line(one))
    else:
        print(_safe(msgspec.json.format(msgspec.json.encode(value), indent=2).decode()))


def json_line(value: Any) -> str:
    return _safe(msgspec.json.encode(value).decode())


def _safe(text: str) -> str:
    """JSON with the control characters that JSON does not escape itself."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def tsv(row: Mapping[str, Any], columns: Sequence[Column]) -> str:
    return "\t".join(plain(column.cell(row)) for column in columns)


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column.title,
            no_wrap=column.keep,
            justify="right" if column.right else "left",
            overflow="ellipsis" if column.cut else "fold",
        )
    for row in rows:
        cells = [plain(column.cell(row)) for column in columns]
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in cells))
    console = Console(no_color=not colours(), highlight=False, width=None if on_terminal() else WIDE)
    console.print(table)


STYLES = {
    "ready": "green", "ok": "green", "allow": "green", "pass": "green",
    "starting": "yellow", "ask": "yellow", "cancelled": "yellow", "stopped": "dim",
    "failed": "red", "denied": "red", "deny": "red", "refused": "red", "tool_error": "red", "timeout": "red",
    "FAIL": "bold red",
}  # fmt: skip
"""States that a table shows in colour."""

"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from bench.results import Results
from bench.tables import CALL_HEAD, GROWTH, START_HEAD, Row, call_tables, growth_head, growth_rows, start_row

TITLES = {
    "calls": "tools/call, closed loop",
    "open": "tools/call, open loop",
    "list": "tools/list",
    "sessions": "legacy session set-up",
    "hung": "one of five servers hung",
}


def draw(console: Console, title: str, head: Sequence[str], rows: Sequence[Row]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for position, name in enumerate(head):
        table.add_column(name, justify="right" if position else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row, style="red" if len(row) == len(CALL_HEAD) and row[-1] != "0" else None)
    console.print(table)
    console.print()


def show(results: Results, console: Console) -> None:
    for table, title in TITLES.items():
        for caption, rows in call_tables(results, table):
            draw(console, f"{title} · {caption}", CALL_HEAD, rows)
    if starts := results.of("start"):
        draw(console, "start-up", START_HEAD, [start_row(figure) for figure in starts])
    for table in GROWTH:
        if rows := growth_rows(results, table):
            draw(console, f"callgate, by {GROWTH[table]}", growth_head(table), rows)
    for figure in results.figures:
        if figure.errors:
            said = figure.reasons[0] if figure.reasons else ""
            console.print(f"[red]{figure.errors} wrong[/red] · {' · '.join(figure.key)}: {said}", highlight=False)
    for name, reason in results.skipped.items():
        console.print(f"[yellow]skipped {name}:[/yellow] {reason}", highlight=False)

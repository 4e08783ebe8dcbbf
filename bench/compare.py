"""``python -m bench compare a.json b.json``: what the second run did better or worse than the first, as ratios."""

from __future__ import annotations

from rich.console import Console

from bench.results import Figure, Results
from bench.show import draw
from bench.tables import Row, number
from bench.targets import DIRECT

HEAD = ["", "load", "target", "per second", "p50", "p99", "CPU", "MB", "p50 of direct"]


def times(before: float | None, after: float | None) -> str:
    """``after`` as a multiple of ``before``.

    >>> times(2.0, 3.0), times(None, 1.0), times(0.0, 1.0)
    ('1.5', '–', '–')
    """
    return number(after / before) if before and after is not None else "–"


def rows(before: Results, after: Results) -> list[Row]:
    """One row for each figure that both runs have; the last column says how much the machine itself differed."""
    found = []
    for figure in after.figures:
        old = before.find(figure.key) or _open_loop(before, figure)
        if old is None:
            continue
        base = (*figure.key[:3], DIRECT)
        first, second = before.find((*old.key[:3], DIRECT)), after.find(base)
        found.append(
            [
                f"{figure.table} {figure.point}",
                figure.load,
                figure.target,
                times(old.per_second, figure.per_second),
                times(old.p50, figure.p50),
                times(old.p99, figure.p99),
                times(old.cpu, figure.cpu),
                times(old.resident, figure.resident),
                times(first.p50, second.p50) if first and second else "–",
            ]
        )
    return found


def _open_loop(before: Results, figure: Figure) -> Figure | None:
    """The rate of the open loop follows from each run's own speed, so it need not be the same."""
    if figure.table != "open":
        return None
    return next((old for old in before.of("open") if old.target == figure.target), None)


def compare(before: Results, after: Results, console: Console) -> None:
    draw(console, f"{after.started} ÷ {before.started}", HEAD, rows(before, after))

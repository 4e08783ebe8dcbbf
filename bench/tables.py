"""Tables of figures: the same rows for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.results import Figure, Results
from bench.targets import CALLGATE, DIRECT

Row = list[str]
GROWTH = {
    "grow tools": "tools of the server",
    "grow servers": "servers",
    "grow rules": "rules of the policy",
    "grow sessions": "legacy sessions open",
    "grow size": "bytes of a message's text",
}
CALL_HEAD = [
    "", "per second", "p50 µs", "p99 µs", "p99.9 µs", "CPU µs", "messages", "MB",
    "× direct", "× callgate", "wrong",
]  # fmt: skip
START_HEAD = ["", "ready ms", "first answer ms", "MB", "starts"]


def number(value: float | None, digits: int = 3) -> str:
    """``value`` with about three digits, thousands grouped; a dash when there is none.

    >>> [number(x) for x in (None, 0.1234, 12.34, 1234.5, 123456)]
    ['–', '0.123', '12.3', '1,234', '123,456']
    """
    if value is None:
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}" if value else "0"


def ratio(figure: Figure, to: Figure | None) -> str:
    """Rate of ``figure`` as a multiple of the rate of ``to``; in the open loop, where rates are equal, of the p50."""
    if to is None or figure is to or not figure.answered or not to.answered:
        return "–"
    if figure.load.endswith("/s"):
        return f"{number(figure.p50 / to.p50)} (p50)"
    return number(figure.per_second / to.per_second)


def groups(figures: Iterable[Figure]) -> dict[tuple[str, str], list[Figure]]:
    """Figures that may be compared with each other: the same point and the same load."""
    found: dict[tuple[str, str], list[Figure]] = {}
    for figure in figures:
        found.setdefault((figure.point, figure.load), []).append(figure)
    return found


def call_row(figure: Figure, group: Sequence[Figure]) -> Row:
    by_name = {one.target: one for one in group}
    return [
        figure.target,
        number(figure.per_second),
        number(figure.p50),
        number(figure.p99),
        number(figure.p999),
        number(figure.cpu),
        f"{figure.upstream:.2f}" if figure.upstream is not None else "–",
        number(figure.resident),
        ratio(figure, by_name.get(DIRECT)),
        ratio(figure, by_name.get(CALLGATE)),
        str(figure.errors) if figure.errors else "0",
    ]


def start_row(figure: Figure) -> Row:
    return [
        figure.target,
        *(number(one) for one in (figure.ready, figure.first, figure.resident)),
        str(figure.answered),
    ]


def call_tables(results: Results, table: str) -> list[tuple[str, list[Row]]]:
    """A caption and rows for each group of the table."""
    return [
        (f"{point}, {load}", [call_row(figure, group) for figure in group])
        for (point, load), group in groups(results.of(table)).items()
    ]


def growth_head(table: str) -> Row:
    return [
        GROWTH[table], "calls/s", "CPU µs/call", "p50 µs at c=1", "direct p50 µs", "list p50 µs", "list bytes", "MB",
    ]  # fmt: skip


def growth_rows(results: Results, table: str) -> list[Row]:
    """One row for each point, from the figures of its loads."""
    rows = []
    for point in dict.fromkeys(figure.point for figure in results.of(table)):
        ours = {one.load: one for one in results.of(table) if one.point == point and one.target == CALLGATE}
        alone = results.find((table, point, "c=1", DIRECT))
        many, one, listed = ours.get("c=32") or ours.get("c=8"), ours.get("c=1"), ours.get("list")
        values = [*_of(many, "per_second", "cpu"), *_of(one, "p50"), *_of(alone, "p50")]
        values += [*_of(listed, "p50", "size"), *_of(many, "resident")]
        rows.append([point, *(number(value) for value in values)])
    return rows


def _of(figure: Figure | None, *names: str) -> list[float | None]:
    return [getattr(figure, name, None) for name in names]

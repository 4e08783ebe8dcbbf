"""The era matrix: every feature, from clients of both eras to servers of both eras, directly and through callgate."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.matrix.cells import ABSENT, SAW, UNABLE, Cell, Pair, cells, pairs, unable
from tests.matrix.looking import Report

real = [pytest.mark.servers, pytest.mark.slow]


@pytest.mark.parametrize("cell", [pytest.param(cell, id=str(cell), marks=real) for cell in cells()])
def test_cell(cell: Cell, look: Callable[[Pair], Report]) -> None:
    report = look(cell.pair)
    assert "error" not in report, f"no connection: {report['error']}\n{report.get('trace', '')}"
    assert report["version"] == cell.pair.client.version
    outcome = report["features"][cell.feature]
    if said := unable(cell):
        assert re.search(said.says, outcome.get("error", "")), f"{outcome} is no clear error: {said.reason}"
    else:
        assert outcome == {"saw": SAW[cell.feature]}, str(outcome)


@pytest.mark.parametrize("said", [*ABSENT, *UNABLE], ids=lambda said: said.reason)
def test_what_is_said_of_cells_covers_some(said: object) -> None:
    """A reason that covers nothing any more has been forgotten."""
    every = (Cell(pair, feature) for pair in pairs() for feature in SAW)
    assert any(said.covers(cell) for cell in every)  # type: ignore[attr-defined]


def test_every_exception_to_what_works_says_how_it_fails() -> None:
    assert all(said.says for said in UNABLE)

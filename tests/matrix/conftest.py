"""The stand of the matrix. All pairs that were chosen are looked at from the start, some at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.matrix.cells import Cell, Pair
from tests.matrix.looking import Report, Stand

# Scripts for environments that hold other libraries than ours.
collect_ignore = ["clients", "servers"]

AT_ONCE = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
"""With several workers each looks at one pair at a time; a pair that one of them looks at is not done twice."""


def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this run have in common."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def look(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Pair], Report]]:
    """Gives the report of a pair."""
    chosen = (item.callspec.params.get("cell") for item in request.session.items if hasattr(item, "callspec"))
    pairs = dict.fromkeys(cell.pair for cell in chosen if isinstance(cell, Cell))
    stand = Stand(shared(tmp_path_factory) / f"matrix-{os.getpid()}")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        looks: dict[Pair, Future[Report]] = {pair: pool.submit(stand.look, pair) for pair in pairs}
        try:
            yield lambda pair: looks[pair].result()
        finally:
            pool.shutdown(cancel_futures=True)
            stand.close()

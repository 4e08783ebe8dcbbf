"""These tests run on the loop of the standard library and on uvloop: sockets, pipes and processes differ there."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

#: Where uvloop is, callgate uses it; the other loop's turn comes with the slow tests.
LOOPS = (
    [pytest.param("asyncio", marks=pytest.mark.slow), "uvloop"] if importlib.util.find_spec("uvloop") else ["asyncio"]
)


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}

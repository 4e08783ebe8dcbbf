"""The policy alone stays below what issue 5 asks for, on whatever machine this is."""

from __future__ import annotations

import pytest

from bench.policy import figures


@pytest.mark.slow
def test_decisions_and_lists_take_microseconds() -> None:
    found = figures()
    assert found["decision, 1,000 rules"] <= 20
    assert found["decision, 1,000 rules, a condition over arguments"] <= 20
    assert found["list of 1,000 tools, 100 rules"] <= 1000
    assert found["first list for a caller, 1,000 tools, 100 rules"] <= 1000

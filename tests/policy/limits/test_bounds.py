"""What no order of calls and no clock can pass."""

from __future__ import annotations

from copy import deepcopy

from hypothesis import given
from hypothesis import strategies as st

from callgate.policy.limits.counters import Limit, Moment, Period, Rate, ends
from tests.policy.limits.desk import NOON

STEPS = st.lists(st.floats(0, 400), min_size=1, max_size=200)


@given(STEPS, st.integers(1, 9), st.integers(1, 9))
def test_in_no_time_more_than_the_burst_and_what_was_refilled(steps: list[float], amount: int, burst: int) -> None:
    limit = Limit("q", "rate", "n", float(amount), "", seconds=60.0, burst=burst)
    bucket, mono, passed = Rate("k"), 1000.0, list[float]()
    for step in steps:
        mono += step / 20
        now = Moment(mono, NOON)
        wait = bucket.wait(limit, 1, now)
        if not wait:
            bucket.take(limit, 1, now)
            passed.append(mono)
        else:
            assert not bucket.wait(limit, 1, Moment(mono + wait + 1e-3, NOON))  # the promise is kept
    for at, begun in enumerate(passed):
        for end in range(at, len(passed)):
            assert end - at + 1 <= burst + amount * (passed[end] - begun) / 60 + 1e-3


@given(STEPS, st.integers(1, 9))
def test_a_sliding_period_never_lets_more_through(steps: list[float], amount: int) -> None:
    limit = Limit("q", "calls", "n", float(amount), "", seconds=3600.0, sliding=True)
    period, wall, passed = Period("k"), NOON, list[float]()
    for step in steps:
        wall += step
        now = Moment(0.0, wall)
        wait = period.wait(limit, 1, now)
        if not wait:
            period.take(limit, 1, now)
            passed.append(wall)
        else:
            assert not deepcopy(period).wait(limit, 1, Moment(0.0, wall + wait + 1e-3))
    for begun in passed:
        assert sum(begun <= each < begun + 3600 for each in passed) <= amount
    assert len(period.slots) <= 61


@given(st.lists(st.tuples(st.floats(-90_000, 90_000), st.booleans()), max_size=60), st.booleans())
def test_what_is_written_is_what_was_counted(steps: list[tuple[float, bool]], sliding: bool) -> None:
    """Whatever the clock does, what is on disk for slots that count is what memory says."""
    limit = Limit("q", "calls", "n", 1e9, "", seconds=86400.0, unit="day", sliding=sliding)
    period, wall, disk = Period("k"), NOON, dict[int, float]()
    for step, write in steps:
        wall += step
        period.take(limit, 1, Moment(0.0, wall))
        if write:
            for slot, used in period.fresh.items():
                disk[slot] = disk.get(slot, 0.0) + used
            period.fresh = {}
            for slot in list(period.slots):
                period.learn(slot, disk[slot])
        assert abs(period.total - sum(period.slots.values())) < 1e-6
        assert all(ends(limit, slot) > wall for slot in period.slots)

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.audit import new_id, read_id, show_id, time_of
from callgate.audit.ids import LAST, Ids, first_id_at
from callgate.errors import UsageError

MS = 1_000_000


def test_an_id_carries_the_time_the_node_and_a_counter() -> None:
    ids = Ids(node=7, clock=lambda: 1_795_150_000_123 * MS + 999_999)
    first, second = ids(), ids()
    assert first == 1_795_150_000_123 << 21 | 7 << 13
    assert second == first + 1
    assert time_of(second) == 1_795_150_000.123


def test_ids_grow_when_the_clock_steps_back() -> None:
    times = iter([5000 * MS, 4000 * MS, 5001 * MS])
    ids = Ids(node=0, clock=lambda: next(times))
    assert [ids() for _ in range(3)] == [5000 << 21, (5000 << 21) + 1, 5001 << 21]


def test_ids_run_ahead_of_the_clock_when_a_millisecond_is_used_up() -> None:
    ids = Ids(node=255, clock=lambda: 5000 * MS)
    made = [ids() for _ in range(8193)]
    assert made == sorted(set(made))
    assert made[-1] == 5001 << 21 | 255 << 13


def test_new_ids_are_different_and_sorted() -> None:
    made = [new_id() for _ in range(10_000)]
    assert made == sorted(set(made))
    assert 0 < made[0] < made[-1] <= LAST


@given(st.integers(0, LAST), st.integers(0, LAST))
def test_what_is_shown_is_read_back_and_sorts_alike(one: int, other: int) -> None:
    assert read_id(show_id(one)) == one
    assert len(show_id(one)) == 13
    assert (one < other) == (show_id(one) < show_id(other))


@pytest.mark.parametrize("text", ["38YB5VH2PW0E1", " 38yb5vh2pwoei\n", "38yb5vh2pw0el"])
def test_people_misread_letters(text: str) -> None:
    assert show_id(read_id(text)) == "38yb5vh2pw0e1"


@pytest.mark.parametrize(
    "text", ["", "1", "38yb5vh2pw0e", "38yb5vh2pw0e11", "38yb5vh2pw0eu", "8000000000000", "é" * 13]
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a call id"):
        read_id(text)


@pytest.mark.parametrize(("seconds", "first"), [(1.5, 1500 << 21), (-5, 0), (1e30, LAST >> 21 << 21)])
def test_times_bound_ids(seconds: float, first: int) -> None:
    assert first_id_at(seconds) == first

from __future__ import annotations

import pytest

from callgate.audit import Filters, read_filters, show_id
from callgate.audit.ids import first_id_at
from callgate.errors import UsageError

NOW = 1_795_150_000.0


def test_every_filter_is_read() -> None:
    parameters = {
        "tenant": "acme", "subject": "user:ann", "server": "git", "tool": "git/*", "outcome": "denied, failed",
        "since": "10m", "until": "30s", "before_id": show_id(99), "after_id": show_id(7).upper(), "limit": "5",
    }  # fmt: skip
    assert read_filters(parameters, NOW) == Filters(
        "acme", "user:ann", "git", "git/*", ("denied", "failed"), first_id_at(NOW - 600),
        first_id_at(NOW - 30 + 0.001) - 1, 99, 7, 5,
    )  # fmt: skip


def test_empty_parameters_count_as_absent() -> None:
    assert read_filters({"subject": "", "since": "", "limit": ""}) == Filters()


def test_following_can_start_at_the_beginning() -> None:
    assert read_filters({"after_id": "0"}).after_id == 0


@pytest.mark.parametrize(("age", "seconds"), [("30s", 30), ("10m", 600), ("2h", 7200), ("7d", 604800), ("1w", 604800)])
def test_ages(age: str, seconds: int) -> None:
    assert read_filters({"since": age}, NOW).since_id == first_id_at(NOW - seconds)


@pytest.mark.parametrize("text", ["2026-11-20T04:46:40Z", "2026-11-20T04:46:40", "2026-11-20T05:46:40+01:00"])
def test_iso_times(text: str) -> None:
    assert read_filters({"since": text}).since_id == first_id_at(NOW)


def test_an_age_before_the_epoch_is_the_beginning() -> None:
    assert read_filters({"since": "999999999w"}).since_id == 0


def test_now_is_the_clock() -> None:
    assert (read_filters({"since": "1h"}).since_id or 0) > first_id_at(NOW - 10 * 365 * 86400)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("since", "yesterday", "is not a time"),
        ("until", "10 minutes", "is not a time"),
        ("outcome", "denid", "no outcome 'denid'"),
        ("outcome", "ok,,denied", "no outcome ''"),
        ("limit", "0", "from 1 to 10000"),
        ("limit", "10001", "from 1 to 10000"),
        ("limit", "-1", "from 1 to 10000"),
        ("limit", "٣", "from 1 to 10000"),
        ("before_id", "123", "is not a call id"),
        ("tools", "git/*", "no filter 'tools'"),
        ("zzz", "1", "no filter 'zzz'"),
    ],
)
def test_bad_values_are_named(name: str, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_filters({name: text}, NOW)


def test_the_nearest_name_is_offered() -> None:
    with pytest.raises(UsageError) as caught:
        read_filters({"subjct": "x"})
    assert caught.value.hint == "Did you mean 'subject'?"
    with pytest.raises(UsageError) as caught:
        read_filters({"outcome": "qqq"})
    assert "tool_error" in caught.value.hint

"""Percentiles against exact ones, and nothing lost on the way through JSON."""

from __future__ import annotations

import random
from itertools import pairwise

import msgspec
import pytest

from bench.histogram import Histogram, bounds, bucket, from_json

WIDTH = 1 / 128


def filled(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@pytest.mark.parametrize("share", [50, 90, 99, 99.9, 100])
def test_percentiles_are_within_a_bucket_of_the_exact_ones(share: float) -> None:
    chance = random.Random(7)
    values = [int(chance.lognormvariate(12, 1.5)) for _ in range(20_000)]
    exact = sorted(values)[max(1, -(-len(values) * int(share * 10) // 1000)) - 1]
    assert filled(values).percentile(share) == pytest.approx(exact, rel=WIDTH)


def test_small_values_are_exact() -> None:
    histogram = filled(list(range(1, 101)))
    assert [histogram.percentile(share) for share in (1, 50, 99, 100)] == [1, 50, 99, 100]


def test_greatest_sum_and_count_are_exact() -> None:
    histogram = filled([3, 1_000_003, 77_777_777])
    assert (histogram.greatest, histogram.sum, histogram.total) == (77_777_777, 78_777_783, 3)
    assert histogram.percentile(100) <= histogram.greatest


def test_an_empty_one_has_no_latency() -> None:
    assert Histogram().percentile(50) == 0


@pytest.mark.parametrize("value", [0, 1, 127, 128, 255, 256, 257, 4095, 10**6 + 7, 10**12 + 1])
def test_every_value_lies_in_its_bucket(value: int) -> None:
    low, high = bounds(bucket(value))
    assert low <= value <= high
    assert high - low <= value * WIDTH


def test_buckets_follow_one_another_without_gaps() -> None:
    edges = [bounds(index) for index in range(3000)]
    assert all(high + 1 == low for (_, high), (low, _) in pairwise(edges))


def test_adding_is_recording_both() -> None:
    first, second = filled([5, 900, 10**7]), filled([6, 10**9])
    first.add(second)
    assert first.as_json() == filled([5, 900, 10**7, 6, 10**9]).as_json()


def test_it_survives_json() -> None:
    histogram = filled([5, 900, 10**7])
    again = from_json(msgspec.json.decode(msgspec.json.encode(histogram.as_json())))
    assert again.as_json() == histogram.as_json()
    assert again.total == 3

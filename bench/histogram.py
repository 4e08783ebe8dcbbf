"""A latency histogram with logarithmic buckets: 128 for each power of two, so percentiles are within 0.8 %."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

BITS = 7
HALF = 1 << BITS


def bucket(value: int) -> int:
    """The bucket of ``value`` (nanoseconds, or any count that is not negative).

    >>> bucket(0), bucket(255), bucket(256), bucket(257), bucket(258)
    (0, 255, 256, 256, 257)
    """
    shift = value.bit_length() - BITS - 1
    return value if shift <= 0 else (shift << BITS) + (value >> shift)


def bounds(index: int) -> tuple[int, int]:
    """The least and the greatest value of a bucket.

    >>> bounds(255), bounds(256), bounds(257)
    ((255, 255), (256, 257), (258, 259))
    """
    shift = (index >> BITS) - 1
    if shift <= 0:
        return index, index
    low = (index - (shift << BITS)) << shift
    return low, low + (1 << shift) - 1


class Histogram:
    """Counts of values by bucket, with the exact count, sum and greatest value."""

    def __init__(self) -> None:
        self.counts: defaultdict[int, int] = defaultdict(int)
        self.total = 0
        self.sum = 0
        self.greatest = 0

    def record(self, value: int) -> None:
        value = max(value, 0)
        self.counts[bucket(value)] += 1
        self.total += 1
        self.sum += value
        self.greatest = max(self.greatest, value)

    def add(self, other: Histogram) -> None:
        """Take over everything that ``other`` has counted."""
        for index, count in other.counts.items():
            self.counts[index] += count
        self.total += other.total
        self.sum += other.sum
        self.greatest = max(self.greatest, other.greatest)

    def percentile(self, share: float) -> float:
        """The value that ``share`` (0 … 100) of all values do not exceed: the middle of its bucket; 0 when empty."""
        wanted = max(1, -(-self.total * share // 100))
        seen = 0
        for index in sorted(self.counts):
            seen += self.counts[index]
            if seen >= wanted:
                low, high = bounds(index)
                return min((low + high) / 2, self.greatest)
        return 0.0

    def as_json(self) -> dict[str, object]:
        return {"counts": dict(self.counts), "sum": self.sum, "greatest": self.greatest}


def from_json(data: Mapping[str, object]) -> Histogram:
    """The inverse of ``as_json``, also after a journey through JSON, where keys are strings."""
    histogram = Histogram()
    counts, total, greatest = data["counts"], data["sum"], data["greatest"]
    assert isinstance(counts, dict) and isinstance(total, int) and isinstance(greatest, int)
    for index, count in counts.items():
        histogram.counts[int(index)] = int(count)
    histogram.total = sum(histogram.counts.values())
    histogram.sum, histogram.greatest = total, greatest
    return histogram

"""Metrics, added up as calls end and written out in the text format of Prometheus (0.0.4) when asked.

Everything belongs to the event loop's thread; a scrape sees one moment.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

MAX_TOOLS = 5000
MAX_SERVERS = 1000
OTHER = "_other"
# fmt: off
BOUNDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)
# fmt: on
"""Upper bounds of the duration buckets, in seconds."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[str, ...]
Reading = float | Mapping[Labels, float]

_BOUNDS_NS = tuple(round(bound * 1e9) for bound in BOUNDS)
_LE = (*(f"{bound:g}" for bound in BOUNDS), "+Inf")

log = logging.getLogger("callgate.telemetry")


class Histogram:
    """Durations in nanoseconds, counted by bucket."""

    __slots__ = ("counts", "total_ns")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total_ns = 0

    def add(self, ns: int) -> None:
        self.counts[bisect_left(_BOUNDS_NS, ns)] += 1
        self.total_ns += ns


class Counter:
    """A number that only grows, for each combination of label values."""

    def __init__(self, labels: Labels = ()) -> None:
        self.labels = labels
        self.values: dict[Labels, float] = {} if labels else {(): 0}

    def add(self, *values: str, amount: float = 1) -> None:
        """Count ``amount`` more for these label values. The caller bounds how many different ones there are."""
        self.values[values] = self.values.get(values, 0) + amount


class _Family:
    """One metric as it is written: what to read when somebody asks."""

    def __init__(self, kind: str, help: str, labels: Labels, read: Callable[[], Reading]) -> None:
        self.kind, self.help, self.labels, self.read = kind, help, labels, read


class Metrics:
    """The metrics of one gateway."""

    def __init__(self) -> None:
        self._calls: dict[Labels, int] = {}
        self._tools: set[Labels] = set()
        self._durations: dict[str, tuple[Histogram, Histogram]] = {}
        self._families: dict[str, _Family] = {}

    def observe(self, tenant: str, server: str, tool: str, outcome: str, duration_ns: int, upstream_ns: int) -> None:
        """Count one call. ``upstream_ns`` 0 means that no server was asked.

        Clients can ask for tools that do not exist, so only the first 5,000 tools have series of their own;
        the others count as ``_other``.
        """
        key: Labels = (tenant, server, tool, outcome)
        calls = self._calls
        if key in calls:
            calls[key] += 1
        else:
            key = self._admit(key)
            calls[key] = calls.get(key, 0) + 1
        pair = self._durations.get(server) or self._histograms(server)
        pair[0].add(duration_ns)
        if upstream_ns:
            pair[1].add(upstream_ns)

    def gauge(self, name: str, help: str, function: Callable[[], Reading], labels: Labels = ()) -> None:
        """A value that is asked for at every scrape: a number, or numbers by label values. Last registration wins."""
        self._families[name] = _Family("gauge", help, labels, function)

    def total(self, name: str, help: str, function: Callable[[], Reading], labels: Labels = ()) -> None:
        """As ``gauge``, for a number that somebody else counts upwards."""
        self._families[name] = _Family("counter", help, labels, function)

    def counter(self, name: str, help: str, labels: Labels = ()) -> Counter:
        """A new counter."""
        counter = Counter(labels)
        self._families[name] = _Family("counter", help, labels, lambda: counter.values)
        return counter

    def render(self) -> str:
        """All metrics in the text format of Prometheus, to be sent as ``CONTENT_TYPE``."""
        lines = _head("callgate_calls_total", "counter", "Tool calls by outcome.")
        names = ("tenant", "server", "tool", "outcome")
        lines += [f"callgate_calls_total{_labels(names, key)} {count}" for key, count in self._calls.items()]
        lines += self._histogram("callgate_call_duration_seconds", "Time from a call's arrival to its answer.", 0)
        lines += self._histogram("callgate_upstream_duration_seconds", "Time that the server took of it.", 1)
        for name, family in self._families.items():
            lines += _head(name, family.kind, family.help)
            lines += [f"{name}{labels} {value}" for labels, value in _read(name, family)]
        return "\n".join(lines) + "\n"

    def _admit(self, key: Labels) -> Labels:
        tenant, server, tool, outcome = key
        if (tenant, server, tool) not in self._tools:
            if len(self._tools) >= MAX_TOOLS:
                known = server in self._durations or len(self._durations) < MAX_SERVERS
                return tenant, server if known else OTHER, OTHER, outcome
            self._tools.add((tenant, server, tool))
        return key

    def _histograms(self, server: str) -> tuple[Histogram, Histogram]:
        if len(self._durations) >= MAX_SERVERS:
            server = OTHER
        return self._durations.setdefault(server, (Histogram(), Histogram()))

    def _histogram(self, name: str, help: str, which: Literal[0, 1]) -> Iterable[str]:
        yield from _head(name, "histogram", help)
        for server, pair in self._durations.items():
            label, sum_so_far = _escape(server), 0
            for bound, count in zip(_LE, pair[which].counts, strict=True):
                sum_so_far += count
                yield f'{name}_bucket{{server="{label}",le="{bound}"}} {sum_so_far}'
            yield f'{name}_sum{{server="{label}"}} {pair[which].total_ns / 1e9:.9g}'
            yield f'{name}_count{{server="{label}"}} {sum_so_far}'


def _read(name: str, family: _Family) -> list[tuple[str, str]]:
    try:
        reading = family.read()
        if not isinstance(reading, Mapping):
            return [("", _number(reading))]
        return [(_labels(family.labels, values), _number(value)) for values, value in reading.items()]
    except Exception:  # one broken gauge must not take the others with it
        log.exception("the metric %s cannot be read", name)
        return []


def _number(value: float) -> str:
    number = float(value)
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "+Inf" if number > 0 else "-Inf"
    return repr(number) if number % 1 else f"{number:.0f}"


def _head(name: str, kind: str, help: str) -> list[str]:
    text = help.replace("\\", r"\\").replace("\n", r"\n")
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _labels(names: Labels, values: Labels) -> str:
    pairs = ",".join(f'{name}="{_escape(value)}"' for name, value in zip(names, values, strict=True))
    return f"{{{pairs}}}" if pairs else ""


def _escape(value: str) -> str:
    r"""A label value in quotes: backslash, quote and line feed escaped; lone surrogates cannot be sent."""
    text = value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

from __future__ import annotations

import logging
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from callgate.telemetry import Metrics
from callgate.telemetry import metrics as module

Sample = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(metrics: Metrics) -> Sample:
    """What Prometheus understands of the page."""
    found: Sample = {}
    for family in text_string_to_metric_families(metrics.render()):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found
            found[key] = sample.value
    return found


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(metrics)[name, frozenset(labels.items())]


def test_calls_are_counted_by_tenant_server_tool_and_outcome() -> None:
    metrics = Metrics()
    for outcome in ("ok", "ok", "denied"):
        metrics.observe("default", "git", "status", outcome, 1000, 500)
    labels = {"tenant": "default", "server": "git", "tool": "status"}
    assert value(metrics, "callgate_calls_total", **labels, outcome="ok") == 2
    assert value(metrics, "callgate_calls_total", **labels, outcome="denied") == 1


def test_durations_fall_into_buckets() -> None:
    metrics = Metrics()
    for ns in (100_000, 100_001, 3_000_000_000, 999_000_000_000):  # 0.1 ms is in the first bucket, just so
        metrics.observe("default", "git", "status", "ok", ns, 0)
    name = "callgate_call_duration_seconds"
    buckets = {"0.0001": 1, "0.00025": 2, "2.5": 2, "5": 3, "60": 3, "+Inf": 4}
    for bound, count in buckets.items():
        assert value(metrics, f"{name}_bucket", server="git", le=bound) == count
    assert value(metrics, f"{name}_count", server="git") == 4
    assert value(metrics, f"{name}_sum", server="git") == pytest.approx(1002.000200001)


def test_calls_that_reached_no_server_are_not_timed_there() -> None:
    metrics = Metrics()
    metrics.observe("default", "git", "status", "ok", 2_000_000, 1_000_000)
    metrics.observe("default", "git", "status", "denied", 2_000_000, 0)
    assert value(metrics, "callgate_upstream_duration_seconds_count", server="git") == 1
    assert value(metrics, "callgate_upstream_duration_seconds_sum", server="git") == 0.001
    assert value(metrics, "callgate_call_duration_seconds_count", server="git") == 2


def test_the_types_are_declared() -> None:
    metrics = Metrics()
    metrics.gauge("callgate_up", "One.", lambda: 1)
    metrics.total("callgate_audit_dropped_total", "Lost.", lambda: 2)
    kinds = {family.name: family.type for family in text_string_to_metric_families(metrics.render())}
    assert kinds == {
        "callgate_calls": "counter",
        "callgate_call_duration_seconds": "histogram",
        "callgate_upstream_duration_seconds": "histogram",
        "callgate_up": "gauge",
        "callgate_audit_dropped": "counter",
    }


ODD = 'a"b\\c\nd\\n{},= é'


def test_labels_are_escaped() -> None:
    metrics = Metrics()
    metrics.observe(ODD, ODD, ODD, "ok", 1, 1)
    assert value(metrics, "callgate_calls_total", tenant=ODD, server=ODD, tool=ODD, outcome="ok") == 1
    assert value(metrics, "callgate_call_duration_seconds_count", server=ODD) == 1


def test_help_is_escaped() -> None:
    metrics = Metrics()
    metrics.gauge("callgate_x", "One\ntwo \\ three", lambda: 1)
    assert r"# HELP callgate_x One\ntwo \\ three" in metrics.render()
    assert value(metrics, "callgate_x") == 1


def test_text_that_is_not_unicode_does_not_break_the_page() -> None:
    metrics = Metrics()
    metrics.observe("default", "git", "\ud800", "ok", 1, 1)
    metrics.render().encode()


@given(st.text(max_size=20))
def test_any_tool_name_comes_through(tool: str) -> None:
    metrics = Metrics()
    metrics.observe("default", "git", tool, "ok", 1, 1)
    assert value(metrics, "callgate_calls_total", tenant="default", server="git", tool=tool, outcome="ok") == 1


def test_a_client_that_invents_tools_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TOOLS", 10)
    metrics = Metrics()
    metrics.observe("default", "git", "status", "ok", 1, 1)
    for number in range(100):
        metrics.observe("default", "git", f"invented-{number}", "refused", 1, 0)
    metrics.observe("default", "git", "status", "denied", 1, 1)
    labels = {"tenant": "default", "server": "git"}
    assert value(metrics, "callgate_calls_total", **labels, tool="_other", outcome="refused") == 91
    assert value(metrics, "callgate_calls_total", **labels, tool="status", outcome="denied") == 1
    assert len([key for key in samples(metrics) if key[0] == "callgate_calls_total"]) == 12


def test_servers_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TOOLS", 5)
    monkeypatch.setattr(module, "MAX_SERVERS", 5)
    metrics = Metrics()
    for number in range(20):
        for _ in range(2):
            metrics.observe("default", f"server-{number}", "tool", "refused", 1, 1)
    other = {"tenant": "default", "server": "_other", "tool": "_other", "outcome": "refused"}
    assert value(metrics, "callgate_calls_total", **other) == 30
    assert value(metrics, "callgate_call_duration_seconds_count", server="_other") == 30
    assert len([key for key in samples(metrics) if key[0] == "callgate_calls_total"]) == 6


def test_gauges_are_asked_at_every_scrape() -> None:
    metrics, waiting = Metrics(), iter([3, 4.5])
    metrics.gauge("callgate_audit_queue", "Waiting.", lambda: next(waiting))
    assert value(metrics, "callgate_audit_queue") == 3
    assert value(metrics, "callgate_audit_queue") == 4.5


def test_gauges_may_have_labels() -> None:
    metrics = Metrics()
    metrics.gauge("callgate_in_flight", "Now.", lambda: {("git",): 2, ("docs",): 0}, ("server",))
    assert value(metrics, "callgate_in_flight", server="git") == 2
    assert value(metrics, "callgate_in_flight", server="docs") == 0


@pytest.mark.parametrize("number", [math.inf, -math.inf, 1e300, -0.25, 2**60])
def test_any_number_can_be_written(number: float) -> None:
    metrics = Metrics()
    metrics.gauge("callgate_x", "X.", lambda: number)
    assert value(metrics, "callgate_x") == number


def test_not_a_number_can_be_written() -> None:
    metrics = Metrics()
    metrics.gauge("callgate_x", "X.", lambda: math.nan)
    assert math.isnan(value(metrics, "callgate_x"))


def test_counters_count() -> None:
    metrics = Metrics()
    plain = metrics.counter("callgate_reloads_total", "Reloads.")
    labelled = metrics.counter("callgate_refusals_total", "Refusals.", ("code",))
    assert value(metrics, "callgate_reloads_total") == 0
    plain.add()
    plain.add(amount=2)
    labelled.add("413")
    labelled.add("413")
    labelled.add("431")
    assert value(metrics, "callgate_reloads_total") == 3
    assert value(metrics, "callgate_refusals_total", code="413") == 2
    assert value(metrics, "callgate_refusals_total", code="431") == 1


def test_a_broken_gauge_does_not_take_the_others_with_it(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    metrics.gauge("callgate_broken", "Broken.", lambda: 1 // 0)
    metrics.gauge("callgate_whole", "Whole.", lambda: 1)
    with caplog.at_level(logging.ERROR):
        assert value(metrics, "callgate_whole") == 1
    assert "callgate_broken cannot be read" in caplog.text

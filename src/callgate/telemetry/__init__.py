"""Telemetry: how it went. Metrics for Prometheus, and the ids that tie a call to its trace."""

from __future__ import annotations

from callgate.telemetry.metrics import Counter, Metrics
from callgate.telemetry.trace import Parent, format_traceparent, new_span_id, new_trace_id, parse_traceparent

__all__ = ["Counter", "Metrics", "Parent", "format_traceparent", "new_span_id", "new_trace_id", "parse_traceparent"]

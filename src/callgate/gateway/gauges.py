"""What the metrics show of the house at any moment."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from callgate.gateway.house import House


def show_gauges(house: House) -> None:
    """Register them."""
    metrics = house.metrics
    metrics.gauge("callgate_sessions", "Open legacy sessions.", lambda: len(house.sessions))
    metrics.gauge("callgate_tools", "Tools on the endpoint of everything.", lambda: house.catalog.tool_count)
    metrics.gauge("callgate_parked_calls", "Calls that wait for their clients.", lambda: len(house.parking))
    metrics.gauge("callgate_calls_in_flight", "Calls in flight.", lambda: len(house.places))
    metrics.gauge("callgate_tasks", "Tasks of the event loop.", lambda: len(asyncio.all_tasks()))
    metrics.total("callgate_audit_dropped_total", "Audit records dropped.", lambda: house.journal.dropped)
    metrics.gauge("callgate_audit_waiting", "Audit records not yet written.", lambda: house.journal.waiting)

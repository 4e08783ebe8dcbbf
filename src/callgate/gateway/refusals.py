"""Refused requests: all are counted, and of those without a call as many are recorded as a flood leaves room for."""

from __future__ import annotations

import time

from callgate.audit import Journal, Record
from callgate.errors import Unauthenticated
from callgate.gateway.account import stranger
from callgate.telemetry import Metrics

#: Refusals that are written to the audit log in one second.
MOST = 20


class Refusals:
    def __init__(self, metrics: Metrics, journal: Journal) -> None:
        self._counter = metrics.counter("callgate_refused_requests_total", "Requests refused at the door.", ("status",))
        self._journal = journal
        self._second, self._written = 0, 0

    def count(self, status: int) -> None:
        self._counter.add(str(status))

    def note(self, record: Record, status: int) -> None:
        """Count a refusal and record it; a flood is counted, not written."""
        self.count(status)
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._written = second, 0
        if self._written < MOST and not self._journal.full:
            self._written += 1
            self._journal.put(record)

    def stranger(self, error: Unauthenticated, door: str) -> None:
        """A credential that did not hold."""
        self.note(stranger(error, door), 401)

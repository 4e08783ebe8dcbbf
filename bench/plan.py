"""What the driver is told to do and what it reports: one ``Job`` in, one ``Report`` out, as lines of JSON."""

from __future__ import annotations

import msgspec

from bench.histogram import Histogram, from_json
from bench.wire import Expected


class Step(msgspec.Struct, frozen=True):
    """One request as bytes; ``@SESSION@`` in it stands for the session id that an earlier step was answered with."""

    data: bytes
    expected: Expected


class Job(msgspec.Struct, frozen=True):
    """One load run.

    ``variants`` are sent in turn, each a sequence of steps timed as a whole. ``rate`` is exchanges per second (0:
    closed loop, every connection sends as soon as it was answered). The run ends after ``seconds`` or ``count``
    exchanges; it goes on for up to five seconds more until there are ``at_least`` exchanges. The CPU time of ``pids``
    and of the driver is taken over exactly the measured part. With ``command`` the load goes to the standard input of
    that program instead of to ``port``.
    """

    variants: list[list[Step]]
    port: int = 0
    host: str = "127.0.0.1"
    command: list[str] = []
    connections: int = 1
    rate: float = 0.0
    seconds: float = 1.0
    warm_up: float = 0.2
    count: int = 0
    at_least: int = 0
    timeout: float = 10.0
    pids: list[int] = []


class Report(msgspec.Struct):
    """``sent`` counts messages with warm-up; everything else is about the measured part (``seconds`` long).

    ``answered`` are right answers; ``errors`` are wrong ones, lost connections and answers that never came, with the
    first few reasons in ``reasons``; ``cpu`` is the CPU time of the job's ``pids`` in seconds, ``own_cpu`` the
    driver's; ``bytes_in`` is the size of the bodies received.
    """

    histogram: dict[str, object]
    sent: int = 0
    answered: int = 0
    errors: int = 0
    reasons: list[str] = []
    seconds: float = 0.0
    cpu: float = 0.0
    own_cpu: float = 0.0
    bytes_in: int = 0

    @property
    def latencies(self) -> Histogram:
        return from_json(self.histogram)

"""What happened in a run: latencies, errors, and CPU time, counted only while the measured part lasts."""

from __future__ import annotations

import os
from time import perf_counter_ns

import psutil

from bench.histogram import Histogram
from bench.plan import Job, Report, Step
from bench.wire import fault

SECOND = 1_000_000_000
EXTRA = 5 * SECOND
REASONS = 5


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of the processes so far; a process that has ended counts nothing."""
    total = 0.0
    for pid in pids:
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


class Tally:
    """Judges answers and counts; ``begin`` and ``end`` are ``perf_counter_ns`` times of the measured part."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.histogram = Histogram()
        self.report = Report(histogram={}, reasons=[])
        self.measuring = False
        self._right: dict[int, bytes] = {}
        self.restart()

    def restart(self) -> None:
        """The warm-up begins now."""
        self.begin = perf_counter_ns() + int(self.job.warm_up * SECOND)
        self.end = self.begin + int(self.job.seconds * SECOND)

    def tick(self, now: int) -> bool:
        """Notice that the measured part begins; false when the run is over."""
        if not self.measuring and now >= self.begin:
            self.measuring = True
            self._cpu, self._own = cpu_seconds(self.job.pids), cpu_seconds([os.getpid()])
            self.begin = perf_counter_ns()
            self.end = self.begin + int(self.job.seconds * SECOND)
        enough = bool(self.job.count) and self._done >= self.job.count
        return not enough and (now < self.end or (now < self.end + EXTRA and self._done < self.job.at_least))

    @property
    def _done(self) -> int:
        return self.report.answered + self.report.errors

    def judge(self, step: Step, status: int, body: bytes) -> bool:
        """Whether the answer is right. An answer equal to one already found right needs no second look."""
        known = self._right.get(id(step))
        if known == body and known:
            return True
        reason = fault(status, body, step.expected)
        if reason:
            self.wrong(reason)
            return False
        self._right[id(step)] = body
        return True

    def right(self, started: int, now: int, size: int) -> None:
        if self.measuring:
            self.report.answered += 1
            self.report.bytes_in += size
            self.histogram.record(now - started)

    def wrong(self, reason: str) -> None:
        """Errors count during warm-up too: a gateway that fails there is not ready."""
        self.report.errors += 1
        if len(self.report.reasons) < REASONS:
            self.report.reasons.append(reason)

    def stop_clock(self) -> None:
        """The measured part is over: take its length and the CPU time."""
        if self.measuring:
            self.report.seconds = (perf_counter_ns() - self.begin) / SECOND
            self.report.cpu = cpu_seconds(self.job.pids) - self._cpu
            self.report.own_cpu = cpu_seconds([os.getpid()]) - self._own

    def result(self) -> Report:
        self.report.histogram = self.histogram.as_json()
        return self.report

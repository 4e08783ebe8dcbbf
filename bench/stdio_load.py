"""Closed loop over the standard input and output of a program; ``connections`` is the number of calls under way."""

from __future__ import annotations

import os
import select
import subprocess
from time import perf_counter_ns

import msgspec

from bench.plan import Job, Report, Step
from bench.tally import Tally

CHUNK = 1 << 18


class _Id(msgspec.Struct):
    id: int | None = None


_read_id = msgspec.json.Decoder(_Id).decode


class StdioLoad:
    """One run. Variant *k* must carry the JSON-RPC id *k* + 1 and is sent again when its answer has come."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.process = subprocess.Popen(job.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self.process.stdin and self.process.stdout
        self.input, self.output = self.process.stdin.fileno(), self.process.stdout.fileno()
        self.tally = Tally(msgspec.structs.replace(job, pids=[self.process.pid]))
        self.steps = {steps[0].expected.number: steps[0] for steps in job.variants[: job.connections]}
        self.started: dict[int | None, int] = {}
        self.silent = set(self.steps)
        self.rest = b""

    def run(self) -> Report:
        try:
            self.send(list(self.steps.values()))
            alive = True
            while self.silent and alive:
                alive = self.receive()  # the program is still starting: not part of any figure
            self.tally.restart()
            while alive and self.tally.tick(perf_counter_ns()):
                alive = self.receive()
            self.tally.stop_clock()
        finally:
            self.process.kill()
            self.process.communicate()
        return self.tally.result()

    def send(self, steps: list[Step]) -> None:
        now = perf_counter_ns()
        for step in steps:
            self.started[step.expected.number] = now
        self.tally.report.sent += len(steps)
        left = memoryview(b"".join(step.data + b"\n" for step in steps))
        while left:
            left = left[os.write(self.input, left) :]

    def receive(self) -> bool:
        """Take what arrived; false when the program is gone or says nothing any more."""
        if not select.select([self.output], (), (), self.job.timeout)[0]:
            self.tally.wrong(f"no answer in {self.job.timeout:g} s")
            return False
        chunk = os.read(self.output, CHUNK)
        if not chunk:
            self.tally.wrong("the program closed its output")
            return False
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        now = perf_counter_ns()
        self.send([step for line in lines if line and (step := self.answered(line, now))])
        return True

    def answered(self, line: bytes, now: int) -> Step | None:
        step = self.steps.get(_read_id(line).id)
        self.silent.discard(step.expected.number if step else None)
        if step is not None and self.tally.judge(step, 200, line):
            self.tally.right(self.started[step.expected.number], now, len(line))
        return step

"""The load driver, a process of its own: ``python -m bench.driver`` reads jobs and writes reports, one JSON a line.

Loops: ``bench.http_load`` (closed and open) and ``bench.stdio_load``; what is asked and answered: ``bench.plan``.
"""

from __future__ import annotations

import gc
import subprocess
import sys

import msgspec

from bench.http_load import HttpLoad
from bench.plan import Job, Report
from bench.stdio_load import StdioLoad

SPARE = 60.0


def run(job: Job) -> Report:
    """Do one job in this process."""
    gc.collect()
    gc.disable()  # a collection in the middle would be booked as latency of the server
    try:
        return StdioLoad(job).run() if job.command else HttpLoad(job).run()
    except (OSError, ValueError) as error:
        return Report(histogram={"counts": {}, "sum": 0, "greatest": 0}, errors=1, reasons=[repr(error)])
    finally:
        gc.enable()


class Driver:
    """A driver process. ``run`` hands it one job and waits for the report."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.driver"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def run(self, job: Job) -> Report:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(msgspec.json.encode(job) + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()  # the driver keeps the job's own deadlines, so this ends
        if not line:
            raise RuntimeError(f"the load driver ended with status {self.process.wait(SPARE)}")
        return msgspec.json.decode(line, type=Report)

    def close(self) -> None:
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait(SPARE)
        if self.process.stdout:
            self.process.stdout.close()


def main() -> None:
    for line in sys.stdin.buffer:
        report = run(msgspec.json.decode(line, type=Job))
        sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

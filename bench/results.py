"""The figures of a run and where it ran; what ``--json`` writes and ``compare`` reads."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import psutil

from bench.histogram import Histogram
from bench.plan import Report

LIBRARIES = ("callgate", "uvicorn", "uvloop", "httptools", "msgspec", "cel-expr-python", "SQLAlchemy")
REASONS = 3
Key = tuple[str, str, str, str]


class Figure(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One cell of a table. Latencies and CPU are microseconds, memory megabytes (10⁶), start-up milliseconds.

    ``load`` is ``c=8`` (closed loop, eight connections) or ``6000/s`` (open loop). ``upstream`` is messages that the
    servers received for each message sent, ``size`` the bytes of one answer.
    """

    table: str
    point: str
    load: str
    target: str
    answered: int = 0
    errors: int = 0
    reasons: list[str] = []
    per_second: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    p999: float = 0.0
    greatest: float = 0.0
    cpu: float | None = None
    driver_cpu: float | None = None
    upstream: float | None = None
    size: float | None = None
    resident: float | None = None
    ready: float | None = None
    first: float | None = None

    @property
    def key(self) -> Key:
        return self.table, self.point, self.load, self.target


class Sample(msgspec.Struct, array_like=True):
    """What the gateway's process holds at one moment: seconds since its start, memory in megabytes (10⁶)."""

    seconds: float
    memory: float
    files: int
    tasks: int
    children: int


class Soak(msgspec.Struct):
    """A soak: one sample ``before`` anything was open, some while everything was, one ``after`` all was closed."""

    sessions: int
    streams: int
    calls: int
    wrong: int
    before: Sample
    held: list[Sample]
    after: Sample


class Results(msgspec.Struct, kw_only=True):
    """A whole run. ``skipped`` says why something was left out; ``soak`` is measured by ``bench.soak``."""

    mode: str
    started: str
    machine: dict[str, str]
    versions: dict[str, str]
    method: dict[str, float]
    figures: list[Figure] = []
    skipped: dict[str, str] = {}
    soak: Soak | None = None

    def of(self, table: str) -> list[Figure]:
        return [figure for figure in self.figures if figure.table == table]

    def find(self, key: Key) -> Figure | None:
        return next((figure for figure in self.figures if figure.key == key), None)


class Total:
    """The sum of the slices that one target had of one load."""

    def __init__(self) -> None:
        self.latencies = Histogram()
        self.sums = Report(histogram={}, reasons=[])
        self.received = 0

    def add(self, report: Report, received: int) -> None:
        """``received`` is how many messages reached the servers meanwhile."""
        self.latencies.add(report.latencies)
        for name in ("sent", "answered", "errors", "seconds", "cpu", "own_cpu", "bytes_in"):
            setattr(self.sums, name, getattr(self.sums, name) + getattr(report, name))
        self.sums.reasons = [*self.sums.reasons, *report.reasons][:REASONS]
        self.received += received

    def figure(self, key: Key, *, gateway: bool, counted: bool) -> Figure:
        """``gateway``: there was a process whose CPU was taken; ``counted``: the servers' messages were."""
        sums, calls = self.sums, max(self.sums.answered, 1)
        table, point, load, target = key
        p50, p90, p99, p999 = (self.latencies.percentile(share) / 1e3 for share in (50, 90, 99, 99.9))
        return Figure(
            table=table, point=point, load=load, target=target,
            answered=sums.answered, errors=sums.errors, reasons=sums.reasons,
            per_second=sums.answered / sums.seconds if sums.seconds else 0.0,
            p50=p50, p90=p90, p99=p99, p999=p999, greatest=self.latencies.greatest / 1e3,
            cpu=sums.cpu / calls * 1e6 if gateway and sums.answered else None,
            driver_cpu=sums.own_cpu / calls * 1e6 if sums.answered else None,
            upstream=self.received / sums.sent if counted and sums.sent else None,
            size=sums.bytes_in / calls if sums.answered else None,
        )  # fmt: skip


def machine() -> dict[str, str]:
    """What it ran on, without names of hosts or people."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    release = re.match(r"\d+(\.\d+)?", platform.release())
    return {
        "processor": _processor(),
        "cores": str(cores),
        "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "system": f"{platform.system()} {release[0] if release else ''}".strip(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists() and (found := re.search(r"model name\s*: (.+)", info.read_text(encoding="utf-8"))):
        return found[1].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            if name == "callgate":
                from callgate import __version__

                found[name] = __version__
    return found


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def read(path: Path) -> Results:
    return msgspec.json.decode(path.read_bytes(), type=Results)


def write(results: Results, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(_rounded(results)), indent=1) + b"\n")


def _rounded(results: Results) -> Results:
    """Four digits are more than the figures are worth."""
    figures = []
    for figure in results.figures:
        values = {name: float(f"{value:.4g}") for name, value in _floats(figure)}
        figures.append(msgspec.structs.replace(figure, **values))
    return msgspec.structs.replace(results, figures=figures)


def _floats(figure: Figure) -> list[tuple[str, float]]:
    return [(name, value) for name, value in msgspec.structs.asdict(figure).items() if isinstance(value, float)]

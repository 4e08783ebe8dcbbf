"""One run of the benchmark: who is compared, how long each has, what came out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

import msgspec
from rich.console import Console

from bench import context_forge, fastmcp_proxy, targets
from bench.backend import Backend
from bench.driver import Driver
from bench.governance import Shape
from bench.peers import Absent
from bench.plan import Job, Report
from bench.processes import NotStarted
from bench.results import Figure, Results, Total, machine, now, versions
from bench.targets import BARE, CALLGATE, DIRECT, FASTMCP, STRICT, Servers, Target

OURS = (CALLGATE, BARE, STRICT)


class Pace(msgspec.Struct, frozen=True):
    """How long things take: each target has ``rounds`` slices of ``seconds`` of each load, in turn with the others."""

    rounds: int
    growth_rounds: int
    seconds: float
    starts: int
    warm_up: float = 0.2


PACES = {
    "quick": Pace(rounds=2, growth_rounds=1, seconds=0.8, starts=3),
    "full": Pace(rounds=5, growth_rounds=2, seconds=1.6, starts=7),
}


class Track:
    """What the scenarios work with: the driver, a folder for state, and the figures so far."""

    def __init__(self, mode: str, cache: Path, folder: Path, console: Console) -> None:
        self.pace = PACES[mode]
        self.rounds = self.pace.rounds
        self.full = mode == "full"
        self.cache = cache
        self.folder = folder
        self.console = console
        self.driver = Driver()
        self.results = Results(
            mode=mode, started=now(), machine=machine(), versions=versions(), method=msgspec.structs.asdict(self.pace)
        )
        self._numbers = count(1)

    def say(self, text: str) -> None:
        self.console.print(f"[dim]{text}[/dim]", highlight=False)

    @contextlib.contextmanager
    def running(self, names: Sequence[str], backend: Backend) -> Iterator[list[Target]]:
        """The targets by name, each in front of a server of its own; one that is absent is noted and left out."""
        found: list[Target] = []
        try:
            for name, port in zip(names, backend.ports, strict=False):
                servers = Servers(http={"bench": port}, tools=backend.tools)
                if target := self.start(name, servers):
                    found.append(target)
            yield found
        finally:
            for target in found:
                target.stop()

    def start(self, name: str, servers: Servers, shape: Shape | None = None) -> Target | None:
        """Start one target; ``None`` when it is not there (noted once) or does not start."""
        if name in self.results.skipped and name not in OURS:
            return None
        folder = self.folder / f"{next(self._numbers)}"
        try:
            return self._start(name, servers, folder, shape)
        except (Absent, NotStarted) as error:
            if name in OURS:
                raise
            self.results.skipped[name] = str(error)
            self.console.print(f"[yellow]skipped {name}:[/yellow] {error}", highlight=False)
            return None

    def _start(self, name: str, servers: Servers, folder: Path, shape: Shape | None) -> Target:
        if name == DIRECT:
            return targets.direct(servers)
        if name in OURS:
            return targets.callgate(name, servers, folder, shape)
        self.say(f"starting {name} …")
        if name == FASTMCP:
            return fastmcp_proxy.start(servers, self.cache)
        return context_forge.start(name, servers, self.cache, folder)

    def slice(self, target: Target, job: Job, backend: Backend | None, total: Total) -> Report:
        """Let the driver do ``job`` once, add the outcome to ``total``."""
        ports = target.servers.http.values() if backend else ()
        before = sum(backend.counts(port) for port in ports) if backend else 0
        pace = {"seconds": self.pace.seconds, "warm_up": self.pace.warm_up, "pids": target.pids()}
        at_least = 0 if job.rate else 2 * job.connections  # a slow peer still shows what it does
        report = self.driver.run(msgspec.structs.replace(job, at_least=at_least, **pace))
        after = sum(backend.counts(port) for port in ports) if backend else 0
        total.add(report, after - before)
        return report

    def compare(
        self,
        where: tuple[str, str, str],
        found: Sequence[Target],
        job: Callable[[Target], Job],
        backend: Backend | None,
    ) -> list[Figure]:
        """Put all targets under the same load, slice by slice in turn; ``where`` is (table, point, load)."""
        self.say(" · ".join(where))
        totals = [Total() for _ in found]
        for turn in range(self.rounds):
            order = list(range(len(found)))
            for index in order[turn % len(order) :] + order[: turn % len(order)]:
                self.slice(found[index], job(found[index]), backend, totals[index])
        return [self.note(where, target, total, backend) for target, total in zip(found, totals, strict=True)]

    def note(self, where: tuple[str, str, str], target: Target, total: Total, backend: Backend | None) -> Figure:
        """Make the figure of ``total`` and keep it."""
        counted = backend is not None and bool(target.servers.http)
        figure = total.figure((*where, target.name), gateway=target.program is not None, counted=counted)
        if target.program:
            figure.resident = target.resident() / 1e6
            figure.ready, figure.first = target.ready * 1e3, target.answered * 1e3
        self.results.figures.append(figure)
        return figure

    def close(self) -> None:
        self.driver.close()

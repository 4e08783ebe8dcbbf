"""Closed and open loop over HTTP: sockets, a selector, and nothing else, so that a request costs the driver little.

Open loop: request *k* is due at ``start + k / rate`` whatever happened before, and its latency counts from that moment,
not from when a connection became free for it. A server that stalls is charged for everybody who had to wait.
"""

from __future__ import annotations

import ctypes
import select
import selectors
import socket
import sys
from collections import deque
from collections.abc import Iterator
from itertools import count
from time import perf_counter_ns

from bench.plan import Job, Report, Step
from bench.tally import SECOND, Tally
from bench.wire import SESSION, Framing

CHUNK = 1 << 16
PR_SET_TIMERSLACK = 29
LONGEST_WAIT = 0.05


def wake_on_time() -> None:
    """Ask Linux not to round this process's short waits up by its usual 50 µs; other systems have no such habit."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)


def schedule(start: int, rate: float) -> Iterator[int]:
    """When requests are due (nanoseconds), for ever; computed from the start, so that no error adds up.

    >>> times = schedule(1000, 3e6)
    >>> [next(times) for _ in range(4)]
    [1000, 1333, 1666, 2000]
    """
    return (start + int(number * SECOND / rate) for number in count())


class Line:
    """One connection, and the exchange that is under way on it (``started`` is 0 when none is)."""

    def __init__(self, sock: socket.socket, turn: int) -> None:
        self.sock = sock
        self.framing = Framing()
        self.turn = turn
        self.steps: list[Step] = []
        self.at = 0
        self.started = 0
        self.size = 0
        self.session = b""
        self.unsent = memoryview(b"")


class HttpLoad:
    """One run. ``idle`` are the connections without an exchange, ``due`` the times of those that wait for one."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.tally = Tally(job)
        self.selector = selectors.DefaultSelector()
        self.lines: list[Line] = []
        self.idle: list[Line] = []
        self.due: deque[int] = deque()

    def run(self) -> Report:
        try:
            for turn in range(self.job.connections):
                self.open(turn)
            self.tally.restart()
            (self.run_open if self.job.rate else self.run_closed)()
        finally:
            self.close()
        return self.tally.result()

    def close(self) -> None:
        for line in self.lines:
            line.sock.close()
        self.selector.close()

    def open(self, turn: int) -> None:
        sock = socket.create_connection((self.job.host, self.job.port), timeout=self.job.timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        line = Line(sock, turn)
        self.lines.append(line)
        self.idle.append(line)
        self.selector.register(sock, selectors.EVENT_READ, line)

    def run_closed(self) -> None:
        now = last_sweep = perf_counter_ns()
        while self.tally.tick(now):
            while self.idle:
                self.begin(self.idle.pop(), perf_counter_ns())
            for key, events in self.selector.select(LONGEST_WAIT):
                self.serve(key.data, events)
            now = perf_counter_ns()
            if now - last_sweep > SECOND // 4:
                self.sweep(now)
                last_sweep = now
        self.tally.stop_clock()
        self.tally.measuring = False
        self.drain()

    def run_open(self) -> None:
        wake_on_time()
        times = schedule(perf_counter_ns(), self.job.rate)
        now, upcoming = perf_counter_ns(), next(times)
        last_sweep = now
        while self.tally.tick(now):
            while upcoming <= now:
                self.due.append(upcoming)
                upcoming = next(times)
            self.send_due()
            self.wait((upcoming - perf_counter_ns()) / SECOND)
            now = perf_counter_ns()
            if now - last_sweep > SECOND // 4:
                self.sweep(now)
                last_sweep = now
        while upcoming < self.tally.end:  # the driver itself overslept the end
            self.due.append(upcoming)
            upcoming = next(times)
        self.tally.stop_clock()
        self.drain()

    def send_due(self) -> None:
        while self.due and self.idle:
            self.begin(self.idle.pop(), self.due.popleft())

    def wait(self, seconds: float) -> None:
        """Serve what arrives in the next ``seconds``. ``select`` on the selector itself waits by microseconds; an
        epoll would round up to milliseconds.
        """
        if select.select([self.selector], (), (), min(max(seconds, 0), LONGEST_WAIT))[0]:
            for key, events in self.selector.select(0):
                self.serve(key.data, events)

    def drain(self) -> None:
        """Wait for the answers that are due. In the open loop they still count; in both, one that never comes is an
        error. So the servers are idle afterwards and have received exactly what was sent.
        """
        limit = perf_counter_ns() + int(self.job.timeout * SECOND)
        while len(self.idle) < len(self.lines) or self.due:
            if perf_counter_ns() > limit:
                break
            self.send_due()
            self.wait(LONGEST_WAIT)
        for _ in range(len(self.due) + len(self.lines) - len(self.idle)):
            self.tally.wrong(f"no answer {self.job.timeout:g} s after the end")

    def begin(self, line: Line, started: int) -> None:
        line.steps = self.job.variants[line.turn % len(self.job.variants)]
        line.turn += self.job.connections
        line.at = line.size = 0
        line.started = started
        self.send(line)

    def send(self, line: Line) -> None:
        data = line.steps[line.at].data
        if line.at and SESSION in data:
            data = data.replace(SESSION, line.session)
        self.tally.report.sent += 1
        try:
            written = line.sock.send(data)
        except BlockingIOError:
            written = 0
        except OSError as error:
            return self.lost(line, repr(error))
        if written < len(data):
            line.unsent = memoryview(data)[written:]
            self.selector.modify(line.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, line)

    def serve(self, line: Line, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self.send_rest(line)
        if events & selectors.EVENT_READ:
            self.receive(line)

    def send_rest(self, line: Line) -> None:
        try:
            line.unsent = line.unsent[line.sock.send(line.unsent) :]
        except BlockingIOError:
            return
        except OSError as error:
            return self.lost(line, repr(error))
        if not line.unsent:
            self.selector.modify(line.sock, selectors.EVENT_READ, line)

    def receive(self, line: Line) -> None:
        try:
            data = line.sock.recv(CHUNK)
            complete = line.framing.feed(data) if data else None
        except BlockingIOError:
            return
        except (OSError, ValueError) as error:
            return self.lost(line, repr(error))
        if complete is None:
            self.lost(line, "the server closed the connection")
        elif complete:
            self.answered(line, perf_counter_ns())

    def answered(self, line: Line, now: int) -> None:
        framing = line.framing
        line.size += len(framing.body)
        right = self.tally.judge(line.steps[line.at], framing.status, framing.body)
        if right and line.at + 1 < len(line.steps):
            line.session = framing.session or line.session
            line.at += 1
            return self.send(line)
        if right and (not self.job.rate or line.started >= self.tally.begin):
            self.tally.right(line.started, now, line.size)
        line.started = 0
        self.idle.append(line)

    def lost(self, line: Line, reason: str) -> None:
        """The connection is of no more use: count it, and open another one in its place."""
        if line not in self.lines:
            return
        if line in self.idle:  # closed between two exchanges, as servers may: no error
            self.idle.remove(line)
        else:
            self.tally.wrong(reason)
        self.selector.unregister(line.sock)
        line.sock.close()
        self.lines.remove(line)
        self.open(line.turn)

    def sweep(self, now: int) -> None:
        late = now - int(self.job.timeout * SECOND)
        for line in [line for line in self.lines if line.started and line.started < late]:
            self.lost(line, f"no answer in {self.job.timeout:g} s")


def open_sessions(job: Job, number: int) -> list[str]:
    """Do the handshake of ``job`` one after the other until there are ``number`` sessions; their ids."""
    load = HttpLoad(job)
    found: list[str] = []
    try:
        load.open(0)
        while len(found) < number and not load.tally.report.errors:
            if load.idle:
                load.begin(load.idle.pop(), perf_counter_ns())
            load.wait(LONGEST_WAIT)
            if load.idle:
                found.append(load.lines[0].session.decode())
    finally:
        load.close()
    if len(found) < number:
        raise RuntimeError(f"session {len(found) + 1} was refused: {load.tally.report.reasons}")
    return found

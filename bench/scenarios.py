"""What is compared: calls (closed loop, fixed rate, over stdio), lists, sessions, starts, a hung server."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from statistics import median

from bench import growth, loads
from bench.backend import Backend, stdio_command
from bench.plan import Job, Step
from bench.results import Figure, Total
from bench.targets import BARE, CALLGATE, DIRECT, FASTMCP, FORGE, FORGE_DEFAULT, STRICT, Servers, Target
from bench.track import OURS, Track
from bench.wire import Door, Expected, call_params, message

EVERYBODY = (DIRECT, CALLGATE, BARE, STRICT, FASTMCP, FORGE, FORGE_DEFAULT)
CONCURRENCIES = (1, 8, 32)
HELD = 32


def calls(track: Track) -> None:
    """``tools/call`` over HTTP, closed loop."""
    backend = Backend(len(EVERYBODY))
    try:
        with track.running(EVERYBODY, backend) as found:
            for connections in CONCURRENCIES:
                where = ("calls", "HTTP", f"c={connections}")
                track.compare(where, found, partial(loads.calls, connections=connections), backend)
    finally:
        backend.stop()


def open_loop(track: Track) -> None:
    """``tools/call`` over HTTP at half of what callgate can do, open loop."""
    backend = Backend(4)
    try:
        with track.running((DIRECT, CALLGATE, BARE, STRICT), backend) as found:
            most = track.slice(found[1], loads.calls(found[1], 32), None, Total())
            rate = max(100.0, round(most.answered / most.seconds / 2, -2))
            where = ("open", "HTTP", f"{rate:.0f}/s")
            track.compare(where, found, partial(loads.open_calls, rate=rate), backend)
    finally:
        backend.stop()


def stdio(track: Track) -> None:
    """``tools/call`` with a server that speaks over stdin and stdout."""
    servers = Servers(stdio={"bench": stdio_command()})
    found = [target for name in (CALLGATE, FASTMCP) if (target := track.start(name, servers))]
    try:
        for connections in (1, 32):
            where = ("calls", "stdio", f"c={connections}")
            pipe(track, connections, where)
            track.compare(where, found, partial(loads.calls, connections=connections), None)
    finally:
        for target in found:
            target.stop()


def pipe(track: Track, connections: int, where: tuple[str, str, str]) -> None:
    """The same without a gateway: the driver starts the server and talks to it."""
    variants = []
    for number in range(1, connections + 1):
        text = f"message {number}"
        data = message("tools/call", call_params("echo", text), number, "modern")
        variants.append([Step(data, Expected(number, text))])
    nobody = Target(DIRECT, Door(0), lambda _server: "echo", Servers())
    total = Total()
    for _ in range(track.rounds):
        track.slice(nobody, Job(variants, command=stdio_command(), connections=connections), None, total)
    track.note(where, nobody, total, None)


def lists(track: Track) -> None:
    """``tools/list`` of 10 and of 1,000 tools."""
    names = (DIRECT, CALLGATE, FASTMCP, FORGE)
    for tools in (10, 1000):
        backend = Backend(len(names), tools)
        try:
            with track.running(names, backend) as found:
                where = ("list", f"{tools} tools", "c=1")
                track.compare(where, found, partial(loads.lists, expected=tools), backend)
        finally:
            backend.stop()


def sessions(track: Track) -> None:
    """Legacy session set-up."""
    names = (DIRECT, CALLGATE, FASTMCP, *((FORGE,) if track.full else ()))
    backend = Backend(len(names))
    try:
        with track.running(names, backend) as found:
            for connections in (1, 8):
                where = ("sessions", "initialize + initialized", f"c={connections}")
                track.compare(where, found, partial(loads.handshakes, connections=connections), backend)
    finally:
        backend.stop()


def starts(track: Track) -> None:
    """Process start to ready and to the first answered call, and memory before any load; the median of several."""
    backend = Backend(1)
    try:
        for name in (CALLGATE, BARE, FASTMCP, FORGE):
            times = track.pace.starts if name in OURS else 1
            track.say(f"start-up · {name}")
            measured = [figure for _ in range(times) if (figure := start_once(track, name, backend))]
            if measured:
                track.results.figures.append(middle(measured))
    finally:
        backend.stop()


def start_once(track: Track, name: str, backend: Backend) -> Figure | None:
    target = track.start(name, Servers(http={"bench": backend.ports[0]}))
    if target is None:
        return None
    figure = Figure(table="start", point="10 tools", load="first call", target=name)
    figure.ready, figure.first, figure.resident = target.ready * 1e3, target.answered * 1e3, target.resident() / 1e6
    target.stop()
    return figure


def middle(measured: list[Figure]) -> Figure:
    """The median of each value by itself."""
    figure = measured[0]
    figure.answered = len(measured)
    figure.ready = median(one.ready or 0.0 for one in measured)
    figure.first = median(one.first or 0.0 for one in measured)
    figure.resident = median(one.resident or 0.0 for one in measured)
    return figure


def hung(track: Track) -> None:
    """One of five servers hangs: what the callers of the other four notice, and whether lists wait."""
    for name in (CALLGATE, FASTMCP) if track.full else (CALLGATE,):
        backend = Backend(5)
        servers = Servers(http={f"bench{number}": port for number, port in enumerate(backend.ports)})
        try:
            target = track.start(name, servers)
            if target:
                hang(track, target, backend)
                target.stop()
        finally:
            backend.stop()


def hang(track: Track, target: Target, backend: Backend) -> None:
    """First all servers answer, then one hangs while callers wait for it: the same loads on the others."""
    *others, victim = target.servers.names
    front = Target(target.name, target.door, target.tool, Servers({name: target.servers.http[name] for name in others}))
    front.program, front.ready, front.answered = target.program, target.ready, target.answered
    jobs = {
        ("calls to the other four", "c=8"): _patient(loads.calls(front, 8)),
        ("tools/list", "c=1"): _patient(loads.lists(target, 5 * backend.tools)),
    }
    for state in ("none hung", "one hung"):
        waiting = hold(target, victim, backend) if state == "one hung" else []
        for (what, load), job in jobs.items():
            track.say(f"{state} · {target.name} · {what}")
            total = Total()
            for _ in range(track.rounds):
                track.slice(front, job, None, total)
            track.note(("hung", f"{what}, {state}", load), front, total, None)
        for sock in waiting:
            sock.close()


def _patient(job: Job) -> Job:
    return Job(job.variants, port=job.port, connections=job.connections, timeout=4.0)


def hold(target: Target, victim: str, backend: Backend) -> list[socket.socket]:
    """Hang the server and put callers in front of it, who wait until their connections are closed."""
    backend.hang(target.servers.http[victim])
    waiting = []
    for number in range(HELD):
        sock = socket.create_connection(("127.0.0.1", target.door.port), timeout=5)
        sock.sendall(loads.call(target.door, target.tool(victim), 1000 + number)[0].data)
        waiting.append(sock)
    return waiting


SCENARIOS: dict[str, Callable[[Track], None]] = {
    "calls": calls,
    "open": open_loop,
    "stdio": stdio,
    "list": lists,
    "sessions": sessions,
    "start": starts,
    "hung": hung,
    "growth": growth.growth,
}
IN_QUICK = ("calls", "open", "stdio", "list", "sessions", "start", "hung")

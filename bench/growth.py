"""How callgate's cost grows: with tools, servers, rules, legacy sessions and the size of messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from bench import loads
from bench.backend import Backend
from bench.governance import Shape
from bench.http_load import open_sessions
from bench.targets import CALLGATE, Servers, Target, direct
from bench.track import Track

TOOLS = (10, 100, 1_000, 10_000)
SERVERS = (1, 5, 20)
RULES = (0, 10, 100, 1_000)
SESSIONS = (1, 100, 1_000)
SIZES = {"100 B": 100, "1 KB": 1_000, "10 KB": 10_000, "100 KB": 100_000, "1 MB": 1_000_000}


@contextmanager
def setting(
    track: Track, servers: int = 1, tools: int = 10, rules: int = 100
) -> Iterator[tuple[Backend, list[Target]]]:
    """callgate in front of fresh servers, and the first of those without it."""
    backend = Backend(servers + 1, tools)
    names = ["bench"] if servers == 1 else [f"bench{number}" for number in range(servers)]
    behind = Servers(http=dict(zip(names, backend.ports, strict=False)), tools=tools)
    try:
        target = track.start(CALLGATE, behind, Shape(rules=rules))
        assert target is not None
        try:
            yield backend, [alone(backend), target]
        finally:
            target.stop()
    finally:
        backend.stop()


def alone(backend: Backend) -> Target:
    """The last server, which belongs to nobody else, without a gateway."""
    return direct(Servers(http={"bench": backend.ports[-1]}))


def both(track: Track, table: str, point: str, backend: Backend, found: list[Target]) -> None:
    """The two loads that every growth table shows: one call at a time, and as many as possible."""
    track.compare((table, point, "c=1"), found, partial(loads.calls, connections=1), backend)
    track.compare((table, point, "c=32"), found, partial(loads.calls, connections=32), backend)


def tools(track: Track) -> None:
    for number in TOOLS:
        with setting(track, tools=number) as (backend, found):
            both(track, "grow tools", f"{number:,}", backend, found)
            where = ("grow tools", f"{number:,}", "list")
            track.compare(where, found[1:], partial(loads.lists, expected=number), None)


def servers(track: Track) -> None:
    for number in SERVERS:
        with setting(track, servers=number) as (backend, found):
            both(track, "grow servers", str(number), backend, found)
            where = ("grow servers", str(number), "list")
            track.compare(where, found[1:], partial(loads.lists, expected=number * 10), None)


def rules(track: Track) -> None:
    for number in RULES:
        with setting(track, rules=number) as (backend, found):
            both(track, "grow rules", f"{number:,}", backend, found)
            where = ("grow rules", f"{number:,}", "list")
            track.compare(where, found[1:], partial(loads.lists, expected=10), None)


def sessions(track: Track) -> None:
    for number in SESSIONS:
        with setting(track) as (_backend, found):
            target = found[1]
            opened = open_sessions(loads.handshakes(target, 1), number)
            for connections in (1, 32):
                where = ("grow sessions", f"{number:,}", f"c={connections}")
                job = partial(loads.session_calls, sessions=opened, connections=connections)
                track.compare(where, [target], job, None)


def sizes(track: Track) -> None:
    with setting(track) as (backend, found):
        for name, size in SIZES.items():
            for connections in (1, 8):
                where = ("grow size", name, f"c={connections}")
                track.compare(where, found, partial(loads.calls, connections=connections, size=size), backend)


def growth(track: Track) -> None:
    track.rounds = track.pace.growth_rounds
    try:
        for part in (tools, servers, rules, sessions, sizes):
            part(track)
    finally:
        track.rounds = track.pace.rounds

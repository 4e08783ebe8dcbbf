"""The things that are compared, each started afresh: no gateway at all, callgate, and the peers of ``bench.peers``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import msgspec

from bench.driver import run
from bench.governance import KEY, Shape, http_server, settings, stdio_server, write
from bench.plan import Job, Step
from bench.processes import NotStarted, Program, free_port
from bench.wire import Door, Expected, call_params, request

READY_IN = 30.0
DIRECT, CALLGATE, BARE, STRICT = "direct", "callgate", "callgate bare", "callgate strict"
FASTMCP, FORGE, FORGE_DEFAULT = "FastMCP proxy", "ContextForge stateful", "ContextForge default"

ABOUT = {
    DIRECT: "no gateway: the driver talks to the server",
    CALLGATE: "static key, 100-rule policy, audit `normal`, metrics on",
    BARE: "anonymous, no policy; audit `normal` and metrics stay on",
    STRICT: "as callgate, but an answer leaves only after its audit record is on disk",
    FASTMCP: "`fastmcp` proxy, no authentication, no policy, no audit",
    FORGE: "IBM ContextForge, sessions kept (`USE_STATEFUL_SESSIONS=true`), its own token check, no plugins, SQLite",
    FORGE_DEFAULT: "IBM ContextForge with its default of no sessions, otherwise the same",
}


class Servers(msgspec.Struct, frozen=True):
    """What is behind a gateway: HTTP servers by name and port, or one stdio command; ``tools`` of each."""

    http: dict[str, int] = {}
    stdio: dict[str, list[str]] = {}
    tools: int = 10

    def entries(self) -> dict[str, dict[str, Any]]:
        """The ``servers`` part of a configuration, in the keys that every client uses."""
        return {name: http_server(port) for name, port in self.http.items()} | {
            name: stdio_server(command) for name, command in self.stdio.items()
        }

    @property
    def names(self) -> list[str]:
        return [*self.http, *self.stdio]


class Target:
    """One thing under load: where it listens, what the echo tool of a server is called there, what it runs as.

    ``ready`` and ``answered`` are seconds from the start of the process to ready and to the first right answer.
    """

    def __init__(self, name: str, door: Door, tool: Callable[[str], str], servers: Servers) -> None:
        self.name = name
        self.door = door
        self.tool = tool
        self.servers = servers
        self.program: Program | None = None
        self.ready = 0.0
        self.answered = 0.0
        self.clean_up: Callable[[], None] = lambda: None

    @property
    def echo(self) -> str:
        return self.tool(self.servers.names[0])

    def started(self, program: Program) -> Target:
        """Note the program as running and wait for its first right answer."""
        self.program = program
        self.ready = monotonic() - program.started
        self.first_answer(program)
        self.answered = monotonic() - program.started
        return self

    def first_answer(self, program: Program) -> None:
        step = Step(request(self.door, "tools/call", call_params(self.echo, "first"), 1), Expected(1, "first"))
        job = Job([[step]], port=self.door.port, count=1, warm_up=0, seconds=READY_IN, timeout=READY_IN)
        deadline = monotonic() + READY_IN
        while not (report := run(job)).answered:
            if monotonic() > deadline:
                raise NotStarted(program.story(f"gives no right answer: {report.reasons[:1]}"))
            sleep(0.01)

    def pids(self) -> list[int]:
        return self.program.pids() if self.program else []

    def resident(self) -> int:
        return self.program.resident() if self.program else 0

    def stop(self) -> None:
        if self.program:
            self.program.stop()
        self.clean_up()


def direct(servers: Servers) -> Target:
    return Target(DIRECT, Door(next(iter(servers.http.values()))), lambda _server: "echo", servers)


def callgate(name: str, servers: Servers, folder: Path, shape: Shape | None = None) -> Target:
    """Start callgate with a configuration of its own in ``folder`` and wait for its ready line."""
    shape = shape or {BARE: Shape(rules=0), STRICT: Shape(durability="strict")}.get(name, Shape())
    file = write(folder / "callgate.yaml", settings(servers.entries(), shape, folder / "data"))
    (folder / "data").mkdir(exist_ok=True)
    ports = ["--port", str(free_port()), "--admin-port", str(free_port())]
    program = Program([sys.executable, "-m", "callgate", "up", "-c", str(file), *ports])
    try:
        port = int(program.wait_for(r"https?://[^/\s]+:(\d+)/mcp\b", READY_IN)[1])
        door = Door(port, token=KEY if shape.rules else "")
        return Target(name, door, lambda server: f"{server}__echo", servers).started(program)
    except BaseException:
        program.stop()
        raise

"""The loads that targets are put under, as jobs for the driver."""

from __future__ import annotations

import socket

import msgspec

from bench.plan import Job, Step
from bench.targets import Target
from bench.wire import CLIENT, LEGACY, SESSION, Door, Expected, Framing, call_params, events, request

OPEN_CONNECTIONS = 64
PAGES = 200
HELLO = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": CLIENT}


def call(door: Door, tool: str, number: int, size: int = 40) -> list[Step]:
    """One call; the text differs from connection to connection, so that an answer to somebody else is noticed."""
    text = f"message {number} ".ljust(size, "x")
    return [Step(request(door, "tools/call", call_params(tool, text), number), Expected(number, text))]


def shared_out(least: int, connections: int) -> int:
    """How many variants there must be so that no two connections ever send the same one (and its id) at once.

    >>> shared_out(1, 8), shared_out(100, 32)
    (8, 128)
    """
    return -(-least // connections) * connections


def calls(target: Target, connections: int, size: int = 40) -> Job:
    """Closed loop of calls, spread over all servers of the target."""
    tools = [target.tool(server) for server in target.servers.names]
    count = shared_out(len(tools), connections)
    variants = [call(target.door, tools[number % len(tools)], number + 1, size) for number in range(count)]
    return Job(variants, port=target.door.port, connections=connections)


def open_calls(target: Target, rate: float) -> Job:
    """Calls at a fixed rate whatever happens."""
    return msgspec.structs.replace(calls(target, OPEN_CONNECTIONS), rate=rate)


def lists(target: Target, expected: int) -> Job:
    """``tools/list`` of ``expected`` tools, all pages, one after the other; a target chooses the size of its pages."""
    steps: list[Step] = []
    cursor: str | None = ""
    listed = 0
    while cursor is not None and len(steps) < PAGES:
        data = request(target.door, "tools/list", {"cursor": cursor} if cursor else {}, 1)
        tools, cursor = read_page(ask(target.door, data))
        steps.append(Step(data, Expected(1, tools=tools)))
        listed += tools
    if listed < expected:  # the driver will say so
        steps[0] = Step(steps[0].data, Expected(1, tools=expected))
    return Job([steps], port=target.door.port)


def read_page(body: bytes) -> tuple[int, str | None]:
    """The number of tools on a page and the cursor of the next one."""
    result = msgspec.json.decode(events(body)).get("result", {})
    return len(result.get("tools", ())), result.get("nextCursor")


def ask(door: Door, data: bytes) -> bytes:
    """Send one prepared request; the body of the answer."""
    with socket.create_connection((door.host, door.port), timeout=30) as sock:
        sock.sendall(data)
        framing = Framing()
        while True:
            arrived = sock.recv(1 << 16)
            if not arrived:
                return b"{}"
            if framing.feed(arrived):
                return framing.body


def legacy(target: Target, session: str = "") -> Door:
    return msgspec.structs.replace(target.door, era="legacy", session=session)


def handshakes(target: Target, connections: int) -> Job:
    """Legacy sessions being set up: ``initialize`` and ``notifications/initialized``, timed together."""
    first, then = legacy(target), legacy(target, SESSION.decode())
    variants = [
        [
            Step(request(first, "initialize", HELLO, number), Expected(number)),
            Step(request(then, "notifications/initialized", {}, None), Expected()),
        ]
        for number in range(1, connections + 1)
    ]
    return Job(variants, port=target.door.port, connections=connections)


def session_calls(target: Target, sessions: list[str], connections: int) -> Job:
    """Legacy calls that go through all of ``sessions`` in turn."""
    count = shared_out(len(sessions), connections)
    variants = [
        call(legacy(target, sessions[number % len(sessions)]), target.echo, number + 1) for number in range(count)
    ]
    return Job(variants, port=target.door.port, connections=connections)

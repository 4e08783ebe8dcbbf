"""Hold 1,000 legacy sessions and 200 open streams for some minutes: ``python -m bench.soak --minutes 3``.

Every session has a session of its own at the server behind (``isolation: auto``). Calls go on all the time. What is
measured is what leaks: memory, file descriptors, tasks and processes of the gateway, before, during and after.
"""

from __future__ import annotations

import argparse
import http.client
import random
import re
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, sleep

import msgspec
import psutil
import yaml

from bench import loads, results
from bench.http_load import open_sessions
from bench.plan import Job
from bench.processes import Program, free_port
from bench.results import Sample, Soak
from bench.targets import Servers, Target
from bench.wire import Door, call_params, request

ROOM = {"max_sessions": 5000, "max_streams": 1000}
READY_IN = 30.0
CALLS_AT_ONCE = 20
SETTLE = 4.0


class Held:
    """callgate in front of one server with sessions, and everything that is held open through it."""

    def __init__(self, folder: Path) -> None:
        self.server = Program([sys.executable, "-m", "bench.upstream_sessions"])
        behind = self.server.wait_for(r"ready (\d+)", READY_IN)[1]
        self.admin = free_port()
        settings = {
            "data_dir": str(folder), "watch": False, "limits": ROOM, "log_level": "warning",
            "servers": {"bench": {"url": f"http://127.0.0.1:{behind}/mcp", "max_links_per_principal": 5000}},
        }  # fmt: skip
        file = folder / "callgate.yaml"
        file.write_text(yaml.safe_dump(settings), "utf-8")
        ports = ["--port", str(free_port()), "--admin-port", str(self.admin)]
        self.gateway = Program([sys.executable, "-m", "callgate", "up", "-c", str(file), *ports])
        self.port = int(self.gateway.wait_for(r"https?://[^/\s]+:(\d+)/mcp\b", READY_IN)[1])
        self.token = (folder / "operator.token").read_text("utf-8").strip()
        self.door = Door(self.port, era="legacy")
        self.process = psutil.Process(self.gateway.pid)
        self.sessions: list[str] = []
        self.streams: list[socket.socket] = []
        self.calls = self.wrong = 0
        self.begun = monotonic()

    def sample(self) -> Sample:
        with self.process.oneshot():
            memory, files = self.process.memory_info().rss, self.process.num_fds()
        children = len(self.process.children(recursive=True))
        return Sample(round(monotonic() - self.begun, 1), memory / 1e6, files, self._tasks(), children)

    def _tasks(self) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=10)
        try:
            connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {self.token}"})
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        found = re.search(r"^callgate_tasks (\d+)", text, re.MULTILINE)
        return int(found[1]) if found else -1

    def open(self, sessions: int, streams: int) -> None:
        target = Target("callgate", self.door, lambda _server: "bench__echo", Servers())
        job: Job = loads.handshakes(target, 1)
        self.sessions = open_sessions(job, sessions)
        for session in self.sessions:
            self.call(session)
        for session in self.sessions[:streams]:
            sock = socket.create_connection(("127.0.0.1", self.port), timeout=10)
            head = f"GET /mcp HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\naccept: text/event-stream\r\n"
            sock.sendall(f"{head}mcp-session-id: {session}\r\n\r\n".encode())
            assert sock.recv(15).startswith(b"HTTP/1.1 200"), "a stream was refused"
            self.streams.append(sock)

    def call(self, session: str) -> None:
        """One call in a session; its answer must hold its own text."""
        self.calls += 1
        text = f"soak {self.calls}"
        door = msgspec.structs.replace(self.door, session=session)
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as sock:
            sock.sendall(request(door, "tools/call", call_params("bench__echo", text), self.calls))
            self.wrong += text.encode() not in _whole(sock)

    def close(self) -> None:
        """End every stream and every session, as clients do."""
        for sock in self.streams:
            sock.close()
        for session in self.sessions:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            connection.request("DELETE", "/mcp", headers={"Mcp-Session-Id": session})
            connection.getresponse().read()
            connection.close()
        sleep(SETTLE)

    def stop(self) -> None:
        self.gateway.stop()
        self.server.stop()


def _whole(sock: socket.socket) -> bytes:
    data = b""
    while True:
        chunk = sock.recv(65536)
        data += chunk
        head, found, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        if not chunk or (found and length and len(body) >= int(length[1])) or data.endswith(b"0\r\n\r\n"):
            return data


def soak(minutes: float, sessions: int, streams: int) -> Soak:
    """Open, hold, close; one sample before, one about every ten seconds, one after."""
    with tempfile.TemporaryDirectory(prefix="callgate-soak-") as folder:
        held = Held(Path(folder))
        try:
            held.call(open_sessions(loads.handshakes(_target(held), 1), 1)[0])
            before = held.sample()
            held.open(sessions, streams)
            samples = [held.sample()]
            until = monotonic() + minutes * 60
            while monotonic() < until:
                next_sample = monotonic() + min(10.0, minutes * 60 / 6)
                while monotonic() < next_sample:
                    for session in random.choices(held.sessions, k=CALLS_AT_ONCE):
                        held.call(session)
                    sleep(0.2)
                samples.append(held.sample())
                print(samples[-1], file=sys.stderr, flush=True)
            held.close()
            return Soak(sessions, streams, held.calls, held.wrong, before, samples, held.sample())
        finally:
            held.stop()


def _target(held: Held) -> Target:
    return Target("callgate", held.door, lambda _server: "bench__echo", Servers())


def main(given: Sequence[str] | None = None) -> int:
    from bench.__main__ import DOCS, write_docs

    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--write-docs", action="store_true", help="put the figures on docs/performance.md")
    chosen = parser.parse_args(given)
    found = soak(chosen.minutes, chosen.sessions, chosen.streams)
    print(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
    if chosen.write_docs:
        page = results.read(DOCS / "performance.json")
        page.soak = found
        write_docs(page)
    return int(found.wrong > 0)


if __name__ == "__main__":
    sys.exit(main())

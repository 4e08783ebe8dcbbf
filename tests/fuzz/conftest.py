"""The gateway under attack: a process of its own with small limits, one for all tests of a worker."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.messages import KEY, echo, send
from tests.fuzz.raw import Address, Connection, Reply, ask
from tests.processes import ROOT, Running, free_port, python, start_callgate

CONFIG = """\
listen: 127.0.0.1:{port}
admin_listen: 127.0.0.1:{admin}
data_dir: {data}
watch: false
log_level: warning
startup_wait: 20
servers:
  pipe:
    command: {command}
    args: {args}
    cwd: {root}
identity:
  anonymous: true
  keys:
    - {{subject: "agent:known", sha256: {key}}}
policy:
  rules:
    - id: everybody
      allow: ["*/*"]
      to: {{subjects: [anonymous, "agent:known"]}}
    - id: not-for-strangers
      deny: ["pipe/test_simple_text"]
      to: {{subjects: [anonymous]}}
limits:
  max_body: 65536
  max_header_bytes: 8192
  max_headers: 40
  max_depth: 32
  header_timeout: 0.4
  body_timeout: 0.4
  idle_timeout: 300
"""


class Gateway:
    """The process, its address, and what has to stay true of it whatever it is sent."""

    def __init__(self, running: Running, port: int) -> None:
        self.running = running
        self.port = port
        self._neighbour: Connection | None = None
        self._read = 0

    @property
    def address(self) -> Address:
        return "127.0.0.1", self.port

    def ask(self, data: bytes) -> Reply:
        """Send one whole request; it has to be answered, and never with 500."""
        reply = ask(self.address, data)
        assert reply.status != 500, reply
        return reply

    def healthy(self) -> None:
        """A well-behaved client on a connection of its own still gets the answer that belongs to its question."""
        if self._neighbour is None:
            self._neighbour = Connection(self.address)
        text, id = uuid.uuid4().hex, uuid.uuid4().hex
        self._neighbour.send(send(self.port, echo(text, id)))
        reply = self._neighbour.reply()
        assert reply is not None, "the healthy client was cut off"
        assert reply.status == 200, reply
        assert reply.json["id"] == id
        assert reply.json["result"]["structuredContent"] == {"text": text}

    def unharmed(self) -> None:
        """The process lives, serves others, and has written no traceback since this was asked last."""
        assert self.running.alive, self.running.written()[-4000:]
        self.healthy()
        with self.running.err.open("rb") as log:
            log.seek(self._read)
            new = log.read().decode("utf-8", "replace")
            self._read = log.tell()
        assert "Traceback" not in new, new[-4000:]

    def close(self) -> None:
        if self._neighbour is not None:
            self._neighbour.__exit__()
        self.running.stop()


@pytest.fixture(scope="session")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    port = free_port()
    running, _ = start_callgate(configuration(folder, port), folder)
    gateway = Gateway(running, port)
    yield gateway
    gateway.close()


def configuration(folder: Path, port: int) -> Path:
    data = folder / "data"
    data.mkdir()
    command, *args = python("-m", "tests.conformance.fixture", "--stdio")
    file = folder / "callgate.yaml"
    values = {
        "data": json.dumps(str(data)),
        "command": json.dumps(command),
        "args": json.dumps(args),
        "root": json.dumps(str(ROOT)),
    }
    key = hashlib.sha256(KEY.encode()).hexdigest()
    file.write_text(CONFIG.format(port=port, admin=free_port(), key=key, **values), "utf-8")
    return file


@pytest.fixture
def gateway(process: Gateway) -> Iterator[Gateway]:
    """The gateway under test; after every test it has to be unharmed."""
    yield process
    process.unharmed()

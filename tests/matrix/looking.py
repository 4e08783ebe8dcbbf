"""Start servers and a gateway in front of them, let clients look at them, keep the reports."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import Any

from tests.clients.venvs import alone, interpreter
from tests.matrix.cells import SERVERS, Pair, features
from tests.matrix.packages import MODULES, node
from tests.processes import ROOT, Running, environment, free_port, python, ready, start_callgate

VENVS = {"py1": "mcp1", "fastmcp4": "fastmcp"}
"""The environments of scripts that cannot run in ours; ``tests/clients/venvs.py`` says what they hold."""
LOOK_SECONDS = 120.0

HEAD = """\
listen: 127.0.0.1:{port}
admin_listen: 127.0.0.1:{admin}
data_dir: {data}
watch: false
log_level: warning
startup_wait: 20
servers:
"""

Report = dict[str, Any]


def script(side: str, name: str) -> list[str]:
    """The command that runs a script of ``servers`` or ``clients``."""
    if name.startswith("ts"):
        return [str(node()), str(Path(__file__).parent / side / f"{name}.mjs"), "--modules", str(MODULES)]
    program = str(interpreter(VENVS[name])) if name in VENVS else sys.executable
    return [program, "-m", f"tests.matrix.{side}.{name}"]


def configure(folder: Path, servers: dict[str, str]) -> Path:
    """Write a configuration with its own data folder and ports; ``servers`` is YAML by name."""
    data = folder / "data"
    data.mkdir(parents=True)
    text = HEAD.format(port=free_port(), admin=free_port(), data=json.dumps(str(data)))
    text += "".join(f"  {name}: {rest}\n" for name, rest in servers.items())
    file = folder / "callgate.yaml"
    file.write_text(text, "utf-8")
    return file


class Stand:
    """What runs for the matrix. Servers and gateway start when they are first needed and end with the stand."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self._ends = ExitStack()
        self._starting = Lock()
        self._turns = {server.name: Lock() for server in SERVERS}
        self._urls: dict[str, str] = {}
        self._gateway = ""

    def close(self) -> None:
        self._ends.close()

    def server(self, name: str) -> str:
        """The URL of this server over HTTP."""
        with self._starting:
            return self._server(name)

    def _server(self, name: str) -> str:
        if name not in self._urls:
            command = [*script("servers", name), "--notes", str(self.folder / f"{name}.notes"), "--port", "0"]
            running = self._ends.enter_context(Running(name, command, self.folder))
            self._urls[name] = ready(running, r"http://\S+/mcp", 30.0)
        return self._urls[name]

    def gateway(self) -> str:
        """The endpoint of everything of a gateway with all servers behind it."""
        with self._starting:
            if not self._gateway:
                urls = {server.name: json.dumps({"url": self._server(server.name)}) for server in SERVERS}
                folder = self.folder / "gateway"
                running, root = start_callgate(configure(folder, urls), folder)
                self._ends.enter_context(running)
                self._gateway = f"{root}/mcp"
            return self._gateway

    def where(self, pair: Pair) -> list[str]:
        """What the client is told: ``--url URL`` or ``-- COMMAND``."""
        name = pair.server.name
        own = [*script("servers", name), "--notes", str(self.folder / f"{pair}.notes")]
        match pair.door:
            case "direct-http":
                return ["--url", self.server(name)]
            case "direct-stdio":
                return ["--", *own]
            case "gate-http":
                return ["--prefix", f"{name}__", "--url", self.gateway()]
            case _:
                program = {"command": own[0], "args": own[1:], "cwd": str(ROOT)}
                file = configure(self.folder / str(pair), {name: json.dumps(program)})
                return ["--prefix", f"{name}__", "--", *python("-m", "callgate", "stdio", "-c", str(file))]

    def look(self, pair: Pair) -> Report:
        """What the client of this pair saw; looked at once, whoever asks."""
        kept = self.folder.parent / "reports" / f"{pair}.json"
        with alone(kept.with_suffix(".lock")):
            if not kept.exists():
                # A server that two clients share tells each of what it was told to do for the other.
                with self._turns[pair.server.name]:
                    report = self.run(pair)
                kept.write_text(json.dumps(report, indent=2, ensure_ascii=False), "utf-8")
            found: Report = json.loads(kept.read_text("utf-8"))
            return found

    def run(self, pair: Pair) -> Report:
        wanted = ["--mode", pair.client.mode, "--features", ",".join(features(pair))]
        command = [*script("clients", pair.client.script), *wanted, *self.where(pair)]
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=LOOK_SECONDS
            )
        except subprocess.TimeoutExpired as late:
            return {"error": f"the client did not end in {LOOK_SECONDS:g} s", "trace": str(late.stderr)[-3000:]}
        try:
            report: Report = json.loads(done.stdout)
        except ValueError:
            return {"error": "the client gave no report", "trace": (done.stdout + done.stderr)[-3000:]}
        return {**report, "stderr": done.stderr[-3000:]}

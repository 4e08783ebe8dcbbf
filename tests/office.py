"""Real gateways for tests of the commands and the admin API: `callgate up` in front of a small real server.

The *office* knows three people by their keys, has a policy, and nobody is anonymous. The *laptop* has neither.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.fuzz.messages import dump, modern, routing
from tests.processes import ROOT, Running, environment, python

ANN, BOB, EVE = "cg_ann", "cg_bob", "cg_eve"
OFFICE = """
data_dir: state
servers:
  notes: {{command: {python}, args: [{notebook}], call_timeout: 500ms, connect_timeout: 20s}}
  cellar: {{command: {python}, args: [{notebook}]}}
  gone: {{command: no-such-program}}
virtual_servers:
  reader: {{tools: [notes/read]}}
identity:
  keys:
    - {{subject: ann, roles: [dev], sha256: {ann}}}
    - {{subject: bob, sha256: {bob}}}
    - {{subject: eve, roles: [auditor], sha256: {eve}}}
policy: policy.yaml
audit: {{durability: strict}}
startup_wait: 20s
watch: false
"""
POLICY = """\
version: 1
rules:
  - id: developers
    allow: ["notes/*"]
    to: {roles: [dev]}
  - id: everybody-reads
    allow: ["notes/read"]
    when: tool.readOnly
  - id: no-burning
    deny: ["*/burn"]
    reason: books are not burnt
  - id: long-loans
    ask: ["notes/lend"]
    when: args.days > 3
tests:
  - {as: {subject: ann, roles: [dev]}, call: notes/erase, expect: allow, by: developers}
  - {as: {subject: bob}, call: notes/burn, expect: deny, by: no-burning}
"""
LAPTOP = """
data_dir: state
servers:
  notes: {{command: {python}, args: [{notebook}]}}
startup_wait: 20s
watch: false
"""


@dataclass
class Answer:
    """What the admin API said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Done:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def rows(self) -> list[list[str]]:
        """The lines of tab-separated values."""
        return [line.split("\t") for line in self.out.splitlines()]


@dataclass
class Office:
    """A running gateway, the folder of its configuration, and the process."""

    url: str
    folder: Path
    running: Running

    @property
    def token(self) -> str:
        return (self.folder / "state" / "operator.token").read_text().strip()

    @property
    def admin(self) -> str:
        return str(json.loads(self._get(self.url, "/healthz", {}).body)["admin"])

    def cli(self, *arguments: str, token: str = "", stdin: str = "", **env: str) -> Done:
        """Run a command against this gateway."""
        known = {"CALLGATE_URL": self.url, **({"CALLGATE_TOKEN": token} if token else {})}
        return run(*arguments, folder=self.folder, stdin=stdin, env={**known, **env})

    def call(self, *arguments: str, token: str = ANN) -> str:
        """Make a call and return its id."""
        done = self.cli("call", *arguments, token=token)
        found = re.search(r"call (\w{13})", done.err)
        assert found is not None, done
        return found[1]

    def request(self, method: str, params: Mapping[str, Any], token: str = ANN) -> str:
        """Send a request of 2026-07-28 to `/mcp` and return its id."""
        message = modern(method, dict(params))
        named = params.get("name", params.get("uri"))
        headers = {
            **dict(routing(message)),
            **({"Mcp-Name": named} if named else {}),
            "Authorization": f"Bearer {token}",
        }
        headers |= {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        return _request("POST", self.url, "/mcp", headers, dump(message)).headers["callgate-call-id"]

    def get(self, path: str, token: str = "", **headers: str) -> Answer:
        """GET from the admin listener; ``headers`` with underscores for hyphens."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._get(self.admin, path, ({"authorization": f"Bearer {token}"} if token else {}) | sent)

    def post(self, path: str, body: Any, token: str = "", **headers: str) -> Answer:
        sent = {"content-type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
        sent |= {"authorization": f"Bearer {token}"} if token else {}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return _request("POST", self.admin, path, sent, data)

    def _get(self, base: str, path: str, headers: Mapping[str, str]) -> Answer:
        return _request("GET", base, path, headers)


def _request(method: str, base: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
    parts = urlsplit(base)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def run(*arguments: str, folder: Path, stdin: str = "", env: Mapping[str, str] | None = None) -> Done:
    """Run `callgate` as a user would, in ``folder``."""
    ran = subprocess.run(
        [sys.executable, "-m", "callgate", *arguments],
        cwd=folder,
        env=environment(
            {"HOME": str(folder), "XDG_CONFIG_HOME": "", "XDG_DATA_HOME": "", "COLUMNS": "120", **(env or {})}
        ),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return Done(ran.returncode, ran.stdout, ran.stderr)


def start(folder: Path, text: str, policy: str = "", *more: str) -> Office:
    """Start a gateway with this configuration on free ports and wait until it is ready."""
    (folder / "state").mkdir(parents=True, mode=0o700)
    if policy:
        (folder / "policy.yaml").write_text(policy, encoding="utf-8")
    known = {name: hashlib.sha256(key.encode()).hexdigest() for name, key in (("ann", ANN), ("bob", BOB), ("eve", EVE))}
    notebook = ROOT / "tests" / "cli" / "notebook.py"
    config = folder / "callgate.yaml"
    config.write_text(text.format(python=sys.executable, notebook=notebook, **known), encoding="utf-8")
    ports = ("--port", "0", "--admin-port", "0")
    running = Running("callgate", python("-m", "callgate", "up", "-c", str(config), *ports, *more), folder)
    try:
        url = running.wait_for(r"callgate is ready: (http://\S+)/mcp", 30)[1]
    except BaseException:
        running.stop()
        raise
    return Office(url, folder, running)

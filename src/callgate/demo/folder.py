"""The demo's files: a real ``callgate.yaml`` and policy in a temporary folder, removed with everything at the end."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import callgate
from callgate.config import Loaded, load
from callgate.identity import hash_key

CONFIG = """\
# DEMO, made by `callgate up --demo` and removed when it ends. Read it, change it: it is taken over while it runs.
data_dir: state

servers:
  shop: {{url: {shop}, headers: {{Authorization: "file:servers.key"}}}}
  mailer: {{url: {mailer}, headers: {{Authorization: "file:servers.key"}}}}
  notes:
    command: {python}
    args: [-m, callgate.demo.servers.notes]
    protocol: legacy{env}

identity:
  keys:                       # only hashes; the keys themselves are with the agents
    - {{subject: "agent:support", roles: [support], sha256: {support}}}
    - {{subject: "agent:analyst", roles: [analyst], sha256: {analyst}}}
    - {{subject: "user:you", roles: [support, auditor], sha256: {you}}}     # an auditor reads all records

policy: policy.yaml
"""
#: Who takes part with a key of their own.
CAST = ("support", "analyst", "you")
USUAL = {"port": 8080, "admin_port": 8081}


class Folder:
    """The folder with its secrets: ``keys`` by the name of their holder, ``credential`` for the HTTP servers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys = {name: f"cg_demo_{secrets.token_urlsafe(12)}" for name in CAST}
        self.credential = f"Bearer {secrets.token_urlsafe(16)}"

    @property
    def policy(self) -> Path:
        return self.path / "policy.yaml"

    def write(self, shop: str, mailer: str) -> None:
        """Write the files; ``shop`` and ``mailer`` are URLs."""
        (self.path / "state").mkdir()
        (self.path / "servers.key").write_text(self.credential, "utf-8")
        self.policy.write_text((files("callgate.demo") / "policy.yaml").read_text("utf-8"), "utf-8")
        hashes = {name: f'"{hash_key(key)}"' for name, key in self.keys.items()}
        values = {"shop": shop, "mailer": mailer, "python": sys.executable}
        env = f"\n    env: {{PYTHONPATH: {json.dumps(found)}}}" if (found := _search_path()) else ""
        quoted = {name: json.dumps(value) for name, value in values.items()}
        (self.path / "callgate.yaml").write_text(CONFIG.format(**quoted, **hashes, env=env), "utf-8")

    def load(self, flags: Mapping[str, Any]) -> Loaded:
        """Load them and nothing else: neither the user's own files nor ``CALLGATE_*`` have a part in the demo."""
        nowhere = self.path / "nothing"
        env = {"XDG_CONFIG_HOME": str(nowhere), "XDG_DATA_HOME": str(nowhere)}
        return load(self.path / "callgate.yaml", flags=flags, env=env, cwd=self.path, system=nowhere / "callgate.yaml")


def _search_path() -> str:
    """What a child needs to find this very package. Servers get a clean environment, another folder, and no
    ``PYTHONPATH``: an installed package is found all the same, a checkout is not.
    """
    own = str(Path(callgate.__file__).parents[1])
    named = os.environ.get("PYTHONPATH")
    if not named and own in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        return ""
    return os.pathsep.join([own, *(str(Path(each).absolute()) for each in (named or "").split(os.pathsep) if each)])


@contextmanager
def temporary() -> Iterator[Folder]:
    """A folder of this user's only; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="callgate-DEMO-", ignore_cleanup_errors=True) as path:
        yield Folder(Path(path).resolve())


def ports(flags: Mapping[str, Any]) -> dict[str, Any]:
    """``flags`` with a free port in place of each usual one that another program has; a port asked for stays."""
    host = flags.get("host") or "127.0.0.1"
    chosen = dict(flags)
    for name, port in USUAL.items():
        if flags.get(name) is None:
            chosen[name] = port if _free(host if name == "port" else "127.0.0.1", port) else 0
    return chosen


def _free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        if os.name == "posix":  # elsewhere it would allow two listeners on one port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError:
            return False
    return True

"""The configuration that callgate is measured with: a static key, a policy of any length, audit, metrics."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import msgspec

from bench.processes import environment

KEY = "bench-key-for-loopback-only"
SUBJECT = "agent:bench"


class Shape(msgspec.Struct, frozen=True):
    """How much callgate has to do: ``rules`` 0 means that neither a key nor a policy is configured."""

    rules: int = 100
    durability: Literal["normal", "strict"] = "normal"


def rule(number: int) -> dict[str, Any]:
    """One rule that does not decide the benchmark's calls: another server, another tool, another caller."""
    match number % 4:
        case 0:
            matter: dict[str, Any] = {"allow": [f"area{number}/read_*"], "to": {"roles": [f"role-{number}"]}}
        case 1:
            matter = {"deny": [f"*/drop_{number}_*"]}
        case 2:
            matter = {"allow": [f"area{number}/*"], "to": {"subjects": [f"team-{number}:*"]}}
        case _:
            matter = {"deny": ["bench*/*"], "to": {"roles": [f"suspended-{number}"]}}
    return {"id": f"rule-{number}", **matter}


def policy(rules: int) -> dict[str, Any]:
    """``rules`` rules; the last one allows the benchmark's calls, so that all of them have to be looked at."""
    last = {"id": "bench", "allow": ["bench*/*"], "to": {"roles": ["bench"]}}
    return {"version": 1, "default": "deny", "rules": [*(rule(number) for number in range(rules - 1)), last]}


def settings(servers: dict[str, dict[str, Any]], shape: Shape, data: Path) -> dict[str, Any]:
    """``callgate.yaml`` as a mapping."""
    found: dict[str, Any] = {
        "data_dir": str(data),
        "servers": servers,
        "audit": {"durability": shape.durability},
        "limits": {"max_sessions": 4000},
        "log_level": "warning",
    }
    if shape.rules:
        digest = hashlib.sha256(KEY.encode()).hexdigest()
        found["identity"] = {"keys": [{"subject": SUBJECT, "roles": ["bench"], "sha256": digest}]}
        found["policy"] = policy(shape.rules)
    return found


def http_server(port: int) -> dict[str, Any]:
    return {"url": f"http://127.0.0.1:{port}/mcp"}


def stdio_server(command: list[str]) -> dict[str, Any]:
    path = environment()["PYTHONPATH"]
    return {"command": command[0], "args": command[1:], "env": {"PYTHONPATH": path}}


def write(path: Path, content: dict[str, Any]) -> Path:
    """JSON is YAML: the file needs no YAML writer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2))
    return path

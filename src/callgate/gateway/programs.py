"""What of a server's settings decides which program answers under its name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from callgate.config import Server


def config_digest(server: Server | None) -> str:
    """Names a server's settings: what it listed under other settings says nothing about it now."""
    if server is None:
        return ""
    return hashlib.sha256(msgspec.json.encode(program(server), order="sorted")).hexdigest()[:16]


def program(server: Server) -> Server:
    """A server's settings without what only policy reads: they may change while it runs."""
    return msgspec.structs.replace(server, annotations="auto", classify={})


def programs(servers: Mapping[str, Server]) -> dict[str, Server]:
    return {name: program(server) for name, server in servers.items()}

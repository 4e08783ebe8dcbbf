"""The names that aggregates expose: ``{server}__{tool}``, legal for every model vendor, the same at every start.

The name depends on the server's and the tool's name alone, never on which other servers exist or which came
first. A name is *plain* when it can be read back without doubt: both parts use only ``[A-Za-z0-9_-]``, the
server's part contains no ``__`` and does not end in ``_``, and the whole has at most 64 characters. Every other
name ends in a hash of both parts.
"""

from __future__ import annotations

import base64
import hashlib
import re

LIMIT = 64
SEPARATOR = "__"
_LEGAL = re.compile(r"[A-Za-z0-9_-]+")
_ILLEGAL_RUN = re.compile(r"[^A-Za-z0-9_-]+")


def exposed_name(server: str, tool: str) -> str:
    """The exposed name of a tool.

    >>> exposed_name("git", "status")
    'git__status'
    >>> exposed_name("git", "push/force")
    'git__push_force_ym6jhddn'
    """
    name = f"{server}{SEPARATOR}{tool}"
    if len(name) <= LIMIT and _plain(server) and _LEGAL.fullmatch(tool):
        return name
    return hashed_name(server, tool)


def hashed_name(server: str, tool: str, digits: int = 8) -> str:
    """The exposed name with ``digits`` characters of hash at its end."""
    readable = _ILLEGAL_RUN.sub("_", f"{server}{SEPARATOR}{tool}")
    digest = hashlib.sha256(f"{server}\0{tool}".encode()).digest()
    suffix = base64.b32encode(digest).decode().lower()[:digits]
    return f"{readable[: LIMIT - digits - 1]}_{suffix}"


def _plain(server: str) -> bool:
    return bool(_LEGAL.fullmatch(server)) and SEPARATOR not in server and not server.endswith("_")

"""The resources that tokens are for: the MCP endpoints, each with its own URI (RFC 8707, RFC 9728)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
_PATH = re.compile(rf"/(mcp(/{_NAME})?|servers/{_NAME}/mcp)?")
#: The gateway as a whole, and its endpoint of everything.
WHOLE, EVERYTHING = "/", "/mcp"


class Resources:
    """``base`` is the public URL of the gateway listener, without a slash at its end."""

    def __init__(self, base: str) -> None:
        self.base = base.rstrip("/")

    def uri(self, path: str) -> str:
        """The canonical URI of the endpoint at ``path``.

        >>> Resources("https://mcp.example.org").uri("/mcp"), Resources("https://mcp.example.org").uri("/")
        ('https://mcp.example.org/mcp', 'https://mcp.example.org')
        """
        return self.base + path.rstrip("/")

    def path(self, uri: str) -> str | None:
        """The path of an endpoint by its URI, or by the path alone; ``None`` for anything else."""
        path = uri.removeprefix(self.base) or WHOLE
        return path if _PATH.fullmatch(path) else None

    def accepts(self, audience: str, path: str) -> bool:
        """Whether a token for ``audience`` opens the endpoint at ``path``: that one, or the gateway as a whole."""
        return audience in (self.uri(path), self.base)


def within(child: str, parent: str) -> bool:
    """Whether the endpoint ``child`` shows no more than ``parent``.

    >>> within("/mcp/coder", "/mcp"), within("/mcp", "/mcp/coder"), within("/servers/git/mcp", "/mcp/coder")
    (True, False, False)
    """
    return child == parent or parent == WHOLE or (parent == EVERYTHING and child != WHOLE)


def listed(path: str, globs: Iterable[str]) -> bool:
    """Whether a path is registered. The gateway as a whole must be written out: no pattern covers it."""
    if path == WHOLE:
        return WHOLE in globs
    return any(fnmatchcase(path, glob if glob.startswith("/") else f"/{glob}") for glob in globs)


def protected_resource(resource: str, servers: Iterable[str], scopes: Iterable[str]) -> dict[str, Any]:
    """The metadata of one endpoint (RFC 9728)."""
    document: dict[str, Any] = {
        "resource": resource,
        "authorization_servers": list(servers),
        "bearer_methods_supported": ["header"],
        "resource_name": "callgate",
    }
    if supported := list(scopes):
        document["scopes_supported"] = supported
    return document

"""The URIs that aggregates expose: ``{label}+{native uri}``, read back by text alone, whatever the URI is.

A label is the server's name where that can begin a URI scheme, else ``x.`` and the name in base32. MCP Apps and skills
are recognised by their scheme, so ``ui`` and ``skill`` stay in front and the label becomes the first segment:
``ui://{label}/{rest}`` (rule SKILL-3). URI templates are written in the same way: nothing in braces is touched.
"""

from __future__ import annotations

import base64
import binascii
import re

ROOTED = ("ui://", "skill://")
_PLAIN = re.compile(r"[a-z][a-z0-9-]*")
_CODED = "x."
#: A first segment that would be taken together with the label in front of it.
_DOTS = re.compile(r"(\.|%2[eE]){1,2}([/?#\\]|$)")


def expose(server: str, uri: str) -> str:
    """The exposed form of a server's URI or URI template.

    >>> expose("git", "file:///{path}"), expose("Git", "note:1"), expose("git", "ui://clock/face.html")
    ('git+file:///{path}', 'x.i5uxi+note:1', 'ui://git/clock/face.html')
    """
    for root in ROOTED:
        if uri.startswith(root) and not _DOTS.match(uri, len(root)):
            return f"{root}{_label(server)}/{uri.removeprefix(root)}"
    return f"{_label(server)}+{uri}"


def native(uri: str) -> tuple[str, str] | None:
    """The server's name and its own URI; ``None`` for a URI that no server's URI is exposed as.

    >>> native("git+file:///a"), native("ui://git/clock/face.html"), native("file:///a")
    (('git', 'file:///a'), ('git', 'ui://clock/face.html'), None)
    """
    for root in ROOTED:
        if uri.startswith(root):
            label, slash, rest = uri.removeprefix(root).partition("/")
            return _pair(label, root + rest) if slash else None
    label, plus, rest = uri.partition("+")
    return _pair(label, rest) if plus else None


def _pair(label: str, uri: str) -> tuple[str, str] | None:
    server = label if _PLAIN.fullmatch(label) else _decoded(label)
    return (server, uri) if server is not None else None


def _label(server: str) -> str:
    return server if _PLAIN.fullmatch(server) else _encoded(server)


def _encoded(server: str) -> str:
    return _CODED + base64.b32encode(server.encode()).decode().rstrip("=").lower()


def _decoded(label: str) -> str | None:
    """The name behind an encoded label; there is one way to write it."""
    digits = label.removeprefix(_CODED)
    try:
        server = base64.b32decode(digits.upper() + "=" * (-len(digits) % 8)).decode()
    except (binascii.Error, ValueError):
        return None
    return server if server and _label(server) == label else None

"""Where a browser goes after the sign-in: only ever to a path of this gateway (no open redirect)."""

from __future__ import annotations

import re
from urllib.parse import unquote

from .problem import SignInError

#: Authorization requests of apps come along in it (characters).
MOST = 8192
#: Visible ASCII without ``\\``, which browsers read as ``/``; quotes and angle brackets have no place in a URL.
_PLAIN = re.compile(r"/[A-Za-z0-9\-._~!$&'()*+,;=:@/%?]*")
_PAGES = ("/oauth/sign-in", "/oauth/callback", "/oauth/sign-out")
#: How often a path is decoded before it is looked at: something between may decode once more than we do.
_DECODED = 4


def checked_back(back: str) -> str:
    """``back``, when it is a path (and query) of this host that is no page of the sign-in itself. Raises SignInError.

    >>> checked_back("/oauth/authorize?state=1&redirect_uri=https%3A%2F%2Fapp.example.org%2F")
    '/oauth/authorize?state=1&redirect_uri=https%3A%2F%2Fapp.example.org%2F'
    """
    path = back.partition("?")[0]
    if len(back) > MOST or not _PLAIN.fullmatch(back) or not _is_plain_path(path) or path.startswith(_PAGES):
        raise SignInError("The link that led here is broken.", "back is not a path of this gateway")
    return back


def _is_plain_path(path: str) -> bool:
    for _ in range(_DECODED):
        parts = path.split("/")
        if not path.isprintable() or "\\" in path or "" in parts[1:-1] or "." in parts or ".." in parts:
            return False
        if path.startswith("//"):
            return False
        decoded = unquote(path, errors="strict") if _decodes(path) else ""
        if decoded == path:
            return True
        path = decoded
        if not path.startswith("/"):
            return False
    return False


def _decodes(path: str) -> bool:
    try:
        unquote(path, errors="strict")
    except UnicodeDecodeError:
        return False
    return True

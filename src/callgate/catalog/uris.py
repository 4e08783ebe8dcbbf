"""URIs that can be written in one way only, so that what a rule says of one holds for what the server reads.

A server decodes and normalises a URI before it opens anything; a rule sees the text. ``file:///pub/%2e%2e/key`` looks
public and is not, and ``file:///%73ecret`` escapes a rule over ``file:///secret``. So a URI that the server itself did
not list must be in the normal form of RFC 3986, section 6.2.2, and encoded once.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

LONGEST = 2048
_SHAPE = re.compile(r"[a-z][a-z0-9+.-]*:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
_PERCENT = re.compile(r"%(.{0,2})")
_UPPER = re.compile(r"[0-9A-F]{2}")
_TWICE = re.compile(r"%25[0-9A-Fa-f]{2}")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")
_DOTS = frozenset({".", ".."})


def flaw(uri: str) -> str:
    """Why a server may read ``uri`` as another one, or ``""``.

    >>> flaw("file:///pub/a%20b.txt"), flaw("file:///pub/%2E%2E/key")
    ('', 'encodes a character that needs no encoding')
    """
    if len(uri) > LONGEST:
        return f"is longer than {LONGEST} characters"
    if not _SHAPE.fullmatch(uri):
        return "is not of the form `scheme:…` with the characters of RFC 3986"
    if "%" in uri and (wrong := _encoding_flaw(uri)):
        return wrong
    scheme, _, rest = uri.partition(":")
    path = unquote(re.split(r"[?#]", rest, maxsplit=1)[0], "latin-1")
    if not _DOTS.isdisjoint(re.split(r"[/\\]", path)):
        return "has `.` or `..` as a part of its path"
    if scheme == "file" and ("//" in path[2:] or path.lower().startswith("//localhost/")):
        return "can be written without `//` in its path, or without `localhost`"
    return ""


def _encoding_flaw(uri: str) -> str:
    for found in _PERCENT.finditer(uri):
        if not _UPPER.fullmatch(found[1]):
            return "holds a `%` without two digits or capital letters A to F behind it"
        sign = chr(int(found[1], 16))
        if _UNRESERVED.fullmatch(sign):
            return "encodes a character that needs no encoding"
        if sign < " " or sign == "\x7f":
            return "encodes a control character"
    return "is encoded twice" if _TWICE.search(uri) else ""

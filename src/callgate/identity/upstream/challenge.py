"""What a server says with a 401 or 403: the ``WWW-Authenticate`` header (RFC 9110, 6750, 9728, 9449)."""

from __future__ import annotations

import re

import msgspec

from callgate.egress import Response

MOST_BYTES = 8192
MOST_SCOPES = 64
_SCHEME = re.compile(r"(?i)(?:^|,)\s*(bearer|dpop)(?=\s|,|$)")
_PARAMETER = re.compile(r'([A-Za-z0-9_\-]{1,64})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}")


class Challenge(msgspec.Struct, frozen=True):
    """What a server wants: ``metadata`` is the URL of its resource metadata (empty: not said)."""

    metadata: str = ""
    scopes: tuple[str, ...] = ()
    error: str = ""


def challenge(response: Response) -> Challenge:
    """The challenge of a response; an empty one where it has none that can be read.

    >>> response = Response(401, {b"www-authenticate": b'Bearer scope="a b", resource_metadata="https://x.example/m"'})
    >>> challenge(response).scopes
    ('a', 'b')
    """
    said = response.headers.get(b"www-authenticate", b"")[:MOST_BYTES].decode("latin-1")
    begin = _SCHEME.search(said)
    if begin is None:
        return Challenge()
    found: dict[str, str] = {}
    for name, quoted, plain in _PARAMETER.findall(said, begin.end()):
        found.setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted) or plain)
    return Challenge(
        metadata=found.get("resource_metadata", ""),
        scopes=scopes_in(found.get("scope", "")),
        error=found.get("error", ""),
    )


def scopes_in(text: str) -> tuple[str, ...]:
    """The scopes of a space-separated list, each once; those with characters that no scope has are left out."""
    found = dict.fromkeys(each for each in text[:MOST_BYTES].split(" ") if _SCOPE.fullmatch(each))
    return tuple(found)[:MOST_SCOPES]


def union(*groups: tuple[str, ...]) -> tuple[str, ...]:
    """All scopes of these groups, each once, in the order in which they came (OC-10)."""
    return tuple(dict.fromkeys(scope for group in groups for scope in group))

"""Heads of requests that a connection has sent before, byte for byte.

An agent sends the same request line and headers over and over. Bytes that were parsed and let in once mean the same
the next time, so they need no parser: a tenth of a call's CPU. Credentials are still recognised for every request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

#: Heads kept for one connection, and their largest size (bytes): what one agent uses, and no place to hoard.
KEPT = 4
LARGEST = 4096
END = b"\r\n\r\n"


class Head(NamedTuple):
    """What a head said: the door, its headers by name, the length of the body."""

    door: str
    headers: Mapping[bytes, bytes]
    length: int


class Heads:
    """The heads of one connection; the oldest goes when there are too many."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}

    def find(self, data: bytes) -> tuple[Head, bytes] | None:
        """The head and body in ``data``, if that is exactly one whole request with a head that is known."""
        end = data.find(END) + len(END)
        head = self._known.get(data[:end])
        if head is None or len(data) - end != head.length:
            return None
        return head, data[end:]

    def remember(self, data: bytes, door: str, pairs: Sequence[tuple[bytes, bytes]], largest_body: int) -> None:
        """Keep the head that ``data`` begins with, after the parser has read it as ``pairs``.

        Only plain ones are kept: whole, HTTP/1.1 and kept alive, a body of a told length, one line for each header
        (so that nothing else can have been read into these bytes). One with a proof comes once.
        """
        raw = data[: data.find(END) + len(END)]
        headers = dict(pairs)
        length = headers.get(b"content-length", b"")
        first = raw.partition(b"\r\n")[0]
        plain = first.startswith(b"POST ") and first.endswith(b" HTTP/1.1") and raw.count(b"\n") == len(pairs) + 2
        odd = headers.keys() & {b"transfer-encoding", b"expect", b"connection", b"upgrade", b"trailer", b"dpop"}
        if plain and not odd and len(raw) <= LARGEST and length.isdigit() and int(length) <= largest_body:
            while len(self._known) >= KEPT:
                del self._known[next(iter(self._known))]
            self._known[raw] = Head(door, headers, int(length))

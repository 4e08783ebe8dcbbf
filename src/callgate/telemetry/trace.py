"""W3C trace context: reading and making ``traceparent`` (https://www.w3.org/TR/trace-context/, section 3.2)."""

from __future__ import annotations

import random
import re
from typing import NamedTuple

# Version 00 is exactly these four fields; later versions may add more after another hyphen.
_FORM = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_NO_TRACE = "0" * 32
_NO_SPAN = "0" * 16
MAX_LENGTH = 512


class Parent(NamedTuple):
    """The caller's span: lower-case hexadecimal ids, and whether it is sampled."""

    trace_id: str
    span_id: str
    sampled: bool


def parse_traceparent(text: object) -> Parent | None:
    """The caller's span, or ``None`` for anything that the specification does not allow.

    >>> parse_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    Parent(trace_id='0af7651916cd43dd8448eb211c80319c', span_id='b7ad6b7169203331', sampled=True)
    """
    if not isinstance(text, str) or len(text) > MAX_LENGTH:
        return None
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if trace_id == _NO_TRACE or span_id == _NO_SPAN or (version == "00" and more):
        return None
    return Parent(trace_id, span_id, bool(int(flags, 16) & 1))


def format_traceparent(trace_id: str, span_id: str, sampled: bool = False) -> str:
    """The header for the next hop, in version 00."""
    return f"00-{trace_id}-{span_id}-{'01' if sampled else '00'}"


def new_trace_id() -> str:
    """A random trace id. Ids name traces and protect nothing, so the fast generator serves."""
    return f"{random.getrandbits(128) or 1:032x}"


def new_span_id() -> str:
    """A random span id."""
    return f"{random.getrandbits(64) or 1:016x}"

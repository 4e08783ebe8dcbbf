"""Names and values in words, fit for a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

LONGEST = 120


def printable(text: str) -> str:
    """``text`` without control characters: names come from servers and callers.

    >>> printable("git/sta\\x1b[31mtus")
    'git/sta�[31mtus'
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)


def listed(names: Iterable[str]) -> str:
    """
    >>> listed(["dev", "qa"]), listed([])
    ('dev, qa', 'none')
    """
    return ", ".join(names) or "none"


def shown(value: Any) -> str:
    """A value as JSON, cut to a line's length.

    >>> shown({"amount": 600})
    '{"amount":600}'
    """
    text = value.isoformat() if isinstance(value, datetime) else msgspec.json.encode(value).decode()
    text = printable(text)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"

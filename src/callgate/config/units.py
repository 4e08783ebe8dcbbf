"""Durations and sizes as people write them: ``30s``, ``5m``, ``250ms``, ``1MiB``, ``64KB``."""

from __future__ import annotations

import re
from typing import Any

_DURATIONS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KIB": 1024, "MIB": 1024**2, "GIB": 1024**3}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ns|us|ms|min|s|m|h|d)")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMG]?i?B)", re.IGNORECASE)

DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?\s*(ns|us|ms|min|s|m|h|d)\s*)+$"
SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)?\s*([KkMmGg][Ii]?)?[Bb]$"

# What marks a number of the model; msgspec carries both parts without looking at them.
SECONDS: dict[str, Any] = {
    "extra": {"unit": "seconds"},
    "extra_json_schema": {"pattern": DURATION_PATTERN},
}
BYTES: dict[str, Any] = {
    "extra": {"unit": "bytes"},
    "extra_json_schema": {"pattern": SIZE_PATTERN},
}


def seconds(text: str) -> float | None:
    """Seconds of a duration, or ``None`` when ``text`` is not one.

    >>> seconds("250ms"), seconds("1h 30m"), seconds("30")
    (0.25, 5400.0, None)
    """
    parts = _DURATION.findall(text)
    if not parts or _DURATION.sub("", text).strip():
        return None
    return float(sum(float(number) * _DURATIONS[unit] for number, unit in parts))


def size(text: str) -> int | None:
    """Bytes of a size, or ``None`` when ``text`` is not one. ``KB`` is 1000, ``KiB`` 1024.

    >>> size("1MiB"), size("64KB"), size("big")
    (1048576, 64000, None)
    """
    found = _SIZE.fullmatch(text.strip())
    return round(float(found[1]) * _SIZES[found[2].upper()]) if found else None

"""How much is allowed in which time, as people write it: ``60/min``, ``1000/day``, ``2M/month``, ``10/30s``."""

from __future__ import annotations

import math
import re

import msgspec

from .units import seconds

_FORM = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kM]?)\s*/\s*([a-z0-9. ]+)")
_MANY = {"": 1, "k": 1_000, "M": 1_000_000}
_NAMES = {
    "s": "second", "sec": "second", "second": "second", "m": "minute", "min": "minute", "minute": "minute",
    "h": "hour", "hour": "hour", "d": "day", "day": "day", "week": "week", "month": "month",
}  # fmt: skip
_SECONDS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0, "week": 604800.0, "month": 0.0}
ALLOWANCE_PATTERN = _FORM.pattern


class Allowance(msgspec.Struct, frozen=True):
    """``amount`` in ``seconds`` (0: a month, whose length the calendar says). ``unit`` is the name of the period, empty
    for one that has none.
    """

    amount: float
    seconds: float
    unit: str = ""


def allowance(text: str) -> Allowance | None:
    """What ``text`` allows, or ``None`` when it is no allowance.

    >>> allowance("60/min"), allowance("2M/month"), allowance("sixty")
    (Allowance(amount=60.0, seconds=60.0, unit='minute'), Allowance(amount=2000000.0, seconds=0.0, unit='month'), None)
    """
    found = _FORM.fullmatch(text.strip())
    if found is None:
        return None
    amount, name = float(found[1]) * _MANY[found[2]], found[3].strip()
    unit = _NAMES.get(name, "")
    length = _SECONDS[unit] if unit else seconds(name)
    if not 0 < amount < math.inf or length is None or (not unit and not length):
        return None
    return Allowance(amount, length, unit)


def share(text: str) -> float | None:
    """The share that a percentage stands for.

    >>> share("80%"), share("0%"), share("80")
    (0.8, None, None)
    """
    found = re.fullmatch(r"([0-9]{1,2}(?:\.[0-9]+)?)\s*%", text.strip())
    return float(found[1]) / 100 if found and float(found[1]) else None

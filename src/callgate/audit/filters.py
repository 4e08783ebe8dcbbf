"""Filters as people write them: ``since=10m``, ``tool=git/*``, ``outcome=denied,failed``."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, get_args

from callgate.audit.encode import GAP
from callgate.audit.ids import first_id_at, read_id
from callgate.errors import UsageError, nearest
from callgate.store import AuditFilters
from callgate.types import Outcome

NAMES = ("tenant", "subject", "server", "tool", "outcome", "since", "until", "before_id", "after_id", "limit")
OUTCOMES = (*get_args(Outcome), GAP)
MAX_LIMIT = 10_000
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def read_filters(parameters: Mapping[str, str], now: float | None = None) -> AuditFilters:
    """The filters that query parameters ask for; empty parameters count as absent.

    Times are ages (``30s``, ``10m``, ``2h``, ``7d``) or ISO 8601 (UTC unless they name a zone). ``before_id``
    and ``after_id`` are call ids; ``after_id=0`` means from the beginning. Raises ``UsageError``.
    """
    fields: dict[str, Any] = {}
    moment = time.time() if now is None else now
    for name, text in parameters.items():
        if name not in NAMES:
            near = nearest(name, NAMES)
            raise UsageError(
                f"There is no filter {name!r}.",
                hint=f"Did you mean {near!r}?" if near else f"Filters: {', '.join(NAMES)}.",
            )
        if not text:
            continue
        if name in ("since", "until"):
            # The first id of the next millisecond, less one, is the last id of this one.
            first = first_id_at(_moment(name, text, moment))
            fields[f"{name}_id"] = first if name == "since" else first | (1 << 21) - 1
        elif name in ("before_id", "after_id"):
            fields[name] = 0 if text == "0" else read_id(text)
        elif name == "outcome":
            fields["outcomes"] = _outcomes(text)
        else:
            fields[name] = _limit(text) if name == "limit" else text
    return AuditFilters(**fields)


def _moment(name: str, text: str, now: float) -> float:
    age = re.fullmatch(r"([0-9]{1,9})([smhdw])", text)
    if age:
        return now - int(age[1]) * _UNITS[age[2]]
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except ValueError:
        raise UsageError(
            f"{name}={text[:80]!r} is not a time.",
            hint="Write an age such as 10m, 2h or 7d, or a time such as 2026-11-20T08:00:00Z.",
        ) from None


def _outcomes(text: str) -> tuple[str, ...]:
    wanted = tuple(part.strip() for part in text.split(","))
    for outcome in wanted:
        if outcome not in OUTCOMES:
            near = nearest(outcome, OUTCOMES)
            hint = f"Did you mean {near!r}?" if near else f"Outcomes: {', '.join(OUTCOMES)}."
            raise UsageError(f"There is no outcome {outcome[:80]!r}.", hint=hint)
    return wanted


def _limit(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= MAX_LIMIT:
        raise UsageError(f"limit={text[:80]!r} is not a number from 1 to {MAX_LIMIT}.")
    return int(text)

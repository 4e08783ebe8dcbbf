"""What was used, and how much of the quotas."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from callgate.api.reader import Reader
from callgate.audit import LAST_ID, read_filters
from callgate.errors import UsageError, nearest
from callgate.policy import tokens
from callgate.store import UsedRow, Whose, used

if TYPE_CHECKING:
    from callgate.gateway import House

BY = ("subject", "agent", "server", "tool")
#: Counters that are shown of one quota, those first of which most is used.
SHOWN = 1_000


class Used(msgspec.Struct):
    """What one name stands for has used. ``ok`` are the calls that a server answered; only these have ``tokens``
    (estimated: four bytes of message and result are one) and ``cost`` (by the prices of now).
    """

    name: str
    calls: int = 0
    ok: int = 0
    refused: int = 0
    denied: int = 0
    failed: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    tokens: int = 0
    cost: float = 0.0


class Usage(msgspec.Struct, frozen=True):
    """The most calls first."""

    by: str
    usage: list[Used]


class CounterShown(msgspec.Struct, frozen=True):
    """One counter that shows something: ``key`` are the parts that the quota counts by, ``resets`` seconds."""

    key: list[str]
    used: float
    limit: float
    resets: float


class QuotaShown(msgspec.Struct, frozen=True):
    """One measure of a quota. ``counters`` are those of this process."""

    id: str
    measure: str
    limit: str
    hard: bool
    per: tuple[str, ...]
    of: tuple[str, ...]
    counters: list[CounterShown]


class QuotasShown(msgspec.Struct, frozen=True):
    """``store`` is where they are counted: ``local`` or ``shared``; ``away``: the shared store does not answer."""

    quotas: list[QuotaShown]
    store: str
    away: bool


async def usage(house: House, reader: Reader, query: Mapping[str, str]) -> Usage:
    """For readers of everything; others see what they have used themselves."""
    asked = dict(query)
    by = asked.pop("by", "") or "subject"
    if by not in BY:
        near = nearest(by, BY)
        hint = f"Did you mean `{near}`?" if near else f"One of {', '.join(BY)}."
        raise UsageError(f"Usage is not counted by {by[:40]!r}.", hint=hint)
    for name in asked:
        if name not in ("since", "until"):
            raise UsageError(f"There is no filter {name[:40]!r}.", hint="Filters: by, since, until.")
    filters = read_filters({"since": "1d", **{name: text for name, text in asked.items() if text}})
    between = filters.since_id or 0, LAST_ID if filters.until_id is None else filters.until_id
    who = reader.who
    whose = None if reader.everything else Whose(who.subject, who.issuer, who.via)
    rows = await asyncio.to_thread(used, house.database, by, who.tenant, between, whose)
    found: dict[str, Used] = {}
    for row in rows:
        _add(found.setdefault(row.name, Used(row.name)), row, house)
    return Usage(by, sorted(found.values(), key=lambda each: (-each.calls, each.name)))


def quotas(house: House, reader: Reader) -> QuotasShown:
    """For readers of everything."""
    reader.only_if_everything()
    counting = house.counting
    counters: dict[str, list[CounterShown]] = {}
    for limit, key, count, whole, resets in counting.quotas.current():
        parts = ["(shared)"] if key.startswith("*") else msgspec.json.decode(key, type=list[str])
        shown = CounterShown(parts, round(count, 3), whole, round(resets, 1))
        counters.setdefault(limit.name, []).append(shown)
    for each in counters.values():
        each.sort(key=lambda counter: -counter.used)
        del each[SHOWN:]
    found = [
        QuotaShown(
            limit.quota,
            limit.measure,
            limit.text,
            limit.hard,
            rule.quota.per,
            rule.quota.of,
            counters.get(limit.name, []),
        )
        for rule in counting.quotas.rules.rules
        for limit in rule.limits
    ]
    shared = counting.shared
    return QuotasShown(found, "local" if shared is None else "shared", shared is not None and shared.away)


def _add(to: Used, row: UsedRow, house: House) -> None:
    to.calls += row.calls
    to.ok += row.good
    to.refused += row.refused
    to.denied += row.denied
    to.failed += row.calls - row.good - row.refused - row.denied
    to.bytes_in += row.bytes_in
    to.bytes_out += row.bytes_out
    count = tokens(row.bytes_in + row.bytes_out)
    to.tokens += count
    price = house.counting.quotas.rules.price(row.server, row.tool)
    if price is not None:
        to.cost = round(to.cost + row.good * price.call + count * price.tokens / 1000, 6)

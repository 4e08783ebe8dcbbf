"""Rates, concurrency, quotas and budgets: whether a call is within them, and what it uses of them.

A call is counted after policy has allowed it and before it leaves. Either all its limits have room and all are counted,
or it is refused and none is. Nothing waits between the look and the count, so calls that come at once cannot slip
through together.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec

from callgate.config import Settings
from callgate.errors import QuotaExceeded
from callgate.policy.bounded import Bounded
from callgate.types import Call, Principal, Tool

from .charge import Charge, Entry, Warned, tokens
from .counters import Limit, Moment, Period
from .legs import Legs
from .rules import UNLISTED, Rules
from .shared import Shared
from .table import ROOM, Table

log = logging.getLogger("callgate.quotas")

#: Methods that ask about a running task: they are counted by rate, and by the tokens of what they bring.
ABOUT = frozenset({"tasks/get", "tasks/result", "tasks/update"})
#: Methods that end something: they are never refused.
ENDING = frozenset({"tasks/cancel", "resources/unsubscribe"})
PLANS = 16_384
_SAID = {
    "rate": "Too many calls in a short time",
    "concurrency": "Too many calls in flight",
    "calls": "All calls are used up",
    "tokens": "The budget of tokens is used up",
    "cost": "The budget is used up",
}


class Plan(msgspec.Struct):
    """What one caller's calls of one tool are counted by."""

    who: Principal
    entries: tuple[Entry, ...]
    sized: bool
    ones: list[float]


def now() -> Moment:
    return Moment(time.monotonic(), time.time())


class Quotas:
    """All quotas and their counters. ``any``: whether there is anything to do for a call.

    ``store`` counts together with other gateways; ``told`` hears of refusals and warnings (quota, measure, which).
    """

    def __init__(
        self, settings: Settings, store: Shared | None = None, *, clock: Callable[[], Moment] = now,
        told: Callable[[str, str, str], None] | None = None,
    ) -> None:  # fmt: skip
        self.clock = clock
        self.store = store
        self.legs = Legs()
        self.tables: dict[str, Table] = {}
        self._told = told or (lambda quota, measure, which: None)
        self.configure(Rules(settings))

    def configure(self, rules: Rules) -> None:
        """Take over other quotas. Counters stay where quota, measure, period and key are the same."""
        before = self.tables
        limits = list(rules.limits)
        room = ROOM // max(len(limits), 1)
        self.rules, self.tables = rules, {}
        for limit in limits:
            table = self.tables[limit.name] = Table(limit, room)
            for counter in before.get(limit.name, ()):
                table.put(counter)
        self._plans: Bounded[tuple[int, str, str], Plan] = Bounded(PLANS)
        self.any = bool(limits)

    async def admit(self, call: Call, *, leg: int = 0, parked: bool = False) -> Charge | None:
        """Count a call; ``None`` when nothing is counted for it. ``leg``: it goes on with a call that was counted;
        ``parked``: that call has kept its places.

        Raises ``QuotaExceeded``, and then nothing was counted.
        """
        if call.method in ENDING:
            return None
        plan = self._plan(call.principal, call.tool)
        entries = plan.entries
        if leg:
            entries = tuple(each for each in entries if each.limit.measure in ("concurrency", "tokens", "cost"))
        elif call.method in ABOUT:
            entries = tuple(each for each in entries if each.limit.measure in ("rate", "concurrency", "tokens"))
        if parked:
            entries = tuple(each for each in entries if each.limit.measure != "concurrency")
        if not entries:
            return None
        wants = self._wants(entries, call, leg) if plan.sized else plan.ones[: len(entries)]
        if self.store is None:
            return self._take(entries, wants, call)
        return await self._take_together(entries, wants, call)

    def _plan(self, who: Principal, tool: Tool) -> Plan:
        key, listed = (id(who), tool.server, tool.name), tool.definition != UNLISTED
        known = self._plans.get(key) if listed else None
        if known is not None and known.who is who and not _dropped(known.entries):
            return known
        moment = self.clock()
        entries = tuple(
            Entry(limit, self.tables[limit.name].of(name, moment))
            for rule in self.rules.of(who, tool)
            for name in (rule.key(who, tool),)
            for limit in rule.limits
        )
        sized = any(each.limit.metered for each in entries)
        plan = Plan(who, entries, sized, [1.0] * len(entries))
        if listed:  # a caller chose the name of what is not: no place for it in memory
            self._plans.put(key, plan)
        return plan

    def _wants(self, entries: Sequence[Entry], call: Call, leg: int) -> list[float]:
        """How much of each limit the call takes now; the answer comes on top when it is there."""
        said = tokens(len(msgspec.json.encode(call.params if call.method != "tools/call" else call.arguments)))
        price = self.rules.price(call.tool.server, call.tool.name)
        cost = 0.0 if price is None else (0.0 if leg else price.call) + price.tokens * said / 1000
        return [
            float(said) if e.limit.measure == "tokens" else cost if e.limit.measure == "cost" else 1.0 for e in entries
        ]

    def _take(self, entries: Sequence[Entry], wants: Sequence[float], call: Call) -> Charge:
        moment = self.clock()
        self._check(entries, wants, moment)
        charge = self._charge(call, None)
        for entry, want in zip(entries, wants, strict=True):
            self._count(charge, entry, want, moment)
        return charge

    def _charge(self, call: Call, store: Shared | None) -> Charge:
        tool = call.tool
        return Charge(self.rules.price(tool.server, tool.name) if self.rules.prices else None, store)

    def _count(self, charge: Charge, entry: Entry, want: float, moment: Moment) -> None:
        limit, counter = entry
        slot = counter.take(limit, want, moment)
        charge.add(entry, want, slot)
        if limit.watched:
            self._watch(charge, entry, counter.used(limit, moment), moment)

    async def _take_together(self, entries: Sequence[Entry], wants: Sequence[float], call: Call) -> Charge:
        """The same with the counters of the store. Places are counted here: a gateway that dies keeps none."""
        store, moment = self.store, self.clock()
        assert store is not None
        pairs = list(zip(entries, wants, strict=True))
        here = [pair for pair in pairs if pair[0].limit.measure == "concurrency"]
        there = [pair for pair in pairs if pair[0].limit.measure != "concurrency"]
        self._check([entry for entry, _ in here], [want for _, want in here], moment)
        charge = self._charge(call, store)
        for entry, want in here:
            self._count(charge, entry, want, moment)
        try:
            said = await store.take(there, moment) if there else ()
            if isinstance(said, str):  # the store is away
                return self._alone(said, charge, there, moment)
            for (entry, want), one in zip(there, said, strict=True):
                if one.wait and entry.limit.hard:
                    raise self._refusal(entry.limit, one.wait)
                charge.add(entry, want, one.slot)
                if entry.limit.watched:
                    self._watch(charge, entry, one.used, moment)
        except BaseException:
            charge.leave()
            raise
        return charge

    def _alone(self, how: str, charge: Charge, there: Sequence[tuple[Entry, float]], moment: Moment) -> Charge:
        if how == "deny":
            raise QuotaExceeded(
                "The limits cannot be looked up right now.",
                retry_after=1,
                measure="store",
                record="the quota store is away",
            )
        if how == "local":
            self._check([entry for entry, _ in there], [want for _, want in there], moment)
            charge.stay()
            for entry, want in there:
                self._count(charge, entry, want, moment)
        return charge

    def _check(self, entries: Sequence[Entry], wants: Sequence[float], moment: Moment) -> None:
        worst, limit = 0.0, None
        for entry, want in zip(entries, wants, strict=True):
            wait = entry.counter.wait(entry.limit, want, moment)
            if wait > worst and entry.limit.hard:
                worst, limit = wait, entry.limit
        if limit is not None:
            raise self._refusal(limit, worst)

    def _watch(self, charge: Charge, entry: Entry, used: float, moment: Moment) -> None:
        limit = entry.limit
        share = used / entry.counter.whole(limit)
        if share >= limit.soft or (share > 1.0 and not limit.hard):
            charge.warnings.append(
                Warned(limit.quota, limit.measure, round(share, 3), entry.counter.resets(limit, moment))
            )
            self._told(limit.quota, limit.measure, "warned")

    def _refusal(self, limit: Limit, wait: float) -> QuotaExceeded:
        self._told(limit.quota, limit.measure, "refused")
        seconds = max(1, math.ceil(wait))
        whole = limit.burst if limit.measure == "rate" else limit.amount
        return QuotaExceeded(
            f"{_SAID[limit.measure]}: {limit.text} is the limit here.", retry_after=seconds, measure=limit.measure,
            record=f"quota {limit.quota}: {limit.measure} {limit.text} reached", limit=limit.text, whole=whole,
            window=limit.seconds,
        )  # fmt: skip

    def current(self) -> Iterator[tuple[Limit, str, float, float, float]]:
        """Every counter that shows something: its limit, key, what is used of how much, and when that ends (s)."""
        moment = self.clock()
        for table in self.tables.values():
            limit = table.limit
            for counter in table:
                used = counter.used(limit, moment)
                if used:
                    yield limit, counter.key, used, counter.whole(limit), counter.resets(limit, moment)

    def periods(self) -> Iterator[tuple[Limit, Period]]:
        """The counters that are kept on disk."""
        for table in self.tables.values():
            for counter in table:
                if isinstance(counter, Period):
                    yield table.limit, counter

    def sizes(self) -> dict[str, int]:
        """How many counters there are, by quota and measure."""
        return {f"{each.limit.quota}/{each.limit.measure}": len(each) for each in self.tables.values()}


def _dropped(entries: Sequence[Entry]) -> bool:
    """Whether a counter was dropped to make room: another one has its key by now."""
    for entry in entries:  # a generator would cost as much as all the rest  # noqa: SIM110
        if entry.counter.gone:
            return True
    return False

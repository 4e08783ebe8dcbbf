"""The quotas of one configuration, compiled: which limits a call falls under, and by which keys it is counted.

A tool has a mask of the quotas that are for it, a caller one of those that are for the caller; what both have applies.
Both masks are kept, so that a call costs two look-ups however many quotas there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping

import msgspec

from callgate.config import Allowance, Price, Quota, QuotaTo, Settings, allowance, share
from callgate.errors import ConfigError
from callgate.policy.bounded import Bounded
from callgate.policy.patterns import Names, ToolIndex, flaw, tool_flaw
from callgate.types import METHOD, PROMPT, RESOURCE, Actor, Principal, Tool

from .counters import Limit

REMEMBERED = 8_192
#: The definition of what no server has listed: its name is what the caller made of it.
UNLISTED = b"{}"
MAX_KEY = 512


class Rule(msgspec.Struct, frozen=True):
    """One quota, ready. ``key`` names the counter of a call."""

    quota: Quota
    limits: tuple[Limit, ...]
    key: Callable[[Principal, Tool], str]
    to: Mapping[str, Names]

    def meant(self, who: Principal) -> bool:
        """Whether the quota is for this caller. What a foreign token says of its actors counts too: it bounds."""
        return all(names.match_any(_VALUES[field](who)) for field, names in self.to.items())


class Rules:
    """All of them. Raises ``ConfigError`` for globs that cannot be read."""

    def __init__(self, settings: Settings) -> None:
        self.rules = tuple(_rule(quota) for quota in settings.quotas)
        self.prices = tuple(settings.prices.items())
        for glob in (*(glob for quota in settings.quotas for glob in quota.of), *settings.prices):
            if wrong := tool_flaw(glob):
                raise ConfigError(f"`{glob}` in `quotas` or `prices` is no glob over `server/tool`: {wrong}.")
        self._tools = ToolIndex(quota.of for quota in settings.quotas)
        self._priced = ToolIndex([glob] for glob, _ in self.prices)
        self._prices = tuple(each if isinstance(each, Price) else Price(call=each) for _, each in self.prices)
        self._masks: Bounded[tuple[str, str], int] = Bounded(REMEMBERED)
        self._callers: Bounded[int, tuple[Principal, int]] = Bounded(REMEMBERED)

    @property
    def limits(self) -> Iterator[Limit]:
        return (limit for rule in self.rules for limit in rule.limits)

    def of(self, who: Principal, tool: Tool) -> Iterator[Rule]:
        """The quotas that a call of this caller falls under."""
        mask = self._caller(who) & self._tool(tool)
        while mask:
            low = mask & -mask
            yield self.rules[low.bit_length() - 1]
            mask ^= low

    def price(self, server: str, tool: str) -> Price | None:
        """What a tool costs: the last entry that is for it."""
        mask = self._priced.mask(server, tool)
        return self._prices[mask.bit_length() - 1] if mask else None

    def _tool(self, tool: Tool) -> int:
        if tool.definition == UNLISTED:
            return self._tools.mask(tool.server, tool.name)
        key = (tool.server, tool.name)
        mask = self._masks.get(key)
        if mask is None:
            mask = self._tools.mask(*key)
            self._masks.put(key, mask)
        return mask

    def _caller(self, who: Principal) -> int:
        known = self._callers.get(id(who))
        if known is not None and known[0] is who:
            return known[1]
        mask = 0
        for at, rule in enumerate(self.rules):
            if rule.meant(who):
                mask |= 1 << at
        self._callers.put(id(who), (who, mask))
        return mask


def agent(who: Principal) -> Actor:
    """The current agent: the last of the attested chain; who comes without one acts for itself."""
    return who.chain[-1] if who.chain else Actor(who.subject, who.issuer)


def _rule(quota: Quota) -> Rule:
    to = quota.to or QuotaTo()
    for field in QuotaTo.__struct_fields__:
        for pattern in getattr(to, field):
            if wrong := flaw(pattern):
                raise ConfigError(f"`{pattern}` in the quota `{quota.id}` is no pattern: {wrong}.")
    names = {field: Names(patterns) for field in QuotaTo.__struct_fields__ if (patterns := getattr(to, field))}
    return Rule(quota, tuple(_limits(quota)), _key(quota), names)


def _limits(quota: Quota) -> Iterator[Limit]:
    soft = 2.0 if quota.soft is None else (share(quota.soft) or 2.0)
    per = ",".join(quota.per)

    def limit(measure: str, text: str, said: Allowance, **more: object) -> Limit:
        kind = "sliding" if quota.period == "sliding" and measure != "rate" else "calendar"
        length = said.unit if kind == "calendar" and said.unit else f"{said.seconds:g}s"
        name = f"{quota.id}|{measure}|{kind}|{length}|{per}"
        known = {"amount": said.amount, "text": text, "seconds": said.seconds, "unit": said.unit, "soft": soft}
        known |= {"hard": quota.hard, "watched": quota.soft is not None or not quota.hard}
        known |= {"metered": measure in ("tokens", "cost"), "quota": quota.id, "measure": measure, "name": name}
        return msgspec.convert({**known, **more}, Limit)

    for measure in ("rate", "calls", "tokens", "cost"):
        text = getattr(quota, measure)
        said = allowance(text) if text is not None else None
        if said is None:
            continue
        if measure == "rate":
            yield limit("rate", text, said, burst=quota.burst or max(int(said.amount), 1))
        else:
            yield limit(measure, text, said, sliding=quota.period == "sliding")
    if quota.concurrency is not None:
        yield limit("concurrency", f"{quota.concurrency} at once", Allowance(float(quota.concurrency), 0.0))


def _key(quota: Quota) -> Callable[[Principal, Tool], str]:
    parts = tuple(_PARTS[name] for name in quota.per)

    def key(who: Principal, tool: Tool) -> str:
        """JSON, so that no name can pose as two; one that is very long is named by its digest."""
        text = msgspec.json.encode([clean(each) for part in parts for each in part(who, tool)]).decode()
        return text if len(text) <= MAX_KEY else f'["#{hashlib.sha256(text.encode()).hexdigest()}"]'

    return key


def clean(text: str) -> str:
    """Text that any store takes: lone surrogates are escaped."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _subject(who: Principal, _: Tool) -> tuple[str, ...]:
    """Equal subjects of two tenants or two issuers are two callers, and nobody is a stranger's namesake."""
    kind = who.via if who.via in ("anonymous", "operator") else ""
    return who.subject, who.issuer, who.tenant, kind


def _agent(who: Principal, tool: Tool) -> tuple[str, ...]:
    if not who.chain:
        return _subject(who, tool)
    return who.chain[-1].subject, who.chain[-1].issuer, who.tenant, ""


def _app(who: Principal, _: Tool) -> tuple[str, ...]:
    """The application at the beginning of the chain, attested by our own token service; all others are one."""
    first = who.chain[0] if who.chain else None
    return (first.subject, first.issuer) if first and first.subject.startswith("client:") else ("", "")


def _tool(_: Principal, tool: Tool) -> tuple[str, ...]:
    """What only the caller has named (a resource behind a template, a method) shares one counter of its kind."""
    name = tool.name
    if tool.definition == UNLISTED:
        name = next((kind for kind in (PROMPT, RESOURCE, METHOD) if name.startswith(kind)), "") + "*"
    return (f"{tool.server}/{name}",)


_PARTS: Mapping[str, Callable[[Principal, Tool], tuple[str, ...]]] = {
    "tenant": lambda who, _: (who.tenant,),
    "subject": _subject,
    "agent": _agent,
    "app": _app,
    "server": lambda _, tool: (tool.server,),
    "tool": _tool,
}
_VALUES: Mapping[str, Callable[[Principal], tuple[str, ...]]] = {
    "subjects": lambda who: (who.subject,),
    "roles": lambda who: who.roles,
    "groups": lambda who: who.groups,
    "agents": lambda who: (agent(who).subject, *(each.subject for each in who.asserted[-1:])),
    "issuers": lambda who: (who.issuer,),
}

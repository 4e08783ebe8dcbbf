"""Settings of rates, concurrency, quotas and budgets."""

from __future__ import annotations

from typing import Annotated, Literal

from .kinds import Count, Seconds, Section, Text, doc

Per = Literal["tenant", "subject", "agent", "app", "server", "tool"]


class QuotaTo(Section, frozen=True):
    """Whom a quota is for: within one field any pattern, between fields all."""

    subjects: Annotated[tuple[Text, ...], doc("Globs over subjects; strangers are `anonymous`.")] = ()
    roles: Annotated[tuple[Text, ...], doc("Globs over roles.")] = ()
    groups: Annotated[tuple[Text, ...], doc("Globs over groups.")] = ()
    agents: Annotated[
        tuple[Text, ...], doc("Globs over the current agent: the last of the chain, else the caller.")
    ] = ()
    issuers: Annotated[tuple[Text, ...], doc("Globs over issuers.")] = ()


class Quota(Section, frozen=True):
    """One rule: how much those whom it is for may do."""

    id: Annotated[
        Text, doc("Its name: in the audit log, metrics and `callgate usage`. Counters go by it.", max_length=64)
    ]
    of: Annotated[
        tuple[Text, ...],
        doc("Globs over `server/tool` in native names, `server/prompt:NAME` and `server/resource:URI` included."),
    ] = ("*/*",)
    per: Annotated[
        tuple[Per, ...],
        doc(
            "What has a counter of its own: each combination of these. Empty: all calls of the rule share one counter."
        ),
    ] = ("subject",)
    to: Annotated[QuotaTo | None, doc("Whom it is for. Default: everybody.")] = None
    rate: Annotated[str | None, doc("Calls in a time, such as `60/min` or `10/30s`; refills steadily.")] = None
    burst: Annotated[Count | None, doc("Calls at once within `rate`. Default: as many as `rate` names.")] = None
    concurrency: Annotated[Count | None, doc("Calls in flight at once, in each process.")] = None
    calls: Annotated[str | None, doc("Calls in a period, such as `1000/day`.")] = None
    tokens: Annotated[
        str | None,
        doc("Tokens in a period, such as `2M/month`: four bytes of arguments and results count as one token."),
    ] = None
    cost: Annotated[str | None, doc("Cost in a period, such as `25/month`, by `prices`.")] = None
    period: Annotated[
        Literal["calendar", "sliding"],
        doc(
            "`calendar`: from the start of the minute, hour, day, week (Monday) or month, in UTC. `sliding`: at any time the time before it."
        ),
    ] = "calendar"
    soft: Annotated[
        str | None, doc("Share of a limit, such as `80%`, from which on calls are answered with a warning.")
    ] = None
    hard: Annotated[bool, doc("Calls over the limit are refused. `false`: they only get the warning.")] = True


class Price(Section, frozen=True):
    """What a tool costs, in whichever unit the budgets are in."""

    call: Annotated[float, doc("One call.", ge=0)] = 0.0
    tokens: Annotated[float, doc("1,000 tokens of arguments and results.", ge=0)] = 0.0


class QuotasStore(Section, frozen=True):
    """A Redis or Valkey in which several gateways count together. Needs `callgate[redis]`."""

    url: Annotated[Text, doc("`redis://HOST:PORT/DB`, or `rediss://` for TLS.")]
    username: Annotated[str | None, doc("User of its access control list.")] = None
    password: Annotated[str | None, doc("Its password as a reference: `secret:NAME`, `env:NAME`, `file:PATH` …")] = None
    ca_file: Annotated[str | None, doc("PEM file with the authorities to trust for `rediss://`.")] = None
    when_away: Annotated[
        Literal["allow", "deny", "local"],
        doc(
            "What happens while it cannot be reached: calls are not counted, are refused, or each gateway counts for itself."
        ),
    ] = "local"
    timeout: Annotated[Seconds, doc("Longest time for one question to it.")] = 0.25
    prefix: Annotated[Text, doc("Begins the names of all its keys.")] = "callgate"

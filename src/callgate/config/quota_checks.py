"""What must hold for quotas: amounts that can be read, periods that exist, names that differ."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from callgate.errors import ConfigError

from .allowance import allowance, share
from .document import Document
from .model import Settings
from .model_quotas import Quota, QuotasStore
from .node import Path_
from .references import is_reference

PERIODS = ("calls", "tokens", "cost")
MEASURES = ("rate", "concurrency", *PERIODS)


def check_quotas(settings: Settings, document: Document) -> Iterator[ConfigError]:
    seen: set[str] = set()
    for number, quota in enumerate(settings.quotas):
        at: Path_ = ("quotas", number)
        if quota.id in seen:
            yield document.wrong(f"there are two quotas `{quota.id}`", (*at, "id"), hint="name one of them differently")
        seen.add(quota.id)
        yield from _quota(quota, at, document)
        if quota.cost is not None and not settings.prices:
            yield document.wrong("nothing has a price", (*at, "cost"), hint="say under `prices` what tools cost")
    for glob in settings.prices:
        server, slash, tool = glob.partition("/")
        if not (server.strip() and slash and tool.strip()):
            yield document.wrong(
                f"`{glob}` is no glob over `server/tool`", ("prices", glob), key=True, hint="such as `git/*`"
            )
    if isinstance(settings.quotas_store, QuotasStore):
        yield from _store(settings.quotas_store.url, ("quotas_store", "url"), document)
        password = settings.quotas_store.password
        if password is not None and not is_reference(password):
            hint = "keep it with `callgate secret set`, and write `secret:NAME`"
            yield document.wrong("the password stands in the file", ("quotas_store", "password"), hint=hint)
    elif settings.quotas_store is not None:
        yield from _store(settings.quotas_store, ("quotas_store",), document)


def _quota(quota: Quota, at: Path_, document: Document) -> Iterator[ConfigError]:
    if all(getattr(quota, name) is None for name in MEASURES):
        hint = "say one of " + ", ".join(f"`{name}`" for name in MEASURES)
        yield document.wrong(f"the quota `{quota.id}` bounds nothing", (*at, "id"), hint=hint)
    if not quota.of:
        yield document.wrong("`of` names nothing", (*at, "of"), hint="leave it out for everything")
    if len(set(quota.per)) < len(quota.per):
        yield document.wrong("`per` names something twice", (*at, "per"), hint="once is enough")
    if quota.burst is not None and quota.rate is None:
        yield document.wrong("`burst` has no effect without `rate`", (*at, "burst"), hint="say `rate`, or remove it")
    if quota.soft is not None and share(quota.soft) is None:
        yield document.wrong(f"`{quota.soft[:40]}` is no share", (*at, "soft"), hint="between 0 and 100, such as `80%`")
    for name in ("rate", *PERIODS):
        text = getattr(quota, name)
        if text is not None:
            yield from _amount(name, text, quota, (*at, name), document)


def _amount(name: str, text: str, quota: Quota, at: Path_, document: Document) -> Iterator[ConfigError]:
    said = allowance(text)
    if said is None:
        yield document.wrong(
            f"`{text[:40]}` is not so much in a time", at, hint="such as `60/min`, `1000/day`, `2M/month`"
        )
    elif name == "rate" and said.unit == "month":
        yield document.wrong("a rate has no months", at, hint="say `calls`, or a rate by the day")
    elif name != "rate" and quota.period == "calendar" and (not said.unit or said.unit == "second"):
        yield document.wrong(
            f"the calendar knows no period of `{text.partition('/')[2].strip()[:40]}`", at,
            hint="minute, hour, day, week or month; or say `period: sliding`",
        )  # fmt: skip
    elif name != "rate" and quota.period == "sliding" and said.unit == "month":
        yield document.wrong("months differ in length", at, hint="say `/30d`")
    elif name in ("rate", "calls", "tokens") and said.amount < 1:
        yield document.wrong("less than one is never reached", at, hint="say one in a longer time, such as `1/hour`")


def _store(url: str, at: Path_, document: Document) -> Iterator[ConfigError]:
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        yield document.wrong("this is no address of a Redis or Valkey", at, hint="such as `redis://127.0.0.1:6379/0`")
    elif parts.username is not None or parts.password is not None:
        hint = "say `quotas_store: {url: …, username: …, password: secret:NAME}`"
        yield document.wrong("the address holds a password", at, hint=hint)

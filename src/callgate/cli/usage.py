"""`callgate usage`: what was used, by the audit log, and how much of the quotas."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from callgate.cli.options import HERE, Output, Where
from callgate.cli.output import Column, emit, field
from callgate.cli.remote import Remote


def _cost(row: Mapping[str, Any]) -> str:
    return f"{row['cost']:.2f}"


COLUMNS = (
    Column("NAME", field("name"), keep=True),
    Column("CALLS", field("calls"), right=True),
    Column("OK", field("ok"), right=True),
    Column("FAILED", field("failed"), right=True),
    Column("DENIED", field("denied"), right=True),
    Column("REFUSED", field("refused"), right=True),
    Column("TOKENS", field("tokens"), right=True),
    Column("COST", _cost, right=True),
)

QUOTAS = (
    Column("QUOTA", field("id"), keep=True),
    Column("LIMIT", lambda row: f"{row['measure']} {row['limit']}", keep=True),
    Column("OF", lambda row: " ".join(each for each in row["key"] if each)),
    Column("USED", lambda row: f"{row['used']:g}", right=True),
    Column("SHARE", lambda row: f"{row['used'] / row['limit_number']:.0%}", right=True),
    Column("RESETS", lambda row: f"{row['resets']:.0f} s", right=True),
)


def usage(
    *,
    by: Literal["subject", "agent", "server", "tool"] = "subject",
    since: str = "1d",
    quotas: Annotated[bool, Parameter(negative="")] = False,
    output: Output = None,
    where: Where = HERE,
) -> int:
    """Show what was used, by the audit log; with `--quotas`, what is used of the quotas now.

    Parameters
    ----------
    by
        Add up by caller, by current agent, by server or by tool.
    since
        An age (`10m`, `2h`, `7d`) or a time (ISO 8601, UTC).
    quotas
        Show the counters of the quotas instead.
    """
    asyncio.run(_usage({"by": by, "since": since}, quotas, output, where))
    return 0


async def _usage(wanted: Mapping[str, str], quotas: bool, output: Output, where: Where) -> None:
    async with Remote(where) as gateway:
        if not quotas:
            emit((await gateway.admin("usage", wanted))["usage"], COLUMNS, output)
            return
        found = (await gateway.admin("quotas"))["quotas"]
        rows = [
            {**each, **counter, "limit": each["limit"]} | {"limit_number": counter["limit"]}
            for each in found
            for counter in each["counters"]
        ]
        for row in rows:
            del row["counters"]
        emit(rows, QUOTAS, output)

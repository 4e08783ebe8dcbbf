"""`callgate logs`: the audit log, oldest line first, and what is written while one looks."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from cyclopts import Parameter

from callgate.cli.options import HERE, Format, Output, Where
from callgate.cli.output import WIDE, Column, emit, field, json_line, on_terminal, plain, tsv
from callgate.cli.remote import Remote
from callgate.errors import UsageError
from callgate.types import METHOD

PAUSE = 0.3
OUTCOME, MS, CALL = 10, 8, 13  # the widest of each
#: Methods that need not be told: what is named says which it was.
PLAIN = ("", "tools/call", "prompts/get", "resources/read")


def _time(call: Mapping[str, Any]) -> str:
    """Local time where people look, the record's own (UTC) where programs do."""
    if not on_terminal():
        return str(call["time"])
    there = datetime.fromisoformat(call["time"]).astimezone()
    today = there.date() == datetime.now().astimezone().date()
    return there.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")


def called(call: Mapping[str, Any]) -> str:
    """The tool, prompt or resource, and the method where the name does not tell it: ``git/clone (tasks/get)``."""
    tool, method = str(call["tool"]), call.get("method", "")
    name = f"{call['server']}/{tool}" if call["server"] else tool
    if not name or method in PLAIN or tool == METHOD + method:
        return name or method
    return f"{name} ({method})"


def _milliseconds(call: Mapping[str, Any]) -> str:
    return f"{call.get('duration_us', 0) / 1000:.1f}"


COLUMNS = (
    Column("TIME", _time, keep=True),
    Column("SUBJECT", field("subject"), cut=True),
    Column("TOOL", called, cut=True),
    Column("OUTCOME", field("outcome"), keep=True),
    Column("RULE", field("rule"), cut=True),
    Column("MS", _milliseconds, keep=True, right=True),
    Column("CALL", field("id"), keep=True),
)


def logs(
    *,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="")] = False,
    server: str | None = None,
    tool: str | None = None,
    subject: str | None = None,
    outcome: str | None = None,
    since: str | None = None,
    limit: int = 50,
    output: Output = None,
    where: Where = HERE,
) -> int:
    """Show recorded calls, the newest last.

    Parameters
    ----------
    follow
        Go on with what is written from now on.
    server
        Only calls to this server.
    tool
        Only these tools; a glob over `server/tool`, or over the name alone.
    subject
        Only calls of this caller.
    outcome
        Only these outcomes: ok, tool_error, denied, refused, failed, timeout, cancelled; several with commas.
    since
        Only calls since then: an age such as 10m, 2h or 7d, or a time.
    limit
        The newest so many.
    """
    if follow and output in ("json", "yaml"):
        raise UsageError(f"`-o {output}` needs an end, and `--follow` has none.", hint="Use `-o jsonl`.")
    wanted = {"server": server, "tool": tool, "subject": subject, "outcome": outcome, "since": since}
    asyncio.run(_logs(wanted, limit, follow, output, where))
    return 0


async def _logs(wanted: dict[str, Any], limit: int, follow: bool, output: Format | None, where: Where) -> None:
    async with Remote(where) as gateway:
        first = await gateway.admin("calls", {**wanted, "limit": limit})
        calls = list(reversed(first["calls"]))
        if not follow:
            emit(calls, COLUMNS, output)
            return
        widths = _widths(calls)
        _lines(calls, output, widths)
        seen, after = {call["id"] for call in calls}, first["latest"]
        del wanted["since"]  # following begins where the first page ended, whatever it showed
        while True:
            more = await gateway.admin("calls", {**wanted, "after_id": after, "limit": 1000})
            _lines([call for call in more["calls"] if call["id"] not in seen], output, widths)
            seen = {call["id"] for call in more["calls"]} or seen
            after = more["next"] or after
            if not more["calls"]:
                await asyncio.sleep(PAUSE)


def _widths(calls: list[Any]) -> tuple[int, ...]:
    """The columns' widths while following: what is not fixed is shared out among subject, tool and rule."""
    total = shutil.get_terminal_size().columns if on_terminal() else WIDE
    time = max((len(_time(call)) for call in calls), default=len("00:00:00"))
    left = total - time - OUTCOME - MS - CALL - (len(COLUMNS) - 1)
    name = min(max(left // 4, 9), 20)
    return time, name, min(max(left - 2 * name, 9), 40), OUTCOME, name, MS, CALL


def _cell(text: str, width: int, right: bool) -> str:
    short = text if len(text) <= width else f"{text[: width - 1]}…"
    return f"{short:>{width}}" if right else f"{short:<{width}}"


def _lines(calls: list[Any], output: Format | None, widths: tuple[int, ...]) -> None:
    """Print calls as they come, one line each."""
    for call in calls:
        if output == "jsonl":
            line = json_line(call)
        elif output == "table" or on_terminal():
            cells = zip(COLUMNS, widths, strict=True)
            line = " ".join(_cell(plain(column.cell(call)), width, column.right) for column, width in cells)
        else:
            line = tsv(call, COLUMNS)
        print(line, flush=True)

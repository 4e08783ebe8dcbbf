"""`callgate why CALL_ID`: one call, the rule that decided, and how every rule saw it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from callgate.cli.logs import called
from callgate.cli.options import HERE, Output, Where
from callgate.cli.output import emit_value, json_line, plain
from callgate.cli.remote import Remote


def why(call_id: str, /, *, output: Output = None, where: Where = HERE) -> int:
    """Explain why one call was allowed or denied.

    Parameters
    ----------
    call_id
        As `callgate logs` shows it, and as a refused client is told it.
    """
    told = asyncio.run(_why(call_id, where))
    if output in (None, "table"):
        print("\n".join(plain(line, lines=True) for line in _lines(told)))
    else:
        emit_value(told, output)
    return 0


async def _why(call_id: str, where: Where) -> Any:
    from urllib.parse import quote

    async with Remote(where) as gateway:
        return await gateway.admin(f"calls/{quote(call_id, safe='')}/why")


def _lines(told: Mapping[str, Any]) -> Iterator[str]:
    call, rule = told["call"], told["rule"]
    tool = called(call) or "the gateway"
    through = " through " + ", ".join(actor["sub"] for actor in call["chain"]) if call.get("chain") else ""
    yield f"{call['id']}  {call['time']}"
    yield f"{call['subject']}{through} called {tool}: {call['outcome']} in {call.get('duration_us', 0) / 1000:.1f} ms"
    if call.get("reason"):
        yield f"  reason     {call['reason']}"
    if rule is not None:
        place = f" at {rule['file']}:{rule['line']}" if rule["file"] else " (no longer in the policy)"
        yield f"  rule       {rule['id']}{place}"
    elif call.get("policy"):
        yield "  rule       none, the default decided"
    if call.get("policy"):
        yield f"  policy     {call['policy']}"
    if call.get("roles"):
        yield f"  roles      {', '.join(call['roles'])}"
    if call.get("args") is not None:
        yield f"  arguments  {json_line(call['args'])}"
    if call.get("trace_id"):
        yield f"  trace      {call['trace_id']}"
    if told["text"]:
        yield ""
        yield "The same call, judged now:"
        yield told["text"].rstrip()
    for note in told["notes"]:
        yield f"note: {note}"

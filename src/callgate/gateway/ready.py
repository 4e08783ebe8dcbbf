"""The line that says that the gateway is ready, and with how much of what is configured."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from callgate.types import ServerStatus, Tool

#: Servers that are named one by one, and the characters of a reason; `callgate ls` has the rest.
NAMED = 5
REASON = 100


def ready_line(url: str, statuses: Sequence[ServerStatus], tools: Sequence[Tool]) -> str:
    """One line with the URL of `/mcp`, which servers are not there yet and why, and how many tools are listed.

    Tools of a server that is not ready are remembered from an earlier run; disabled servers do not count.

    >>> ready_line("http://127.0.0.1:8080/mcp", [ServerStatus("time", "starting", "stdio")], [])
    'callgate is ready: http://127.0.0.1:8080/mcp (0 of 1 server ready, 0 tools; starting: time)'
    """
    wanted = [each for each in statuses if each.state != "stopped"]
    if not wanted:
        return f"callgate is ready: {url} (no servers)"
    ready = {each.name for each in wanted if each.state == "ready"}
    remembered = sum(tool.server not in ready for tool in tools)
    told = f"{len(ready)} of {_count(len(wanted), 'server')} ready, {_count(len(tools), 'tool')}"
    if remembered:
        told += f", {remembered} of them remembered" if remembered < len(tools) else " remembered"
    starting = [each for each in wanted if each.state == "starting"]
    failed = [each for each in wanted if each.state == "failed"]
    told += _named("starting", starting, lambda each: each.name)
    told += _named("failed", failed, lambda each: f"{each.name} ({_first_line(each.reason)})")
    return f"callgate is ready: {url} ({told})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _named(what: str, servers: Sequence[ServerStatus], show: Callable[[ServerStatus], str]) -> str:
    if not servers:
        return ""
    more = f" and {len(servers) - NAMED} more" if len(servers) > NAMED else ""
    return f"; {what}: {', '.join(map(show, servers[:NAMED]))}{more}"


def _first_line(reason: str) -> str:
    """What a server says of its own end may hold anything: one short line, without control characters."""
    line = "".join(one if one.isprintable() else " " for one in reason.strip().partition("\n")[0]).strip()
    return f"{line[: REASON - 1]}…" if len(line) > REASON else line or "no reason given"

"""The demo behind `callgate up --demo`: servers, a policy and two scripted agents, shown as their calls happen.

Everything goes the way that real calls go: the agents are MCP clients on the gateway's own ``/mcp``, one of each
protocol era, and what is shown is read from the audit log.
"""

from __future__ import annotations

__all__ = ["run"]


def run(*, host: str | None = None, port: int | None = None, admin_port: int | None = None) -> int:
    """Run the demo until it is stopped and return the exit status; see ``docs/demo.md``.

    A port that is not given is the usual one or, when another program has that, a free one.
    """
    from callgate.demo.stage import perform  # the demo servers import this package, and need none of that

    return perform({"host": host, "port": port, "admin_port": admin_port})

"""``python -m tests.conformance.client direct|callgate URL``: play one client scenario against the suite's server.

The suite says which one in its environment: ``MCP_CONFORMANCE_SCENARIO``, ``MCP_CONFORMANCE_PROTOCOL_VERSION`` and,
where a scenario brings values, ``MCP_CONFORMANCE_CONTEXT``. With ``callgate`` an ephemeral callgate is started whose
only server is the suite's, and the scenario is played through it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.conformance.gateway import in_front_of
from tests.conformance.suite import OAUTH

from .authorised import directly
from .scenarios import SCENARIOS, Told
from .through import Setting, settings, through

SECONDS = 15.0
SERVER = "suite"
"""What callgate calls the suite's server."""


def told() -> Told:
    """What the suite says of this scenario."""
    revision = os.environ["MCP_CONFORMANCE_PROTOCOL_VERSION"]
    return Told(revision, json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}"))


async def in_time(scenario: str, route: str, url: str) -> None:
    async with asyncio.timeout(SECONDS):
        if not scenario.startswith(OAUTH):
            await SCENARIOS[scenario](url, told())
        elif route == "direct":
            await directly(scenario, url, told())
        else:
            await through(SERVER, url, told())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.client", description=__doc__)
    parser.add_argument("route", choices=["direct", "callgate"])
    parser.add_argument("url")
    chosen = parser.parse_args()
    scenario = os.environ["MCP_CONFORMANCE_SCENARIO"]
    if scenario not in SCENARIOS and not scenario.startswith(OAUTH):
        print(f"no such scenario: {scenario}", file=sys.stderr)
        return 2
    # The suite ends a client that takes too long; the callgate that it started has to go with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if chosen.route == "direct":
        asyncio.run(in_time(scenario, chosen.route, chosen.url))
        return 0
    with tempfile.TemporaryDirectory(prefix="conformance-client-") as folder, ExitStack() as stack:
        setting = Setting(told(), chosen.url, Path(folder))
        more = settings(scenario, setting) if scenario.startswith(OAUTH) else {}
        running, url = stack.enter_context(in_front_of(chosen.url, Path(folder), SERVER, **more))
        try:
            asyncio.run(in_time(scenario, chosen.route, url))
        finally:
            print(running.written(), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

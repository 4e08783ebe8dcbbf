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
from pathlib import Path

from tests.conformance.gateway import in_front_of

from .scenarios import SCENARIOS, Play, Told

SECONDS = 15.0


def told() -> Told:
    """What the suite says of this scenario."""
    revision = os.environ["MCP_CONFORMANCE_PROTOCOL_VERSION"]
    return Told(revision, json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}"))


async def in_time(play: Play, url: str) -> None:
    async with asyncio.timeout(SECONDS):
        await play(url, told())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.client", description=__doc__)
    parser.add_argument("route", choices=["direct", "callgate"])
    parser.add_argument("url")
    chosen = parser.parse_args()
    play = SCENARIOS.get(scenario := os.environ["MCP_CONFORMANCE_SCENARIO"])
    if play is None:
        print(f"no such scenario: {scenario}", file=sys.stderr)
        return 2
    # The suite ends a client that takes too long; the callgate that it started has to go with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if chosen.route == "direct":
        asyncio.run(in_time(play, chosen.url))
        return 0
    with (
        tempfile.TemporaryDirectory(prefix="conformance-client-") as folder,
        in_front_of(chosen.url, Path(folder), "suite") as (running, url),
    ):
        try:
            asyncio.run(in_time(play, url))
        finally:
            print(running.written(), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The line that says that the gateway is ready: the URL, and what is not there yet."""

from __future__ import annotations

import pytest

from callgate.gateway import ready_line
from callgate.types import ServerStatus, Tool

URL = "http://127.0.0.1:8080/mcp"
READY = [ServerStatus("time", "ready", "stdio"), ServerStatus("git", "ready", "stdio")]
STARTING = ServerStatus("slow", "starting", "stdio")
FAILED = ServerStatus("gone", "failed", "stdio", "exited with status 1\nTraceback \x1b[31m")


def tools(*servers: str) -> list[Tool]:
    return [Tool(server, str(number), f"{server}__{number}", b"{}") for number, server in enumerate(servers)]


@pytest.mark.parametrize(
    ("statuses", "listed", "told"),
    [
        ([], [], "no servers"),
        ([ServerStatus("off", "stopped", "stdio")], [], "no servers"),
        (READY, tools("time", "git"), "2 of 2 servers ready, 2 tools"),
        (READY[:1], tools("time"), "1 of 1 server ready, 1 tool"),
        ([STARTING], tools("slow"), "0 of 1 server ready, 1 tool remembered; starting: slow"),
        (
            [*READY, STARTING, FAILED],
            tools("time", "gone", "git"),
            "2 of 4 servers ready, 3 tools, 1 of them remembered; starting: slow; failed: gone (exited with status 1)",
        ),
        (
            [ServerStatus(f"s{number}", "starting", "http") for number in range(7)],
            [],
            "0 of 7 servers ready, 0 tools; starting: s0, s1, s2, s3, s4 and 2 more",
        ),
        ([ServerStatus("a", "failed", "http")], [], "0 of 1 server ready, 0 tools; failed: a (no reason given)"),
    ],
)
def test_it_says_how_much_of_what_is_configured_is_there(
    statuses: list[ServerStatus], listed: list[Tool], told: str
) -> None:
    assert ready_line(URL, statuses, listed) == f"callgate is ready: {URL} ({told})"


def test_a_reason_is_one_short_line_without_control_characters() -> None:
    line = ready_line(URL, [ServerStatus("a", "failed", "stdio", "\x1b[2J" + "long " * 100 + "\nmore")], [])
    assert line.isprintable()
    assert line.endswith("…))") and len(line) < 250

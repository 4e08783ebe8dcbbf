"""How records are shown."""

from __future__ import annotations

import pytest

from callgate.cli.logs import called


@pytest.mark.parametrize(
    ("server", "tool", "method", "shown"),
    [
        ("git", "clone", "tools/call", "git/clone"),
        ("git", "clone", "tasks/get", "git/clone (tasks/get)"),
        ("docs", "method:notes/archive", "notes/archive", "docs/method:notes/archive"),
        ("", "", "tasks/get", "tasks/get"),  # of a task that is not known
        ("", "", "", ""),  # of a stranger
    ],
)
def test_a_record_is_shown_by_what_was_called(server: str, tool: str, method: str, shown: str) -> None:
    assert called({"server": server, "tool": tool, "method": method}) == shown

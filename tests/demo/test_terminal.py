"""The demo in a pseudo-terminal of 80 columns: colours, a line that moves, and nothing that wraps."""

from __future__ import annotations

import os
import re
import select
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.demo.run import LIMIT
from tests.processes import ROOT, environment, python

if sys.platform == "win32":
    pytest.skip("there are no pseudo-terminals", allow_module_level=True)

import fcntl
import pty
import termios

CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the terminal got until the first refund, when it is interrupted."""
    return watch(tmp_path_factory.mktemp("terminal"), until="shop/search_orders customer=ada", TERM="xterm-256color")


def watch(folder: Path, until: str, **env: str) -> str:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    command = python("-m", "callgate", "up", "--demo", "--port", "0", "--admin-port", "0")
    whole = {**environment(env), "TMPDIR": str(folder)}
    for name in {"COLUMNS", "LINES", "NO_COLOR", "CI"} - env.keys():
        whole.pop(name, None)
    process = subprocess.Popen(command, cwd=ROOT, env=whole, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        text = _read(ours, until)
        process.send_signal(signal.SIGINT)
        text += _read(ours, None)
        assert process.wait(10) == 0, text
        return text
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _read(terminal: int, until: str | None) -> str:
    data, deadline = b"", time.monotonic() + LIMIT
    while time.monotonic() < deadline and (until is None or until.encode() not in data):
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                data += os.read(terminal, 65536)
            except OSError:  # the other end is closed
                break
    return data.decode("utf-8", "replace")


def test_verdicts_have_colours(seen: str) -> None:
    assert re.search(r"\x1b\[36mfiltered\x1b\[0m", seen)
    assert re.search(r"\x1b\[32mallowed \x1b\[0m", seen)


def test_the_last_line_moves(seen: str) -> None:
    assert "agents at work" in seen
    assert "\x1b[2K" in seen


def test_nothing_is_wider_than_the_terminal(seen: str) -> None:
    lines = [line for line in CODES.sub("", seen).replace("\r", "\n").splitlines() if "callgate-DEMO-" not in line]
    assert [line for line in lines if len(line) > 80] == []


def test_the_url_is_printed_in_one_piece(seen: str) -> None:
    assert re.search(r"callgate is ready: http://127\.0\.0\.1:\d+/mcp ", seen)


def test_no_color_means_plain_lines(tmp_path: Path) -> None:
    seen = watch(tmp_path, until="tools/list", TERM="xterm-256color", NO_COLOR="1")
    assert "filtered" in seen
    assert CODES.search(seen) is None

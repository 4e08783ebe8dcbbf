"""A peer that is not there is skipped with a reason that says what to do; programs that fail tell why."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from bench import context_forge, fastmcp_proxy, loads, peers
from bench.backend import Backend
from bench.peers import Absent, Peer
from bench.processes import NotStarted, Program, free_port
from bench.targets import DIRECT, FASTMCP, FORGE, Servers
from bench.track import Track

NOBODY = Servers(http={"bench": 9})


@pytest.fixture
def track(tmp_path: Path) -> Iterator[Track]:
    running = Track("quick", tmp_path / "cache", tmp_path, Console(quiet=True))
    yield running
    running.close()


def test_absent_peers_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(Absent, match="--install-peers"):
        fastmcp_proxy.start(NOBODY, tmp_path)
    with pytest.raises(Absent, match="--install-peers"):
        context_forge.start(FORGE, NOBODY, tmp_path, tmp_path / "run")


def test_a_python_that_is_too_old_is_not_taken() -> None:
    with pytest.raises(Absent, match=r"no Python 3\.90 to 3\.91"):
        peers.interpreter(Peer("x", "1", oldest=90, newest=91))
    assert peers.interpreter(Peer("x", "1", newest=99), sys.executable) == sys.executable
    assert peers.minor_version("no-such-python") == 0


def test_an_absent_peer_is_left_out_and_noted(track: Track) -> None:
    backend = Backend(2)
    try:
        with track.running((FASTMCP, DIRECT), backend) as found:
            assert [target.name for target in found] == [DIRECT]
    finally:
        backend.stop()
    assert "not installed" in track.results.skipped[FASTMCP]


def test_a_slice_counts_what_the_server_received(track: Track) -> None:
    track.pace = track.pace.__class__(rounds=2, growth_rounds=1, seconds=0.02, starts=1, warm_up=0.01)
    backend = Backend(1)
    try:
        with track.running((DIRECT,), backend) as found:
            figures = track.compare(("calls", "HTTP", "c=2"), found, lambda one: loads.calls(one, 2), backend)
    finally:
        backend.stop()
    assert [(figure.target, figure.errors, figure.upstream) for figure in figures] == [(DIRECT, 0, 1.0)]
    assert track.results.figures == figures


def test_a_program_that_ends_early_is_quoted() -> None:
    program = Program([sys.executable, "-c", "print('no such file: x.yaml'); raise SystemExit(3)"])
    with pytest.raises(NotStarted, match=r"(?s)status 3.*no such file: x\.yaml"):
        program.wait_for("ready", 20)
    program.stop()


def test_a_program_that_never_listens_is_given_up() -> None:
    program = Program([sys.executable, "-c", "import time; print('hm', flush=True); time.sleep(60)"])
    try:
        program.wait_for("hm", 20)
        with pytest.raises(NotStarted, match="did not listen"):
            program.wait_port(free_port(), 0.02)
    finally:
        program.stop()
    assert program.process.returncode is not None


def test_stopping_ends_children_too() -> None:
    code = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
    program = Program([sys.executable, "-c", code + "print('up', flush=True); time.sleep(60)"])
    program.wait_for("up", 20)
    tree = program.tree()
    assert len(tree) == 2
    assert program.resident() > 1_000_000
    program.stop()
    assert not any(process.is_running() and process.status() != "zombie" for process in tree)


def test_the_token_for_context_forge_has_three_parts() -> None:
    assert context_forge.token().count(".") == 2

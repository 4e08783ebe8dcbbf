"""``callgate up`` as a process: signals, watched files, the log, and what is left when it is killed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.messages import dump, head, modern, post, routing
from tests.fuzz.raw import Connection, Reply, ask
from tests.gateway.stand import allow, calling, deny
from tests.processes import free_port, start_callgate
from tests.upstream.house import SCRIPT


class Up:
    """A running ``callgate up`` and its configuration file."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.file = folder / "callgate.yaml"
        (folder / "data").mkdir(exist_ok=True)
        self.settings: dict[str, Any] = {
            "listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0", "data_dir": str(folder / "data"), "watch": False,
            "servers": {"u": {"command": sys.executable, "args": ["-S", SCRIPT]}}, **settings,
        }  # fmt: skip
        self.write()
        self.process, self.root = start_callgate(self.file, folder)
        self.port = int(self.root.rpartition(":")[2])

    def write(self, **settings: Any) -> None:
        self.settings |= settings
        draft = self.file.with_suffix(".new")
        draft.write_text(json.dumps(self.settings), "utf-8")
        draft.replace(self.file)

    def call(self, tool: str, **arguments: Any) -> Reply:
        message = calling(tool, arguments)
        return ask(("127.0.0.1", self.port), post(self.port, dump(message), routing(message)))

    def tools(self) -> list[str]:
        message = modern("tools/list")
        reply = ask(("127.0.0.1", self.port), post(self.port, dump(message), routing(message)))
        return [tool["name"] for tool in reply.json["result"]["tools"]]

    def page(self, path: str) -> Any:
        return ask(("127.0.0.1", self.port), head(f"GET {path} HTTP/1.1", [("Host", f"127.0.0.1:{self.port}")])).json

    @property
    def log(self) -> str:
        return self.process.err.read_text("utf-8")


@contextmanager
def up(folder: Path, **settings: Any) -> Iterator[Up]:
    running = Up(folder, **settings)
    try:
        yield running
    finally:
        running.process.stop()
    assert "Traceback" not in running.log, running.log


def until(condition: Callable[[], Any], timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.01)


def kept(folder: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(folder / "data" / "callgate.db")) as connection:
        return connection.execute("select tool, outcome from audit order by id").fetchall()


@pytest.mark.key("listen", "admin_listen", "data_dir")
def test_it_serves_where_and_keeps_what_the_configuration_says(tmp_path: Path) -> None:
    gate, admin = free_port(), free_port()
    with up(tmp_path, listen=f"127.0.0.1:{gate}", admin_listen=f"127.0.0.1:{admin}") as running:
        assert running.root == f"http://127.0.0.1:{gate}"
        assert running.page("/healthz")["admin"] == f"http://127.0.0.1:{admin}"
        metrics = ask(("127.0.0.1", admin), head("GET /metrics HTTP/1.1", [("Host", f"127.0.0.1:{admin}")]))
        assert b"callgate_tools" in metrics.body
        assert running.call("u__echo", a=1).json["result"]["params"]["arguments"] == {"a": 1}
    assert kept(tmp_path) == [("echo", "ok")]


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
@pytest.mark.key("watch")
@pytest.mark.rule("POL-7")
def test_sighup_takes_a_change_over_and_an_unwatched_file_is_left_alone(tmp_path: Path) -> None:
    with up(tmp_path, policy={"rules": [allow("u/*")]}, log_level="info") as running:
        assert running.call("u__echo").status == 200
        running.write(policy={"rules": [allow("u/*"), deny("u/echo")]})
        time.sleep(0.3)
        assert running.call("u__echo").error is None
        os.kill(running.process.pid, signal.SIGHUP)
        until(lambda: running.call("u__echo").error == -31403)
        assert "u__echo" not in running.tools()
        running.write(policy={"rules": [{"id": "x", "alow": ["*"]}]})
        os.kill(running.process.pid, signal.SIGHUP)
        until(lambda: "configuration" in running.page("/readyz")["problems"])
        assert "alow" in running.page("/readyz")["problems"]["configuration"]
        assert "the old one stays" in running.log
        assert running.call("u__echo").error == -31403
        for _ in range(20):
            os.kill(running.process.pid, signal.SIGHUP)
        running.write(policy={"rules": [allow("u/*")]})
        os.kill(running.process.pid, signal.SIGHUP)
        until(lambda: running.call("u__echo").error is None)
        until(lambda: not running.page("/readyz")["problems"])


@pytest.mark.key("watch")
@pytest.mark.rule("POL-7")
def test_a_watched_file_is_taken_over_when_it_changes(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(json.dumps({"version": 1, "rules": [allow("u/*")]}))
    with up(tmp_path, policy=str(policy), watch=True) as running:
        assert running.call("u__echo").error is None
        policy.write_text(json.dumps({"version": 1, "rules": [deny("u/echo"), allow("u/*")]}))
        until(lambda: running.call("u__echo").error == -31403)
        policy.write_text("version: 1\nrules: [")
        until(lambda: running.page("/readyz")["problems"])
        assert running.call("u__echo").error == -31403
        running.write(servers={})
        policy.write_text(json.dumps({"version": 1, "rules": []}))
        until(lambda: running.tools() == [])


@pytest.mark.key("log_level")
@pytest.mark.parametrize(("level", "told"), [("error", False), ("warning", True)])
def test_the_log_has_what_the_level_says(tmp_path: Path, level: str, told: bool) -> None:
    with up(tmp_path, log_level=level, servers={"gone": {"command": "/nowhere/at/all"}}) as running:
        assert ("gone" in running.log) == told


@pytest.mark.key("startup_wait")
@pytest.mark.parametrize(("wait", "seen"), [(0, False), (20, True)])
def test_it_waits_for_servers_before_it_says_that_it_is_ready(tmp_path: Path, wait: float, seen: bool) -> None:
    slow = tmp_path / "slow.py"
    run = f"sys.argv = [{SCRIPT!r}]\nrunpy.run_path({SCRIPT!r}, run_name='__main__')\n"
    slow.write_text(f"import runpy, sys, time\ntime.sleep(0.7)\n{run}")
    servers = {"u": {"command": sys.executable, "args": ["-S", str(slow)], "protocol": "legacy"}}
    with up(tmp_path, startup_wait=wait, servers=servers) as running:
        assert bool(running.tools()) == seen
        said = running.process.out.read_text()
        assert ("(1 of 1 server ready" in said) == seen
        assert ("starting: u" in said) != seen


@pytest.mark.key("audit.durability")
@pytest.mark.rule("AUD-1")
def test_strict_loses_nothing_to_a_kill_right_after_the_answer(tmp_path: Path) -> None:
    for number in range(3):
        with_ = tmp_path / str(number)
        with_.mkdir()
        policy = {"rules": [allow("u/echo")]}
        running = Up(with_, audit={"durability": "strict"}, policy=policy)
        names = ["u__echo", "u__hang", "u__nothing"]
        reply = None
        with Connection(("127.0.0.1", running.port)) as connection:
            for name in [*names, names[number]]:
                message = calling(name)
                connection.send(post(running.port, dump(message), routing(message)))
                reply = connection.reply()
            os.kill(running.process.pid, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
            assert reply is not None
        running.process.process.wait(10)
        expected = [("echo", "ok"), ("hang", "denied"), ("u__nothing", "refused")]
        assert kept(with_) == [*expected, expected[number]]


def test_terminate_lets_running_calls_finish(tmp_path: Path) -> None:
    with up(tmp_path) as running, Connection(("127.0.0.1", running.port)) as connection:
        message = calling("u__sleep", {"seconds": 0.5})
        connection.send(post(running.port, dump(message), routing(message)))
        until(lambda: b"calls_in_flight 1" in metrics(running))
        os.kill(running.process.pid, signal.SIGTERM)
        reply = connection.reply()
        assert reply is not None
        assert (reply.status, reply.headers.get("connection")) == (200, "close")
        assert running.process.process.wait(10) == 0
    assert kept(tmp_path) == [("sleep", "ok")]


def metrics(running: Up) -> bytes:
    admin = int(running.page("/healthz")["admin"].rpartition(":")[2])
    return ask(("127.0.0.1", admin), head("GET /metrics HTTP/1.1", [("Host", f"127.0.0.1:{admin}")])).body

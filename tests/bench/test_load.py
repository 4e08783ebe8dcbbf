"""The driver counts what happened: right and wrong answers, lost connections, and everything that was due."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import sleep

import pytest
from msgspec.structs import replace

from bench import loads
from bench.backend import Backend
from bench.driver import Driver, run
from bench.http_load import HttpLoad, open_sessions
from bench.plan import Job, Step
from bench.targets import Servers, direct
from bench.wire import Expected, message

OK = b'HTTP/1.1 200 OK\r\ncontent-length: 38\r\n\r\n{"jsonrpc":"2.0","id":1,"result":{} }\n'
BAD = b'HTTP/1.1 200 OK\r\ncontent-length: 38\r\n\r\n{"jsonrpc":"2.0","id":1,"error": {}}\n\n'
STEP = Step(b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n", Expected(1))


@contextmanager
def server(answer: Callable[[int], bytes | None]) -> Iterator[int]:
    """Answers request *n* with ``answer(n)``, one connection after the other; ``None`` closes the connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    number = 0

    def serve() -> None:
        nonlocal number
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                while connection.recv(4096):
                    reply = answer(number)
                    number += 1
                    if reply is None:
                        break
                    connection.sendall(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    running = Backend(servers=1, tools=1001)
    yield running
    running.stop()


def test_every_answer_is_counted_once() -> None:
    with server(lambda _: OK) as port:
        report = run(Job([[STEP]], port=port, count=50, warm_up=0, seconds=10))
    assert (report.answered, report.errors, report.latencies.total) == (50, 0, 50)
    assert report.sent == 50
    assert report.bytes_in == 50 * 38


def test_wrong_answers_are_errors_and_no_latencies() -> None:
    with server(lambda number: BAD if number % 5 == 4 else OK) as port:
        report = run(Job([[STEP]], port=port, count=50, warm_up=0, seconds=10))
    assert (report.answered, report.errors, report.latencies.total) == (40, 10, 40)
    assert "error" in report.reasons[0]


def test_a_wrong_answer_is_found_after_many_equal_right_ones() -> None:
    other = OK.replace(b'"id":1', b'"id":2')
    with server(lambda number: other if number == 30 else OK) as port:
        report = run(Job([[STEP]], port=port, count=31, warm_up=0, seconds=10))
    assert report.reasons == ["answer to 2 instead of 1"]


def test_a_lost_connection_is_an_error_and_the_load_goes_on() -> None:
    with server(lambda number: None if number in (3, 7) else OK) as port:
        report = run(Job([[STEP]], port=port, count=20, warm_up=0, seconds=10))
    assert (report.answered, report.errors) == (18, 2)
    assert report.reasons == ["the server closed the connection"] * 2


def test_no_answer_is_an_error() -> None:
    with server(lambda _: b"") as port:
        report = run(Job([[STEP]], port=port, seconds=0.05, warm_up=0, timeout=0.05))
    assert (report.answered, report.errors) == (0, 1)
    assert "no answer" in report.reasons[0]


def test_nobody_listening_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    report = run(Job([[STEP]], port=port))
    assert report.errors == 1
    assert "refused" in report.reasons[0].lower()


def test_the_open_loop_sends_what_is_due() -> None:
    with server(lambda _: OK) as port:
        report = run(Job([[STEP]], port=port, rate=500, seconds=0.2, warm_up=0))
    assert report.errors == 0
    assert report.answered == pytest.approx(100, abs=1)


def test_the_open_loop_charges_a_stall_to_everybody_who_had_to_wait() -> None:
    """One stall, and ten requests fall due while it lasts: a closed loop would see one slow answer, here are ten."""

    def answer(number: int) -> bytes:
        if number == 2:
            sleep(0.05)
        return OK

    with server(answer) as port:
        report = run(Job([[STEP]], port=port, rate=200, seconds=0.15, warm_up=0))
    assert report.answered == pytest.approx(30, abs=1)
    gap, stall = 5_000_000, 50_000_000
    charged = sum(stall - number * gap for number in range(10))
    assert report.latencies.sum >= charged * 0.9


def test_warm_up_is_sent_but_not_counted() -> None:
    with server(lambda _: OK) as port:
        report = run(Job([[STEP]], port=port, seconds=0.03, warm_up=0.03))
    assert report.sent > report.answered > 0


def test_at_least_so_many_are_waited_for() -> None:
    def slow(_number: int) -> bytes:
        sleep(0.01)
        return OK

    with server(slow) as port:
        report = run(Job([[STEP]], port=port, seconds=0.001, warm_up=0, at_least=3))
    assert report.answered >= 3


def test_the_server_received_what_was_sent(backend: Backend) -> None:
    target = direct(Servers({"bench": backend.ports[0]}))
    before = backend.counts(target.door.port)
    report = run(Job(loads.calls(target, 8).variants, port=target.door.port, connections=8, seconds=0.05, warm_up=0.01))
    assert report.errors == 0
    assert backend.counts(target.door.port) - before == report.sent


def test_a_megabyte_goes_both_ways(backend: Backend) -> None:
    target = direct(Servers({"bench": backend.ports[0]}))
    job = loads.calls(target, 2, size=1_000_000)
    report = run(Job(job.variants, port=target.door.port, connections=2, count=4, warm_up=0, seconds=10))
    assert report.errors == 0
    assert report.bytes_in / report.answered > 1_000_000


def test_lists_are_read_to_their_last_page(backend: Backend) -> None:
    target = direct(Servers({"bench": backend.ports[0]}))
    job = loads.lists(target, 1001)
    assert [step.expected.tools for step in job.variants[0]] == [1000, 1]
    assert run(Job(job.variants, port=job.port, count=2, warm_up=0, seconds=10)).errors == 0


def test_a_list_that_is_too_short_is_an_error(backend: Backend) -> None:
    target = direct(Servers({"bench": backend.ports[0]}))
    job = loads.lists(target, 2000)
    assert "1000 tools listed instead of 2000" in run(Job(job.variants, port=job.port, count=1, warm_up=0)).reasons


def test_a_hung_server_answers_nothing() -> None:
    backend = Backend()
    try:
        target = direct(Servers({"bench": backend.ports[0]}))
        backend.hang(backend.ports[0])
        job = Job(loads.calls(target, 1).variants, port=target.door.port, seconds=0.02, warm_up=0, timeout=0.05)
        report = run(job)
        assert (report.answered, report.errors) == (0, 1)
    finally:
        backend.stop()


def test_steps_pass_the_session_on() -> None:
    seen: list[bytes] = []
    hello = OK.replace(b"\r\n\r\n", b"\r\nmcp-session-id: s-1\r\n\r\n")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(4096):
                seen.append(data)
                connection.sendall(hello if len(seen) % 2 else b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")

    thread = threading.Thread(target=serve)
    thread.start()
    then = Step(b"POST / HTTP/1.1\r\nmcp-session-id: @SESSION@\r\n\r\n", Expected())
    try:
        assert open_sessions(Job([[STEP, then]], port=listener.getsockname()[1]), 2) == ["s-1", "s-1"]
    finally:
        thread.join()
        listener.close()
    assert seen[1] == b"POST / HTTP/1.1\r\nmcp-session-id: s-1\r\n\r\n"


def test_connections_take_variants_in_turn() -> None:
    job = Job([[Step(b"%d" % number, Expected(number))] for number in range(6)], connections=2)
    load = HttpLoad(job)
    with server(lambda _: b"") as port:
        load.job = Job(job.variants, port=port, connections=2)
        for turn in (0, 1):
            load.open(turn)
        order = []
        for line in load.lines * 3:
            load.begin(line, 0)
            order.append(line.steps[0].expected.number)
        load.close()
    assert order == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(("sessions", "connections"), [(1, 8), (5, 1), (100, 32)])
def test_an_id_is_never_in_use_twice_in_a_session(sessions: int, connections: int) -> None:
    names = [f"s-{number}" for number in range(sessions)]
    job = loads.session_calls(direct(Servers({"bench": 1})), names, connections)
    sent = [
        {id(job.variants[turn]) for turn in range(line, len(job.variants), connections)} for line in range(connections)
    ]
    assert sum(len(one) for one in sent) == len(set().union(*sent)) == len(job.variants)
    assert len({steps[0].expected.number for steps in job.variants}) == len(job.variants)
    assert all(any(f"mcp-session-id: {name}\r".encode() in one[0].data for one in job.variants) for name in names)


def test_the_stdio_loop_counts_too() -> None:
    data = [message("tools/call", {"name": "echo", "arguments": {"message": "hi"}}, n, "modern") for n in (1, 2, 3)]
    variants = [[Step(one, Expected(number, "hi"))] for number, one in enumerate(data, 1)]
    command = [sys.executable, "-m", "bench.upstream_stdio"]
    report = run(Job(variants, command=command, connections=3, count=60, seconds=20, warm_up=0))
    assert report.errors == 0
    assert report.answered >= 60
    assert report.latencies.total == report.answered


def test_a_program_that_ends_is_an_error() -> None:
    variants = [[Step(message("ping", {}, 1, "legacy"), Expected(1))]]
    report = run(Job(variants, command=[sys.executable, "-c", "input()"], seconds=5, warm_up=0))
    assert report.answered == 0
    assert report.reasons == ["the program closed its output"]


def test_the_driver_is_a_process_of_its_own(backend: Backend) -> None:
    target = direct(Servers({"bench": backend.ports[0]}))
    driver = Driver()
    try:
        for _ in range(2):
            report = driver.run(Job(loads.calls(target, 1).variants, port=target.door.port, count=5, warm_up=0))
            assert (report.answered, report.errors) == (5, 0)
    finally:
        driver.close()
    assert driver.process.returncode == 0


def test_the_cpu_time_of_others_is_taken_over_the_measured_part(backend: Backend) -> None:
    target = direct(Servers({"bench": backend.ports[0]}))
    job = replace(loads.calls(target, 8), count=5000, seconds=30, warm_up=0)
    assert run(job).cpu == 0
    assert run(replace(job, pids=backend.program.pids())).cpu > 0

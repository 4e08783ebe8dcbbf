from __future__ import annotations

import asyncio
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

import callgate.audit.journal as journal_module
from callgate.audit import Filters, Journal, describe, new_id, read_id, show_id
from callgate.audit.ids import first_id_at
from callgate.config.model import Audit
from callgate.errors import Overloaded
from callgate.store import Database, SqliteAudit, open_database
from callgate.types import Principal
from tests.audit.records import StubbornDisk, record, soon

FULL_DISK = sqlite3.OperationalError("database or disk is full")


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return open_database(tmp_path / "state")


@pytest.fixture
def disk(database: Database) -> Iterator[StubbornDisk]:
    store = StubbornDisk(database)
    yield store
    store.close()


def everything(disk: SqliteAudit) -> list[dict[str, Any]]:
    return [describe(row) for row in disk.find(Filters(limit=10_000))]


class Held:
    """Stops the writer in its next append until ``release``."""

    def __init__(self, disk: StubbornDisk) -> None:
        self.reached, self._go = threading.Event(), threading.Event()
        disk.hold = self

    def __call__(self) -> None:
        self.reached.set()
        assert self._go.wait(10)

    def release(self) -> None:
        self._go.set()


@pytest.mark.rule("AUD-2", "AUD-4")
def test_every_record_is_written_without_anybody_waiting(disk: StubbornDisk) -> None:
    async def story() -> None:
        journal = Journal(disk, Audit())
        for _ in range(700):  # before the writer even runs
            journal.put(record())
        assert journal.waiting == 700
        journal.start()
        soon(lambda: not journal.waiting)
        for _ in range(700):
            journal.put(record())
        await journal.aclose()
        assert (journal.waiting, journal.dropped, journal.error, journal.lag) == (0, 0, "", 0.0)

    asyncio.run(story())
    assert len(everything(disk)) == 1400


def test_a_sleeping_writer_wakes_for_a_record(disk: StubbornDisk) -> None:
    async def story() -> None:
        journal = Journal(disk, Audit())
        journal.start()
        for expected in (1, 2, 3):
            soon(lambda: journal._idle)
            journal.put(record())
            soon(lambda expected=expected: len(everything(disk)) == expected)  # type: ignore[misc]
        await journal.aclose()

    asyncio.run(story())


@pytest.mark.rule("AUD-1")
def test_a_durable_record_is_on_disk_when_the_caller_goes_on(disk: StubbornDisk) -> None:
    async def story() -> None:
        journal = Journal(disk, Audit(durability="strict"))
        journal.start()
        one = record()
        soon(lambda: journal._idle)
        await journal.put_durable(one)
        assert disk.get(one.id) is not None
        many = [record() for _ in range(100)]
        await asyncio.gather(*map(journal.put_durable, many))
        assert all(disk.get(each.id) for each in many)
        await journal.aclose()

    asyncio.run(story())


ANSWERS_THEN_WAITS = """
import asyncio, sys
from pathlib import Path
from callgate.audit import Journal, show_id
from callgate.config.model import Audit
from callgate.store import SqliteAudit, open_database
from tests.audit.records import record

async def main():
    journal = Journal(SqliteAudit(open_database(Path(sys.argv[1])), "FULL"), Audit(durability="strict"))
    journal.start()
    for _ in range(3):
        call = record()
        await journal.put_durable(call)
        print(show_id(call.id), flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.rule("AUD-1")
def test_kill_after_the_answer_the_record_is_there(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])}
    command = [sys.executable, "-c", ANSWERS_THEN_WAITS, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        answered = [process.stdout.readline() for _ in range(3)]
        process.kill()
        assert process.wait(10) in (-getattr(signal, "SIGKILL", 9), 1)
    store = SqliteAudit(open_database(tmp_path))
    assert [store.get(read_id(line)) is not None for line in answered] == [True, True, True]


@pytest.mark.rule("AUD-2", "AUD-3", "AUD-4")
def test_without_room_records_are_dropped_counted_and_noted(disk: StubbornDisk) -> None:
    acme = Principal("user:bob", "k2", tenant="acme")
    kept = [record() for _ in range(4)]
    lost = [record(), record(principal=acme), record()]

    async def story() -> None:
        held = Held(disk)
        journal = Journal(disk, Audit(queue=3))
        journal.start()
        journal.put(kept[0])
        held.reached.wait(10)  # the writer holds one, three may wait
        for each in kept[1:]:
            journal.put(each)
        assert journal.full
        assert journal.lag > 0
        for each in lost:
            journal.put(each)
        assert (journal.dropped, journal.waiting) == (3, 4)
        held.release()
        soon(lambda: not journal.full)
        await journal.aclose()

    asyncio.run(story())
    found = everything(disk)
    gaps = {row["tenant"]: row for row in found if row["outcome"] == "gap"}
    assert {row["id"] for row in found if row["outcome"] == "ok"} == {show_id(each.id) for each in kept}
    assert (gaps["default"]["dropped"], gaps["acme"]["dropped"]) == (2, 1)
    assert (gaps["default"]["id"], gaps["default"]["until"]) == (show_id(lost[0].id), show_id(lost[2].id))
    assert len(found) == 6


@pytest.mark.rule("AUD-3")
def test_without_room_a_durable_call_is_refused(disk: StubbornDisk) -> None:
    async def story() -> None:
        held = Held(disk)
        journal = Journal(disk, Audit(durability="strict", queue=1))
        journal.start()
        first = asyncio.ensure_future(journal.put_durable(record()))
        await asyncio.to_thread(held.reached.wait, 10)
        second = asyncio.ensure_future(journal.put_durable(record()))
        await asyncio.sleep(0)
        assert journal.full
        with pytest.raises(Overloaded, match="cannot take more records"):
            await journal.put_durable(record())
        held.release()
        await asyncio.gather(first, second)
        await journal.aclose()
        assert journal.dropped == 1

    asyncio.run(story())
    # The call may have been made before there was no room, so the log says that something is missing.
    assert sorted(row["outcome"] for row in everything(disk)) == ["gap", "ok", "ok"]


def test_few_large_messages_fill_the_queue_too(disk: StubbornDisk) -> None:
    async def story() -> None:
        journal = Journal(disk, Audit())
        while not journal.full:
            journal.put(record(bytes_in=4 * 1024 * 1024))
        assert journal.waiting == 9
        journal.start()
        soon(lambda: not journal.full)
        await journal.aclose()

    asyncio.run(story())


@pytest.mark.rule("AUD-3")
@pytest.mark.parametrize("durability", ["strict", "normal"])
def test_a_failing_disk_loses_nothing_and_is_reported(
    disk: StubbornDisk, caplog: pytest.LogCaptureFixture, durability: Literal["strict", "normal"]
) -> None:
    async def story() -> None:
        disk.says = FULL_DISK
        journal = Journal(disk, Audit(durability=durability))
        journal.start()
        journal.put(record())
        soon(lambda: journal.error == "database or disk is full" and journal.lag > 0)
        assert journal.full == (durability == "strict")  # a strict call is refused before it is made
        disk.says = None
        soon(lambda: journal.error == "" and not journal.waiting)
        assert not journal.full
        await journal.aclose()

    with caplog.at_level(logging.INFO, "callgate.audit"):
        asyncio.run(story())
    assert len(everything(disk)) == 1
    assert caplog.messages == [
        "audit records cannot be written: database or disk is full",
        "audit records are written again",
    ]


@pytest.mark.rule("AUD-3")
def test_a_durable_caller_does_not_wait_for_ever(disk: StubbornDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "DURABLE_DEADLINE", 0.02)
    call = record()

    async def story() -> None:
        disk.says = sqlite3.OperationalError("")
        journal = Journal(disk, Audit(durability="strict"))
        journal.start()
        with pytest.raises(Overloaded, match="could not be written in time") as caught:
            await journal.put_durable(call)
        assert caught.value.hint in ("OperationalError", "")
        disk.says = None
        await journal.aclose()

    asyncio.run(story())
    assert disk.get(call.id) is not None  # kept, and written once it was possible


def test_a_record_that_comes_while_the_writer_lies_down_is_seen(disk: StubbornDisk) -> None:
    journal = Journal(disk, Audit())
    journal.put(record())  # after the writer found the queue empty, before it says that it sleeps
    writer = threading.Thread(target=journal._sleep, daemon=True)
    writer.start()
    writer.join(10)
    assert not writer.is_alive()


def test_a_caller_who_gives_up_leaves_its_record(disk: StubbornDisk) -> None:
    call = record()

    async def story() -> None:
        held = Held(disk)
        journal = Journal(disk, Audit(durability="strict"))
        journal.start()
        waiting = asyncio.ensure_future(journal.put_durable(call))
        await asyncio.to_thread(held.reached.wait, 10)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        held.release()
        await journal.aclose()

    asyncio.run(story())
    assert disk.get(call.id) is not None


def test_a_loop_that_is_gone_is_not_told(disk: StubbornDisk) -> None:
    held, journal = Held(disk), Journal(disk, Audit(durability="strict"))
    call = record()

    async def leave() -> None:
        journal.start()
        waiting = asyncio.ensure_future(journal.put_durable(call))
        await asyncio.to_thread(held.reached.wait, 10)
        waiting.cancel()

    asyncio.run(leave())
    held.release()
    soon(lambda: not journal.waiting)
    asyncio.run(journal.aclose())
    assert disk.get(call.id) is not None
    assert journal.error == ""


def test_what_is_put_just_before_closing_is_written(disk: StubbornDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(disk)
    disk.hold = None
    monkeypatch.setattr(disk, "prune", lambda *_: held())

    async def story() -> None:
        journal = Journal(disk, Audit(retention_days=1))
        journal.start()
        await asyncio.to_thread(held.reached.wait, 10)  # the writer saw an empty queue, and is busy pruning
        journal.put(record())
        closing = asyncio.ensure_future(journal.aclose())
        await asyncio.sleep(0)
        held.release()
        await closing

    asyncio.run(story())
    assert len(everything(disk)) == 1


def test_closing_gives_up_at_its_deadline_and_says_so(disk: StubbornDisk, caplog: pytest.LogCaptureFixture) -> None:
    disk.says = FULL_DISK

    async def story() -> None:
        journal = Journal(disk, Audit())
        journal.start()
        journal.put(record())
        soon(lambda: journal.error != "")
        await journal.aclose(deadline=0.01)
        assert not journal._thread.is_alive()

    asyncio.run(story())
    assert caplog.messages[-1] == "1 audit records could not be written: database or disk is full"


def test_closing_a_journal_that_never_ran(disk: StubbornDisk, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(disk, Audit())
    journal.put(record())
    asyncio.run(journal.aclose())
    assert caplog.messages[-1] == "1 audit records could not be written: the writer is stuck"


def test_a_closed_journal_takes_nothing(disk: StubbornDisk) -> None:
    async def story() -> None:
        journal = Journal(disk, Audit(durability="strict"))
        journal.start()
        await journal.aclose()
        assert journal.full
        journal.put(record())
        assert journal.dropped == 1
        with pytest.raises(Overloaded):
            await journal.put_durable(record())

    asyncio.run(story())


@pytest.mark.rule("AUD-3")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_writer_is_reported(disk: StubbornDisk) -> None:
    async def story() -> None:
        disk.says = SystemExit()  # anything that is not an Exception
        journal = Journal(disk, Audit(durability="strict"))
        journal.start()
        journal.put(record())
        soon(lambda: journal.full)
        assert journal.error == "the audit writer has died"
        await journal.aclose()

    asyncio.run(story())


def test_a_record_that_is_in_the_log_already_is_said(disk: StubbornDisk, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        journal = Journal(disk, Audit())
        journal.start()
        call = record()
        journal.put(call)
        journal.put(call)
        await journal.aclose()

    asyncio.run(story())
    assert len(everything(disk)) == 1
    assert caplog.messages == ["1 audit records were in the log already"]


@pytest.mark.rule("AUD-13")
@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        (Audit(), {"password": "[redacted]", "path": "x" * 50}),
        (Audit(arguments="full"), {"password": "hunter2", "path": "x" * 50}),
        (Audit(arguments="digest"), None),
        (Audit(max_arguments=20), '{"password":"[redact… [cut: 85 bytes]'),
    ],
    ids=["redacted", "full", "digest", "cut"],
)
def test_settings_say_what_is_kept(disk: StubbornDisk, settings: Audit, kept: object) -> None:
    async def story() -> None:
        journal = Journal(disk, settings)
        journal.start()
        journal.put(record(arguments={"password": "hunter2", "path": "x" * 50}))
        await journal.aclose()

    asyncio.run(story())
    (row,) = everything(disk)
    assert row.get("args") == kept
    assert len(row["args_sha256"]) == 64


@pytest.mark.key("audit.retention_days")
def test_old_records_are_deleted_in_small_steps(disk: StubbornDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "PRUNE_CHUNK", 10)
    monkeypatch.setattr(journal_module, "PRUNE_PAUSE", 0.0)
    old = first_id_at(time.time() - 8 * 86400)
    young = new_id()

    async def story() -> None:
        journal = Journal(disk, Audit())  # without `retention_days` nothing is deleted
        journal.start()
        for number in range(35):
            journal.put(record(id=old + number))
        journal.put(record(id=young))
        await journal.aclose()
        assert len(everything(disk)) == 36
        journal = Journal(disk, Audit(retention_days=7))
        journal.start()
        soon(lambda: len(everything(disk)) == 1)
        await journal.aclose()

    asyncio.run(story())
    assert everything(disk)[0]["id"] == show_id(young)


def test_failing_housekeeping_does_not_stop_the_log(
    disk: StubbornDisk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def locked(*_: object) -> None:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(disk, "prune", locked)
    monkeypatch.setattr(disk, "settle", locked)

    async def story() -> None:
        journal = Journal(disk, Audit(retention_days=1))
        journal.start()
        journal.put(record())
        await journal.aclose()
        assert journal.error == ""

    asyncio.run(story())
    assert len(everything(disk)) == 1
    assert caplog.messages == ["audit housekeeping failed: database is locked"] * 2

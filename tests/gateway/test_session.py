"""Legacy sessions: sealed, bound to principal and door, bounded, and gone when they are over."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest

from callgate.config import Limits
from callgate.errors import ProtocolError
from callgate.gateway.ended import Ended
from callgate.gateway.replay import STREAM_BUFFER
from callgate.gateway.session import Session, Sessions
from callgate.types import Principal

ALICE = Principal("alice", "key-of-alice")
MALLORY = Principal("mallory", "key-of-mallory")
KEY = b"k" * 32


def sessions(**limits: float) -> Sessions:
    return Sessions(lambda: KEY, Limits(**limits))  # type: ignore[arg-type]


def found(table: Sessions, session: Session, who: Principal = ALICE, door: str = "") -> Session:
    return table.find(session.id.encode(), who, door)


def test_a_session_is_found_by_its_own_principal_at_its_own_door() -> None:
    table = sessions()
    session = table.open(ALICE, "", "2025-11-25", {"roots": {}})
    assert found(table, session) is session
    assert session.front.capabilities == {"roots": {}}


def test_another_principal_with_a_stolen_id_gets_the_answer_of_an_unknown_one() -> None:
    table = sessions()
    session = table.open(ALICE, "", "2025-11-25", {})
    for who, door in ((MALLORY, ""), (ALICE, "server:x")):
        with pytest.raises(ProtocolError) as caught:
            found(table, session, who, door)
        assert caught.value.http_status == 404
    assert found(table, session) is session  # and the session is not disturbed


def test_an_id_with_any_byte_changed_opens_nothing_after_a_restart() -> None:
    id = sessions().open(ALICE, "", "2025-11-25", {}).id
    raw = base64.urlsafe_b64decode(id + "==")
    after = sessions()
    for index in range(0, len(raw), 7):
        forged = raw[:index] + bytes([raw[index] ^ 1]) + raw[index + 1 :]
        with pytest.raises(ProtocolError):
            after.find(base64.urlsafe_b64encode(forged).rstrip(b"="), ALICE, "")
    for nonsense in (b"", b"x", b"\xff" * 60, b"A" * 5000):
        with pytest.raises(ProtocolError):
            after.find(nonsense, ALICE, "")


def test_a_session_outlives_a_restart_with_what_it_carries() -> None:
    before = sessions().open(ALICE, "virtual:v", "2025-06-18", {"sampling": {}})
    after = sessions().find(before.id.encode(), ALICE, "virtual:v")
    assert (after.version, after.front.capabilities) == ("2025-06-18", {"sampling": {}})


def test_an_ended_session_stays_ended() -> None:
    table = sessions()
    session = table.open(ALICE, "", "2025-11-25", {})
    table.end(session)
    with pytest.raises(ProtocolError):
        found(table, session)
    assert len(table) == 0


def test_the_least_recently_used_session_ends_when_a_principal_has_too_many() -> None:
    table = sessions(max_sessions=2)
    one, two = (table.open(ALICE, "", "2025-11-25", {}) for _ in range(2))
    others = table.open(MALLORY, "", "2025-11-25", {})
    found(table, one)
    table.open(ALICE, "", "2025-11-25", {})
    assert found(table, one) is one
    with pytest.raises(ProtocolError):
        found(table, two)
    assert found(table, others, MALLORY) is others


def test_an_idle_session_expires() -> None:
    table = sessions(session_ttl=60)
    session = table.open(ALICE, "", "2025-11-25", {})
    session.used -= 61
    table.sweep()
    with pytest.raises(ProtocolError):
        found(table, session)


def test_capabilities_of_any_size_leave_the_id_short_enough_for_a_header() -> None:
    session = sessions().open(ALICE, "", "2025-11-25", {"sampling": {}, "x": "y" * 100_000})
    assert len(session.id) < 1024
    assert session.front.capabilities == {"sampling": {}}


def test_an_ended_session_of_an_earlier_process_stays_ended_however_its_id_is_written() -> None:
    id = sessions().open(ALICE, "", "2025-11-25", {"x": 1}).id
    after = sessions()
    after.end(after.find(id.encode(), ALICE, ""))
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for other in (id, *(id[:-1] + last for last in alphabet), id + "=", id + "!", " " + id):
        with pytest.raises(ProtocolError):
            after.find(other.encode(), ALICE, "")


def test_what_has_ended_is_written_down_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callgate.gateway.ended.MOST", 3)
    file, now = tmp_path / "ended", int(time.time())
    ended = Ended(file, ttl=100)
    for number in range(20):
        ended.add(bytes([number]) * 12, now - (200 if number == 19 else 0))
    with file.open("a") as more:
        more.write("nonsense\n0102 x\n01020")  # a process that was killed while it wrote
    after = Ended(file, ttl=100)
    found = [number for number in range(20) if bytes([number]) * 12 in after]
    assert found == [16, 17, 18]  # 19 could not be opened again anyhow
    assert sum(each.stat().st_size for each in tmp_path.iterdir()) < 500


def test_a_disk_that_fails_ends_no_session(tmp_path: Path) -> None:
    ended = Ended(tmp_path / "no" / "such" / "folder")
    ended.add(b"n" * 12, 0)
    assert b"n" * 12 in ended


def test_a_message_goes_out_on_one_stream_of_a_session() -> None:
    session = sessions().open(ALICE, "", "2025-11-25", {})
    older, newer = session.listen(), session.listen()
    for number in range(STREAM_BUFFER + 1):
        assert session.push(b"%d" % number)
    said = [event[1] for _ in range(newer.qsize()) if (event := newer.get_nowait()) is not None]
    assert (older.qsize(), said[0], said[-1]) == (0, b"1", b"%d" % STREAM_BUFFER)  # a slow reader loses the oldest

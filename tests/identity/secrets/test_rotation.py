"""A rotation of the key seals everything anew, secrets and what is held, whoever uses it meanwhile."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import msgspec
import pytest

from callgate.config import load
from callgate.errors import ConfigError, UsageError
from callgate.identity import Held, Secrets, SecretStore
from callgate.identity.secrets import Keys
from callgate.store import Database, HeldRow, SqliteHeld, SqliteSecrets, open_database
from tests.processes import environment

pytestmark = pytest.mark.anyio

LATER = 4e9


class Thing(msgspec.Struct, frozen=True):
    word: str


class Place:
    """A data directory with secrets and things that are held."""

    def __init__(self, folder: Path, given: str = "") -> None:
        self.folder = folder
        self.database: Database = open_database(folder)
        self.keys = Keys(folder / "secrets.key", given)
        self.rows = SqliteHeld(self.database)
        self.store = SecretStore(SqliteSecrets(self.database), self.keys, self.rows)
        self.things = Held("thing", Thing, self.rows, self.keys)

    def sql(self, statement: str, *values: object) -> None:
        with contextlib.closing(self.database.writer()) as connection:
            connection.execute(statement, values)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "state")


def a_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


async def test_what_is_held_is_sealed_anew_and_the_old_key_forgotten(place: Place) -> None:
    place.store.set("docs", "value")
    await place.things.put("n", Thing("a"), "alice", LATER)
    old = place.keys.read()
    assert place.store.rotate() == 1
    assert await place.things.get("n") == Thing("a") and await place.things.of("alice") == [Thing("a")]
    assert place.rows.key_ids() == {place.keys.read()[0].id}
    assert len(place.keys.read()) == 1 and place.keys.read() != old


async def test_a_rotation_without_any_secret_seals_what_is_held(place: Place) -> None:
    await place.things.put("n", Thing("a"), "alice", LATER)
    old = place.keys.read()
    assert place.store.rotate() == 0
    assert await place.things.take("n") == Thing("a")
    assert len(place.keys.read()) == 1 and place.keys.read() != old


STEPS = ["the secrets are sealed", "all is sealed", "in the middle of what is held"]


@pytest.mark.parametrize("step", STEPS)
async def test_a_rotation_that_dies_in_between_loses_nothing(
    place: Place, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.store.set("docs", "value")
    await place.things.put("n", Thing("a"), "alice", LATER)
    await place.things.put("m", Thing("b"), "alice", LATER)

    def die(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if step == STEPS[0]:
            patch.setattr(SqliteHeld, "reseal", die)
        elif step == STEPS[1]:
            patch.setattr(SecretStore, "_forget_old", die)
        else:
            whole, seen = SecretStore._held_again, [1]

            def second(store: SecretStore, row: HeldRow) -> HeldRow | None:
                return whole(store, row) if seen and seen.pop() else die()

            patch.setattr(SecretStore, "_held_again", second)
        with pytest.raises(KeyboardInterrupt):
            place.store.rotate()
    again = Place(place.folder)
    assert again.store.get("docs") is not None
    assert await again.things.get("n") == Thing("a") and await again.things.get("m") == Thing("b")
    assert len(again.keys.read()) == 2
    assert again.store.rotate() == 1
    assert await again.things.take("n") == Thing("a") and await again.things.take("m") == Thing("b")
    assert len(again.keys.read()) == 1


async def test_a_rotation_between_the_two_looks_of_a_reader(place: Place) -> None:
    """The row is found, then everything is sealed anew and its key forgotten, then the keys are read."""
    await place.things.put("n", Thing("a"), "alice", LATER)
    find, left = place.rows.find, [1]

    def rotating(kind: str, id: str) -> object:
        found = find(kind, id)
        if left and left.pop():
            place.store.rotate()
        return found

    place.rows.find = rotating  # type: ignore[method-assign,assignment]
    assert await place.things.get("n") == Thing("a")


async def test_what_was_changed_in_the_database_does_not_hold_a_rotation_up(place: Place) -> None:
    await place.things.put("n", Thing("a"), "alice", LATER)
    await place.things.put("m", Thing("b"), "mallory", LATER)
    place.sql("UPDATE held SET owner = 'alice' WHERE owner = 'mallory'")
    place.store.rotate()
    assert await place.things.get("n") == Thing("a") and await place.things.get("m") is None
    assert len(place.keys.read()) == 1


async def test_an_end_that_was_put_off_in_the_database_does_not_open(place: Place) -> None:
    await place.things.put("n", Thing("a"), "alice", time.time() + 1000)
    place.sql("UPDATE held SET expires_at = expires_at + 1000000")
    with pytest.raises(ConfigError, match="changed in the database"):
        await place.things.get("n")


async def test_what_needs_a_key_that_is_gone_stays_until_the_key_is_back(place: Place) -> None:
    await place.things.put("n", Thing("a"), "alice", LATER)
    (old,) = place.keys.read()
    place.sql("INSERT INTO held SELECT tenant, kind, 'x', owner, 'gone', sealed, expires_at FROM held")
    place.store.rotate()
    assert "gone" in place.rows.key_ids() and old.id not in place.rows.key_ids()
    assert await place.things.get("n") == Thing("a")


async def test_no_second_first_key_while_something_is_sealed(place: Place) -> None:
    place.store.set("docs", "value")
    key = place.keys.file.read_text()
    place.keys.file.unlink()
    with pytest.raises(ConfigError, match="their key is not at"):
        await place.things.put("n", Thing("a"), "alice", LATER)
    assert not place.keys.file.exists()
    place.keys.file.write_text(key)
    place.keys.file.chmod(0o600)
    await place.things.put("n", Thing("a"), "alice", LATER)
    place.store.remove("docs")
    place.keys.file.unlink()
    for act in (lambda: place.store.set("docs", "value"), place.store.rotate):
        with pytest.raises(ConfigError, match="their key is not at"):
            act()
    assert not place.keys.file.exists()


async def test_keys_of_the_environment(tmp_path: Path) -> None:
    one, two = a_key(), a_key()
    place = Place(tmp_path, given=one)
    await place.things.put("n", Thing("a"), "alice", LATER)
    with pytest.raises(UsageError, match="already"):
        place.store.rotate()
    moved = Place(tmp_path, given=f"{two},{one}")
    assert moved.store.rotate() == 0
    assert await Place(tmp_path, given=two).things.get("n") == Thing("a")
    assert not place.keys.file.exists()


CROWD = """
import asyncio, sys
from pathlib import Path
from tests.identity.secrets.test_rotation import LATER, Place, Thing
who, place = sys.argv[2], Place(Path(sys.argv[1]))
sys.stdin.read()
async def work():
    for number in range(12):
        name = f"{who} {number}"
        await place.things.put(name, Thing(name), who, LATER)
        assert await place.things.get(name) == Thing(name)
        assert len(await place.things.of(who)) == 1
        assert await place.things.take(name) == Thing(name)
        assert await place.things.take(name) is None
        await place.things.change("shared", lambda it: Thing(it.word + "x"))
        if who == "a" or number % 4 == 0:
            await asyncio.to_thread(place.store.rotate)
asyncio.run(work())
"""


def crowded(folder: Path) -> list[int]:
    crowd = [
        subprocess.Popen([sys.executable, "-c", CROWD, str(folder), who], env=environment(), stdin=subprocess.PIPE)
        for who in ("a", "b", "c")
    ]
    for each in crowd:
        each.communicate(timeout=60)
    return [each.returncode for each in crowd]


@pytest.mark.slow
async def test_processes_that_rotate_while_others_put_and_take_lose_nothing(place: Place) -> None:
    await place.things.put("shared", Thing(""), "all", LATER)
    assert await asyncio.to_thread(crowded, place.folder) == [0, 0, 0]
    assert await place.things.get("shared") == Thing("x" * 36)
    place.store.rotate()
    assert len(place.keys.read()) == 1 and len(place.rows.key_ids()) == 1


async def test_threads_of_one_gateway_and_a_rotation(place: Place) -> None:
    names = [f"n{number}" for number in range(8)]
    await asyncio.gather(*(place.things.put(name, Thing(name), "alice", LATER) for name in names))
    taken = await asyncio.gather(
        *(place.things.take(name) for name in names * 2), *(asyncio.to_thread(place.store.rotate) for _ in range(3))
    )
    assert sorted(each.word for each in taken if isinstance(each, Thing)) == names


async def test_what_has_expired_is_swept_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(None, env={"XDG_DATA_HOME": str(tmp_path)}, cwd=tmp_path, system=tmp_path / "none")
    found = Secrets(loaded, open_database(loaded.data_dir), env={})
    things = found.hold("thing", Thing)
    swept: list[float] = []
    sweep = SqliteHeld.sweep

    def counted(rows: SqliteHeld, now: float) -> int:
        swept.append(now)
        return sweep(rows, now)

    monkeypatch.setattr(SqliteHeld, "sweep", counted)
    await things.put("old", Thing("a"), "alice", time.time() - 1)
    await things.put("new", Thing("b"), "alice", LATER)
    await found.sweep()
    await found.sweep()
    assert len(swept) == 1
    with contextlib.closing(open_database(loaded.data_dir).reader()) as connection:
        assert connection.execute("SELECT count(*) FROM held").fetchone() == (1,)
    assert await things.get("new") == Thing("b")
    await found.aclose()

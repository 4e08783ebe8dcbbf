"""What is held for somebody: sealed, taken once, gone when it expires or its owner goes."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import msgspec
import pytest

from callgate.errors import ConfigError
from callgate.identity.secrets import Keys
from callgate.identity.secrets.held import Held
from callgate.store import SqliteHeld, open_database

pytestmark = pytest.mark.anyio


class Thing(msgspec.Struct, frozen=True):
    word: str


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def held(folder: Path, clock: Clock, kind: str = "thing") -> Held[Thing]:
    return Held(kind, Thing, SqliteHeld(open_database(folder)), Keys(folder / "secrets.key"), clock)


async def test_a_thing_is_found_by_its_name_until_it_expires(tmp_path: Path) -> None:
    clock = Clock()
    things = held(tmp_path, clock)
    await things.put("n", Thing("a"), "alice", 1010.0)
    assert await things.get("n") == Thing("a")
    assert await things.of("alice") == [Thing("a")] and await things.of("bob") == []
    clock.now = 1010.0
    assert await things.get("n") is None and await things.take("n") is None


async def test_of_many_takers_one_gets_it(tmp_path: Path) -> None:
    one, two = held(tmp_path, Clock()), held(tmp_path, Clock())
    await one.put("code", Thing("a"), "alice", 2000.0)
    got = await asyncio.gather(*(each.take("code") for each in (one, two) * 4))
    assert got.count(Thing("a")) == 1 and got.count(None) == 7


async def test_what_is_changed_at_once_is_changed_in_turn(tmp_path: Path) -> None:
    things = held(tmp_path, Clock())
    await things.put("n", Thing(""), "alice", 2000.0)
    await asyncio.gather(*(things.change("n", lambda it: Thing(it.word + "x")) for _ in range(6)))
    assert await things.get("n") == Thing("x" * 6)
    assert await things.change("n", lambda it: None) == Thing("x" * 6)
    assert await things.change("n", lambda it: it) is None


async def test_an_owner_takes_everything_of_a_kind_along(tmp_path: Path) -> None:
    things, others = held(tmp_path, Clock()), held(tmp_path, Clock(), "other")
    for store in (things, others):
        await store.put("n", Thing("a"), "alice", 2000.0)
    assert await things.drop_owner("alice") == 1
    assert await things.get("n") is None and await others.get("n") == Thing("a")


async def test_the_database_shows_neither_names_nor_content_and_a_moved_row_does_not_open(tmp_path: Path) -> None:
    things = held(tmp_path, Clock())
    await things.put("the-name", Thing("the-content"), "alice", 2000.0)
    await things.put("of-mallory", Thing("else"), "mallory", 2000.0)
    for file in sorted(await asyncio.to_thread(tmp_path.glob, "callgate.db*")):
        assert b"the-name" not in file.read_bytes() and b"the-content" not in file.read_bytes()
    with contextlib.closing(open_database(tmp_path).writer()) as connection:
        connection.execute(
            "UPDATE held SET sealed = (SELECT sealed FROM held WHERE owner = 'alice') WHERE owner = 'mallory'"
        )
    with pytest.raises(ConfigError, match="stands at another's place"):
        await things.get("of-mallory")


async def test_a_row_whose_key_is_gone_says_so(tmp_path: Path) -> None:
    things = held(tmp_path, Clock())
    await things.put("n", Thing("a"), "alice", 2000.0)
    (tmp_path / "secrets.key").unlink()
    with pytest.raises(ConfigError, match="a key that is gone"):
        await things.get("n")

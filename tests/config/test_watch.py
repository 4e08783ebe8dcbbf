"""Changed files are noticed: written, replaced, linked, with and without help from the system."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from callgate.config import changes

Act = Callable[[Path], object]


def replace(path: Path) -> None:
    """As editors do."""
    fresh = path.with_name("fresh.tmp")
    fresh.write_text("three: 3\n")
    fresh.replace(path)


class Watched:
    """The files to watch, and a signal that the first look at them has been taken."""

    def __init__(self, *paths: Path) -> None:
        self.paths = list(paths)
        self.asked = 0
        self.looked = asyncio.Event()

    def __call__(self) -> list[Path]:
        self.asked += 1
        if self.asked == 2:  # once for the first look, then for the folders
            self.looked.set()
        return self.paths


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callgate.config.watch.POLL", 0.1)
    monkeypatch.setattr("callgate.config.watch.SETTLE", 0.01)


async def noticed(path: Path, act: Act) -> None:
    watched = Watched(path)
    async with aclosing(changes(watched)) as rounds:
        waiting = asyncio.ensure_future(anext(rounds))
        await asyncio.wait_for(watched.looked.wait(), 10)
        assert not waiting.done()
        act(path)
        await asyncio.wait_for(waiting, 10)


@pytest.mark.parametrize(
    "act",
    [lambda path: path.write_text("two: 22\n"), replace, lambda path: path.unlink()],
    ids=["written", "replaced", "removed"],
)
def test_a_change_is_noticed(tmp_path: Path, act: Act) -> None:
    path = tmp_path / "callgate.yaml"
    path.write_text("one: 1\n")
    asyncio.run(noticed(path, act))


def test_a_file_that_appears(tmp_path: Path) -> None:
    asyncio.run(noticed(tmp_path / "callgate.yaml", lambda path: path.write_text("new")))


def test_a_folder_that_appears(tmp_path: Path) -> None:
    def act(path: Path) -> None:
        path.parent.mkdir()
        path.write_text("new")

    asyncio.run(noticed(tmp_path / "later" / "policy.yaml", act))


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_a_link_that_is_switched(tmp_path: Path) -> None:
    """As Kubernetes replaces a mounted ConfigMap: the file named stays, a folder on the way is another."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "policy.yaml").write_text(name)
    (tmp_path / "data").symlink_to("one")

    def act(_: Path) -> None:
        (tmp_path / "fresh").symlink_to("two")
        (tmp_path / "fresh").rename(tmp_path / "data")

    asyncio.run(noticed(tmp_path / "data" / "policy.yaml", act))


def test_without_watchfiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    path = tmp_path / "callgate.yaml"
    path.write_text("one: 1\n")
    asyncio.run(noticed(path, lambda path: path.write_text("two: 22\n")))


def test_files_that_are_asked_for_later_are_watched_too(tmp_path: Path) -> None:
    async def story() -> None:
        config, policy = tmp_path / "callgate.yaml", tmp_path / "elsewhere" / "policy.yaml"
        policy.parent.mkdir()
        watched = Watched(config)
        async with aclosing(changes(watched)) as rounds:
            waiting = asyncio.ensure_future(anext(rounds))
            await asyncio.wait_for(watched.looked.wait(), 10)
            watched.paths.append(policy)
            config.write_text("policy: policy.yaml")
            await asyncio.wait_for(waiting, 10)
            waiting = asyncio.ensure_future(anext(rounds))
            policy.write_text("version: 1")
            await asyncio.wait_for(waiting, 10)

    asyncio.run(story())


def test_what_changes_between_rounds_is_not_lost(tmp_path: Path) -> None:
    async def story() -> None:
        path = tmp_path / "callgate.yaml"
        watched = Watched(path)
        async with aclosing(changes(watched)) as rounds:
            waiting = asyncio.ensure_future(anext(rounds))
            await asyncio.wait_for(watched.looked.wait(), 10)
            path.write_text("1")
            await asyncio.wait_for(waiting, 10)
            path.write_text("22")  # nobody is waiting
            await asyncio.wait_for(anext(rounds), 10)

    asyncio.run(story())


def test_it_can_be_cancelled_at_any_time(tmp_path: Path) -> None:
    async def watch() -> None:
        async for _ in changes(lambda: [tmp_path / "callgate.yaml"]):
            pass

    async def story() -> None:
        for delay in (0, 0.001, 0.03):
            task = asyncio.create_task(watch())
            await asyncio.sleep(delay)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 5)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(story())

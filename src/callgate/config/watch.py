"""Notice changed files: by the operating system where it tells, by looking each second where it does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from pathlib import Path

POLL = 1.0
SETTLE = 0.1

Stamp = tuple[tuple[str, int, int, int], ...]


async def changes(paths: Callable[[], Iterable[Path]]) -> AsyncGenerator[None, None]:
    """Yield once for each burst of changes to the files named by ``paths``, which is asked anew each round.

    Files may appear, vanish, be renamed over or be reached through links. Folders are watched instead of files,
    because editors replace files; what counts is the state of the files, so no event can be lost between rounds.
    Never ends by itself: cancel the task, or close the iterator.
    """
    seen = await _stamp(paths)
    async with aclosing(_wakes(paths)) as wakes:
        async for _ in wakes:
            now = await _stamp(paths)
            if now == seen:
                continue
            seen = await _settled(paths, now)
            yield


async def _settled(paths: Callable[[], Iterable[Path]], now: Stamp) -> Stamp:
    """Wait until the files stand still, for at most a second: an editor may write in several steps."""
    for _ in range(int(POLL / SETTLE)):
        await asyncio.sleep(SETTLE)
        before, now = now, await _stamp(paths)
        if before == now:
            break
    return now


async def _stamp(paths: Callable[[], Iterable[Path]]) -> Stamp:
    wanted = sorted(set(paths()))
    return await asyncio.to_thread(lambda: tuple(_state(path) for path in wanted))  # a network folder may be slow


def _state(path: Path) -> tuple[str, int, int, int]:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return str(path), 0, -1, 0
    return str(path), found.st_mtime_ns, found.st_size, found.st_ino


async def _wakes(paths: Callable[[], Iterable[Path]]) -> AsyncGenerator[None, None]:
    """Yield when something may have changed, and at least each second (links and network folders tell nothing)."""
    while True:
        folders = _folders(paths)
        try:
            async with aclosing(_told(folders)) as told:
                async for _ in told:
                    yield
                    if _folders(paths) != folders:
                        break
        except (ImportError, OSError, RuntimeError):  # not installed, out of watches, folder gone
            await asyncio.sleep(POLL)
            yield


def _folders(paths: Callable[[], Iterable[Path]]) -> tuple[Path, ...]:
    return tuple(sorted({path.parent for path in paths()}))


async def _told(folders: tuple[Path, ...]) -> AsyncGenerator[None, None]:
    from watchfiles import awatch  # 20 ms, and only a running gateway needs it

    existing = [folder for folder in folders if folder.is_dir()]
    if not existing:
        raise FileNotFoundError
    timeout = int(POLL * 1000)
    async for _ in awatch(
        *existing,
        recursive=False,
        watch_filter=None,
        debounce=100,
        step=50,
        rust_timeout=timeout,
        yield_on_timeout=True,
    ):
        yield

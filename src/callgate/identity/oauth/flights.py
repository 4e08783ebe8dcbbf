"""Fetches of what strangers name, on their way: one for each URL, and only so many at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")
AT_ONCE = 8


class Flights(Generic[T]):
    """Owns the tasks. ``what`` is the name that they have."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._tasks: dict[str, asyncio.Task[T]] = {}

    async def join(self, url: str, fetch: Callable[[str], Coroutine[Any, Any, T]]) -> T | None:
        """What ``fetch`` brings, of a fetch that is under way already if there is one; ``None`` where there are too
        many others.
        """
        task = self._tasks.get(url)
        if task is None:
            if len(self._tasks) >= AT_ONCE:
                return None
            task = self._tasks[url] = asyncio.create_task(fetch(url), name=self._what)
            task.add_done_callback(lambda _: self._tasks.pop(url, None))
        # One caller that gives up must not cancel the fetch of all the others.
        return await asyncio.shield(task)

    async def aclose(self) -> None:
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

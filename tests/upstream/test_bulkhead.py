from __future__ import annotations

import asyncio

import pytest

from callgate.upstream.bulkhead import Bulkhead

pytestmark = pytest.mark.anyio


async def test_places_that_were_taken_back_are_not_passed_on() -> None:
    floor = Bulkhead(1, 4)
    floor.running = 2  # one runs, one has taken its place back after a question
    waiting = asyncio.create_task(floor.wait(asyncio.get_running_loop().time() + 5))
    await asyncio.sleep(0)
    floor.leave()
    await asyncio.sleep(0)
    assert not waiting.done()
    floor.leave()
    await waiting
    assert floor.running == 1

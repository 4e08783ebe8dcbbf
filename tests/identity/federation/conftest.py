from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", autouse=True)
async def one_loop(anyio_backend: str) -> AsyncIterator[None]:
    """One event loop for a module: gRPC has one thread for all loops, and tells a call's own of its end a little after
    the call. A loop that a test has closed by then would be an error in the next test.
    """
    yield
    await asyncio.sleep(0.1)

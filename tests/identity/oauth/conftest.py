from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .office import Office, office


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Office]:
    async with office(tmp_path) as stand:
        yield stand

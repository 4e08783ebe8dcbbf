"""Tests of the gateway run on the loop that it runs on."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": importlib.util.find_spec("uvloop") is not None}

"""The stories run on the loop that the gateway runs on."""

from __future__ import annotations

from tests.gateway.conftest import anyio_backend

__all__ = ["anyio_backend"]

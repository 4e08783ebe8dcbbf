"""The stories run on the loop that the gateway runs on."""

from __future__ import annotations

from tests.gateway.conftest import anyio_backend

# Scripts for an environment that holds other libraries than ours.
collect_ignore = ["agents"]

__all__ = ["anyio_backend"]

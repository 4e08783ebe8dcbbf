"""A call comes in: the wire protocol in both eras, sessions, the pipeline.

``Gateway`` is what `callgate up` runs, ``House`` the rooms behind it, ``StdioFront`` the same over pipes.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callgate.gateway.gate import Names, is_loopback
    from callgate.gateway.house import House
    from callgate.gateway.ready import ready_line
    from callgate.gateway.serve import Gateway, PagesOnly, event_loop
    from callgate.gateway.stdio import StdioFront

__all__ = ["Gateway", "House", "Names", "PagesOnly", "StdioFront", "event_loop", "is_loopback", "ready_line"]

# A command that only asks a running gateway should not pay for the server.
_LATER = {
    "Gateway": "serve",
    "House": "house",
    "Names": "gate",
    "PagesOnly": "serve",
    "StdioFront": "stdio",
    "event_loop": "serve",
    "is_loopback": "gate",
    "ready_line": "ready",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"callgate.gateway.{_LATER[name]}"), name)

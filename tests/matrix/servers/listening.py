"""Serve an ASGI application on loopback and say where on stdout: clients may connect from then on."""

from __future__ import annotations

import socket
from typing import Any

import uvicorn


async def serve(app: Any, port: int) -> None:
    listener = socket.create_server(("127.0.0.1", port), backlog=256)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    print(f"matrix: http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)
    await uvicorn.Server(config).serve(sockets=[listener])

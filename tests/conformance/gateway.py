"""An ephemeral callgate in front of one server, asked at that server's own endpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.processes import Running, free_port, start_callgate


@contextmanager
def in_front_of(
    url: str, folder: Path, name: str, server: dict[str, Any] | None = None, **more: Any
) -> Iterator[tuple[Running, str]]:
    """A running callgate whose only server is at this URL, and the endpoint of that server. ``server`` are further
    settings of the server, ``more`` those beside it.
    """
    data = folder / "data"
    data.mkdir()
    config = folder / "callgate.yaml"
    settings = {
        "listen": f"127.0.0.1:{free_port()}",
        "admin_listen": f"127.0.0.1:{free_port()}",
        "data_dir": str(data),
        "watch": False,
        "log_level": "warning",
        "servers": {name: {"url": url, **(server or {})}},
        **more,
    }
    config.write_text(json.dumps(settings), "utf-8")
    running, root = start_callgate(config, folder)
    with running:
        yield running, f"{root}/servers/{name}/mcp"

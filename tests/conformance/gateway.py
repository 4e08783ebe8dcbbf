"""An ephemeral callgate in front of one server, asked at that server's own endpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.processes import Running, free_port, start_callgate

CONFIG = """\
listen: 127.0.0.1:{port}
admin_listen: 127.0.0.1:{admin}
data_dir: {data}
watch: false
log_level: warning
servers:
  {name}:
    url: {url}
"""


@contextmanager
def in_front_of(server: str, folder: Path, name: str) -> Iterator[tuple[Running, str]]:
    """A running callgate whose only server is at this URL, and the endpoint of that server."""
    data = folder / "data"
    data.mkdir()
    config = folder / "callgate.yaml"
    config.write_text(
        CONFIG.format(port=free_port(), admin=free_port(), data=json.dumps(str(data)), name=name, url=server), "utf-8"
    )
    running, root = start_callgate(config, folder)
    with running:
        yield running, f"{root}/servers/{name}/mcp"

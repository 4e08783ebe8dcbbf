"""A gateway with the fixture behind it twice: over HTTP as ``web``, over stdio as ``pipe``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import ROOT, free_port, python, start_callgate, start_fixture

# Scripts for environments that hold other libraries than ours.
collect_ignore = ["mcp1.py", "fastmcp4.py"]

CONFIG = """\
listen: 127.0.0.1:{port}
admin_listen: 127.0.0.1:{admin}
data_dir: {data}
watch: false
log_level: warning
startup_wait: 20
servers:
  web:
    url: {url}
  pipe:
    command: {command}
    args: {args}
    cwd: {root}
"""


@pytest.fixture(scope="session")
def fixture_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The fixture itself, over HTTP."""
    running, url = start_fixture(tmp_path_factory.mktemp("fixture"))
    with running:
        yield url


def configure(folder: Path, url: str) -> Path:
    """Write a configuration with its own data folder and ports."""
    data = folder / "data"
    data.mkdir()
    command, *args = python("-m", "tests.conformance.fixture", "--stdio")
    values = {
        "data": json.dumps(str(data)),
        "command": json.dumps(command),
        "args": json.dumps(args),
        "root": json.dumps(str(ROOT)),
        "url": url,
    }
    file = folder / "callgate.yaml"
    file.write_text(CONFIG.format(port=free_port(), admin=free_port(), **values), "utf-8")
    return file


@pytest.fixture(scope="session")
def gateway_url(tmp_path_factory: pytest.TempPathFactory, fixture_url: str) -> Iterator[str]:
    """The endpoint of everything of a running gateway."""
    folder = tmp_path_factory.mktemp("gateway")
    running, root = start_callgate(configure(folder, fixture_url), folder)
    with running:
        yield f"{root}/mcp"


@pytest.fixture
def stdio_gateway(tmp_path: Path, fixture_url: str) -> list[str]:
    """The command that serves the same over stdio."""
    return python("-m", "callgate", "stdio", "-c", str(configure(tmp_path, fixture_url)))

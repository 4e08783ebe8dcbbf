"""``config show``: every key once, its origin, and no secrets."""

from __future__ import annotations

from callgate.config import Settings, show
from callgate.config.decode import fields
from tests.config.folder import Folder

FILE = """\
list_page_size: 5
servers:
  my.server:
    command: run
    args: [--api-key, abc123, --token=abc123, --verbose, yes, "https://u:abc123@h/"]
    env: {GITHUB_TOKEN: abc123, MODE: fast, DB_PASSWORD: env:DB, MONKEY_KEY: abc123, EMPTY_TOKEN: ""}
  docs:
    url: https://user:abc123@example.org/mcp?api_key=abc123&x=1
    headers: {Authorization: Bearer abc123, Accept: text, X-Api-Key: "secret:docs", Cookie: abc123}
    proxy: http://u:abc123@proxy:1
"""


def test_every_key_with_its_origin(folder: Folder) -> None:
    rows = show(folder.load(FILE), origin=True)
    origins = {row.key: row.origin for row in rows}
    assert origins["list_page_size"] == "callgate.yaml:1"
    assert origins["servers.my.server.command"] == "callgate.yaml:4"
    assert origins["limits.max_body"] == "default"
    assert "servers.docs.max_queue" not in origins  # of single servers only what somebody has set
    sections = {"servers", "virtual_servers", "identity", "audit", "limits", "secrets", "egress", "guard"}
    assert set(fields(Settings)) - sections <= set(origins)
    assert len(rows) == len(origins)


def test_without_origins(folder: Folder) -> None:
    assert {row.origin for row in show(folder.load(FILE))} == {""}


def test_secrets_are_masked(folder: Folder) -> None:
    rows = {row.key: row.value for row in show(folder.load(FILE))}
    assert "abc123" not in repr(rows)
    mask = "********"
    assert rows["servers.my.server.args"] == [
        "--api-key", mask, f"--token={mask}", "--verbose", "yes", f"https://u:{mask}@h/",
    ]  # fmt: skip
    env = {"GITHUB_TOKEN": mask, "MODE": "fast", "DB_PASSWORD": "env:DB", "MONKEY_KEY": mask, "EMPTY_TOKEN": ""}
    assert rows["servers.my.server.env"] == env
    headers = {"Authorization": mask, "Accept": "text", "X-Api-Key": "secret:docs", "Cookie": mask}
    assert rows["servers.docs.headers"] == headers
    assert rows["servers.docs.url"] == f"https://user:{mask}@example.org/mcp?api_key={mask}&x=1"


def test_names_with_dots_are_not_mixed_up(folder: Folder) -> None:
    rows = {row.key: row.value for row in show(folder.load("servers: {a: {command: x}, a.command: {url: 'http://y'}}"))}
    assert rows["servers.a.command"] == "x"
    assert rows["servers.a.command.url"] == "http://y"

"""The files of AI clients, unchanged."""

from __future__ import annotations

import json
from typing import Any

import pytest

from callgate.config import Server
from tests.config.folder import Folder


def servers(folder: Folder, entries: dict[str, Any], **env: str) -> dict[str, Server]:
    return folder.load(json.dumps({"mcpServers": entries}), "mcp.json", env=env).settings.servers


def test_claude_desktop(folder: Folder) -> None:
    loaded = folder.load(
        '{"mcpServers": {"time": {"command": "uvx", "args": ["mcp-server-time"], "env": {"TZ": "UTC"}}},\n'
        ' "globalShortcut": "", "preferences": {"x": [1]}}',
        "claude_desktop_config.json",
    )
    assert loaded.settings.servers == {"time": Server(command="uvx", args=("mcp-server-time",), env={"TZ": "UTC"})}
    assert str(loaded.origins["servers.time.command"]) == "claude_desktop_config.json:1"
    assert loaded.notes == ()


def test_vs_code_with_comments(folder: Folder) -> None:
    text = """{
      // project servers
      "inputs": [{"type": "promptString", "id": "key", "password": true}],
      "servers": {
        "docs": {"type": "http", "url": "https://example.org/mcp", "headers": {"X-Key": "${input:key}"}},
        "fs": {"type": "stdio", "command": "npx", "args": ["-y", "fs"], "envFile": ".env", "dev": {"watch": "x"}},
      },
    }"""
    loaded = folder.load(text, ".vscode/mcp.json")
    assert loaded.settings.servers == {
        "docs": Server(type="http", url="https://example.org/mcp", headers={"X-Key": "${input:key}"}),
        "fs": Server(type="stdio", command="npx", args=("-y", "fs")),
    }
    assert loaded.notes == ("server `docs` asks for ${input:key}; write a value or `env:NAME` instead",)


def test_vs_code_without_inputs(folder: Folder) -> None:
    text = '{"servers": {"a": {"command": "x", "gallery": true}}}'
    assert folder.load(text, "mcp.json").settings.servers == {"a": Server(command="x")}


def test_a_callgate_file_in_json_is_not_a_client_file(folder: Folder) -> None:
    assert (
        "unknown key `gallery`"
        in folder.refused('{"servers": {"a": {"command": "x", "gallery": true}}}', "callgate.json")[0].message
    )


@pytest.mark.parametrize(
    "extra", ["alwaysAllow", "autoApprove", "timeout", "description", "trust", "headersHelper", "tools"]
)
def test_keys_of_other_clients_are_left_alone(folder: Folder, extra: str) -> None:
    assert servers(folder, {"a": {"command": "x", extra: ["anything"]}}) == {"a": Server(command="x")}


@pytest.mark.parametrize("key", ["url", "serverUrl", "httpUrl", "uri"])
def test_each_client_has_its_word_for_url(folder: Folder, key: str) -> None:
    assert servers(folder, {"a": {key: "https://example.org/mcp"}}) == {"a": Server(url="https://example.org/mcp")}


@pytest.mark.parametrize(
    ("written", "type_"),
    [("http", "http"), ("streamable-http", "streamable-http"), ("streamableHttp", "streamable-http"),
     ("streamable_http", "streamable-http"), ("sse", "sse"), ("remote", "http"), ("strange", None), (None, None)],
)  # fmt: skip
def test_each_client_has_its_word_for_type(folder: Folder, written: str | None, type_: Any) -> None:
    assert servers(folder, {"a": {"type": written, "url": "https://x/mcp"}}) == {
        "a": Server(type=type_, url="https://x/mcp")
    }


def test_what_has_no_effect_is_dropped(folder: Folder) -> None:
    entries = {"a": {"url": "https://x/mcp", "args": [], "env": {}}, "b": {"command": "x", "headers": {}, "cwd": None}}
    assert servers(folder, entries) == {"a": Server(url="https://x/mcp"), "b": Server(command="x")}


def test_disabled_entries(folder: Folder) -> None:
    found = servers(folder, {"a": {"command": "x", "disabled": True}, "b": {"command": "x", "enabled": False}})
    assert [server.disabled for server in found.values()] == [True, True]


def test_names_that_callgate_does_not_allow_are_changed(folder: Folder) -> None:
    names = ["Google Maps", "Google/Maps", "github.com/org/servers/src/git", "日本", "x" * 80, "-a-"]
    text = json.dumps({"mcpServers": {name: {"command": "x"} for name in names}})
    loaded = folder.load(text, "mcp.json")
    expected = ["Google-Maps", "Google-Maps-2", "github.com-org-servers-src-git", "server", "x" * 60, "a"]
    assert list(loaded.settings.servers) == expected
    assert loaded.notes[0] == "server `Google Maps` is called `Google-Maps` here"
    assert len(loaded.notes) == 6


def test_variables_are_filled_and_whole_secrets_stay_references(folder: Folder) -> None:
    entry = {
        "command": "${TOOLS}/run",
        "args": ["--root=${env:ROOT}", "${PORT:-8080}", "$HOME"],
        "env": {"KEY": "${SECRET}", "URL": "http://${HOST:-localhost}/"},
    }
    found = servers(folder, {"a": entry}, TOOLS="/opt", ROOT="/srv", SECRET="hidden")["a"]
    assert (found.command, found.args) == ("/opt/run", ("--root=/srv", "8080", "$HOME"))
    assert found.env == {"KEY": "env:SECRET", "URL": "http://localhost/"}


def test_a_variable_that_is_not_set_is_told(folder: Folder) -> None:
    entries = {"mcpServers": {"a": {"url": "https://x/mcp", "headers": {"Authorization": "Bearer ${NOPE}"}}}}
    loaded = folder.load(json.dumps(entries), "mcp.json")
    assert loaded.notes == ("server `a` uses ${NOPE}, which is not set",)


def test_mistakes_in_client_files_have_places(folder: Folder) -> None:
    problem = folder.refused('{"mcpServers": {\n"a": {"command": ["npx"]},\n"b": 5}}', "mcp.json")
    assert [(one.message, one.place.line) for one in problem if one.place] == [
        ("`servers.a.command` must be text, not a list", 2),
        ("`servers.b` must be a mapping, not `5`", 3),
    ]
    assert "must be a mapping" in folder.refused('{"mcpServers": []}', "mcp.json")[0].message


def test_flags_and_variables_work_on_client_files(folder: Folder) -> None:
    folder.write("mcp.json", '{"mcpServers": {"a": {"command": "x"}}}')
    loaded = folder.load(file="mcp.json", flags={"listen": "127.0.0.1:0"}, CALLGATE_WATCH="false")
    assert (loaded.settings.listen, loaded.settings.watch, list(loaded.settings.servers)) == (
        "127.0.0.1:0",
        False,
        ["a"],
    )

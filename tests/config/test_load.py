"""Layers: which value wins, where it comes from, and what relative paths mean."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from callgate.config import load
from callgate.errors import ConfigError
from tests.config.folder import Folder


def test_without_any_file_the_defaults_hold(folder: Folder) -> None:
    loaded = folder.load()
    assert loaded.settings.listen == "127.0.0.1:8080"
    assert loaded.policy == ()
    assert str(loaded.origins["listen"]) == "default"
    assert loaded.base == folder.path
    assert loaded.files == (folder.path / "callgate.yaml",)  # it may appear


def test_each_layer_wins_over_those_below(folder: Folder) -> None:
    keys = ("list_page_size", "limits.max_calls", "limits.max_headers", "log_level", "audit.queue")
    folder.write(
        folder.system, "list_page_size: 1\nlimits: {max_calls: 1, max_headers: 1}\nlog_level: error\naudit: {queue: 1}"
    )
    folder.write(folder.user, "limits: {max_calls: 2, max_headers: 2}\nlog_level: error\naudit: {queue: 2}")
    folder.write("callgate.yaml", "limits: {max_headers: 3}\nlog_level: error\naudit: {queue: 3}")
    loaded = folder.load(
        flags={"audit.queue": 5, "listen": None}, CALLGATE_LOG_LEVEL="debug", CALLGATE_AUDIT__QUEUE="4"
    )
    settings = loaded.settings
    found = (settings.list_page_size, settings.limits.max_calls, settings.limits.max_headers, settings.log_level)
    assert (*found, settings.audit.queue) == (1, 2, 3, "debug", 5)
    assert [loaded.origins[key].layer for key in keys] == ["system file", "user file", "file", "environment", "flag"]
    assert [str(loaded.origins[key]) for key in keys] == [
        f"{folder.system}:1", f"{folder.user}:1", "callgate.yaml:1", "environment CALLGATE_LOG_LEVEL",
        "flag audit.queue",
    ]  # fmt: skip
    assert loaded.origins["watch"].layer == "default"
    assert loaded.files == (folder.system, folder.user, folder.path / "callgate.yaml")


def test_servers_of_several_layers_merge_and_one_entry_is_replaced_whole(folder: Folder) -> None:
    folder.write(folder.user, "servers:\n  a: {command: x, args: [old]}\n  b: {command: y}\n")
    loaded = folder.load("servers:\n  a: {command: z}\n  c: {command: w}\n")
    assert {name: server.command for name, server in loaded.settings.servers.items()} == {"a": "z", "b": "y", "c": "w"}
    assert loaded.settings.servers["a"].args == ()
    assert str(loaded.origins["servers.b.command"]) == f"{folder.user}:3"
    assert str(loaded.origins["servers.a.command"]) == "callgate.yaml:2"


def test_policies_do_not_mix_and_lists_are_replaced(folder: Folder) -> None:
    folder.write(folder.user, "policy: {version: 1, default: allow}\nallowed_hosts: [a, b]")
    loaded = folder.load("policy: {version: 1}\nallowed_hosts: [c]")
    assert loaded.policy[0].data == {"version": 1}
    assert loaded.settings.allowed_hosts == ("c",)


def test_an_empty_section_takes_nothing_away(folder: Folder) -> None:
    folder.write(folder.user, "servers: {a: {command: x}}")
    assert list(folder.load("servers:\n").settings.servers) == ["a"]


def test_a_mistake_in_a_lower_layer_is_placed_there(folder: Folder) -> None:
    folder.write(folder.user, "watch: true\nlimits: {max_body: lots}")
    problem = folder.refused("limits: {max_calls: 5}")[0]
    assert problem.place is not None
    assert (problem.place.file, problem.place.line) == (str(folder.user), 2)


def test_a_key_that_two_layers_share_is_placed_in_the_layer_of_the_mistake(folder: Folder) -> None:
    folder.write(folder.user, "\n\nlimits:\n  max_bdy: 5")
    problem = folder.refused("limits: {max_calls: 5}")[0]
    assert problem.place is not None
    assert (problem.place.file, problem.place.line, problem.place.text) == (str(folder.user), 4, "  max_bdy: 5")


def test_environment_values_are_yaml_scalars_and_lists_have_commas(folder: Folder) -> None:
    settings = folder.load(
        "servers: {gh: {command: gh, args: [mcp]}}",
        CALLGATE_WATCH="false",
        CALLGATE_LIMITS__MAX_BODY="2MiB",
        CALLGATE_ALLOWED_HOSTS="a.example.org, b.example.org",
        CALLGATE_SERVERS__GH__ENV__TZ="12",
        CALLGATE_LIST_PAGE_SIZE="",
    ).settings
    assert (settings.watch, settings.limits.max_body, settings.list_page_size) == (False, 2 * 2**20, 1000)
    assert settings.allowed_hosts == ("a.example.org", "b.example.org")
    assert (settings.servers["gh"].env, settings.servers["gh"].args) == ({"tz": "12"}, ("mcp",))


def test_variables_of_the_commands_are_no_settings(folder: Folder) -> None:
    others = {"CALLGATE_URL": "x", "CALLGATE_TOKEN": "x", "CALLGATE_ADMIN_URL": "x", "CALLGATE_SECRET_DOCS": "x"}
    assert folder.load(env=others).settings == folder.load().settings


@pytest.mark.parametrize(
    "name", ["CALLGATE_LISTN", "CALLGATE_LIMITS", "CALLGATE_LIMITS__MAX", "CALLGATE_IDENTITY__KEYS__0"]
)
def test_an_unknown_variable_is_an_error(folder: Folder, name: str) -> None:
    problem = folder.refused(**{name: "x"})[0]
    assert name in problem.message
    assert problem.hint


def test_an_unknown_flag_is_an_error(folder: Folder) -> None:
    with pytest.raises(ConfigError, match="unknown key `durabilty` in `audit`"):
        folder.load(flags={"audit.durabilty": "strict"})


def test_paths_resolve_against_the_file_they_stand_in(folder: Folder) -> None:
    folder.write(folder.user, "servers: {a: {command: ./run, cwd: ., args: [x]}}\ndata_dir: state")
    folder.write(".config/callgate/run", "")
    (folder.user.parent / "state").mkdir()
    folder.write("conf/policy.yaml", "version: 1")
    loaded = folder.load("policy: policy.yaml\nservers: {b: {command: ./b, cwd: '..'}}", file="conf/my.yaml")
    assert loaded.base == folder.path / "conf"
    assert loaded.data_dir == folder.user.parent / "state"
    a, b = loaded.settings.servers["a"], loaded.settings.servers["b"]
    assert (a.cwd, a.command) == (str(folder.user.parent), str(folder.user.parent / "run"))
    assert (b.cwd, b.command) == (str(folder.path), "./b")
    assert [document.file for document in loaded.policy] == [str(Path("conf") / "policy.yaml")]
    assert folder.path / "conf" / "policy.yaml" in loaded.files


def test_paths_of_flags_resolve_against_the_working_directory(folder: Folder) -> None:
    (folder.path / "state").mkdir()
    folder.write("conf/callgate.yaml", "")
    assert folder.load(file="conf/callgate.yaml", flags={"data_dir": "state"}).data_dir == folder.path / "state"


def test_a_file_that_is_named_must_exist(folder: Folder) -> None:
    folder.write("callgate.yaml", "")
    problem = folder.refused(file="calgate.yaml")[0]
    assert (problem.message, problem.hint) == ("file calgate.yaml does not exist", "did you mean `callgate.yaml`?")
    assert problem.exit_code == 3


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no file modes")
def test_the_default_data_folder_is_made_for_its_owner_only(folder: Folder) -> None:
    data_dir = folder.load().data_dir
    assert data_dir == folder.path / ".local" / "share" / "callgate"
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    assert folder.load(XDG_DATA_HOME=str(folder.path / "xdg")).data_dir == folder.path / "xdg" / "callgate"
    assert folder.load(XDG_DATA_HOME="relative").data_dir == data_dir  # the specification says: ignore


def test_a_default_data_folder_that_cannot_be_made(folder: Folder) -> None:
    folder.write("blocked", "a file")
    problem = folder.refused(XDG_DATA_HOME=str(folder.path / "blocked"))[0]
    assert "cannot be created" in problem.message
    assert "data_dir" in problem.hint


def test_a_data_dir_that_is_a_file(folder: Folder) -> None:
    folder.write("state", "")
    assert "is not a folder" in folder.refused("data_dir: state")[0].message


def test_the_user_file_follows_xdg(folder: Folder) -> None:
    folder.write("xdg/callgate/callgate.yaml", "log_level: error")
    loaded = folder.load(XDG_CONFIG_HOME=str(folder.path / "xdg"))
    assert loaded.settings.log_level == "error"
    assert loaded.base == folder.path / "xdg" / "callgate"


def test_an_inline_policy_points_into_the_file(folder: Folder) -> None:
    loaded = folder.load("watch: false\npolicy:\n  version: 1\n  rules: []\n")
    (policy,) = loaded.policy
    assert policy.data == {"version": 1, "rules": []}
    assert (policy.file, policy.place(("rules",), key=True).line) == ("callgate.yaml", 4)


def test_several_policy_files(folder: Folder) -> None:
    folder.write("a.yaml", "version: 1")
    folder.write("b.yaml", "version: 1\ndefault: deny")
    loaded = folder.load("policy: [a.yaml, b.yaml]")
    assert [document.data for document in loaded.policy] == [{"version": 1}, {"version": 1, "default": "deny"}]


def test_the_working_directory_and_environment_are_the_process_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(("CALLGATE_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CALLGATE_LOG_LEVEL", "warning")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "callgate.yaml").write_text("list_page_size: 7")
    loaded = load(None, system=tmp_path / "none")
    assert (loaded.settings.list_page_size, loaded.settings.log_level) == (7, "warning")


def test_flags_for_a_part_of_an_address(folder: Folder) -> None:
    folder.write("callgate.yaml", "listen: 0.0.0.0:7000")  # alone it would be refused
    settings = folder.load(flags={"host": "::1", "port": None, "admin_port": 0}).settings
    assert (settings.listen, settings.admin_listen) == ("[::1]:7000", "127.0.0.1:0")
    assert folder.load(flags={"host": "127.0.0.1", "port": 0}, CALLGATE_LISTEN="x:1").settings.listen == "127.0.0.1:0"
    with pytest.raises(ConfigError, match="needs a policy"):
        folder.load("", flags={"host": "0.0.0.0"})

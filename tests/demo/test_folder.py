"""The demo's own files: what is in them, and that nothing of the user's own settings gets into them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from callgate.config import Settings, load, read_document
from callgate.demo.folder import Folder, ports, temporary
from callgate.policy import load_policy


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path)
    made.write("http://127.0.0.1:1/mcp", "http://127.0.0.1:2/mcp")
    return made


def test_the_tests_of_the_policy_pass(folder: Folder) -> None:
    results = load_policy([read_document(folder.policy)]).run_tests()
    assert len(results) >= 10
    assert [result.name for result in results if not result.passed] == []


def test_every_rule_of_the_policy_has_a_test(folder: Folder) -> None:
    policy = load_policy([read_document(folder.policy)])
    assert {rule.id for rule in policy.rules} == {result.by for result in policy.run_tests()} - {""}


def test_the_configuration_loads(folder: Folder) -> None:
    loaded = folder.load({"port": 0})
    assert list(loaded.settings.servers) == ["shop", "mailer", "notes"]
    assert loaded.settings.listen == "127.0.0.1:0"
    assert loaded.data_dir == folder.path / "state"
    assert loaded.settings.identity.anonymous is None


def test_keys_are_kept_as_hashes_only(folder: Folder) -> None:
    written = (folder.path / "callgate.yaml").read_text("utf-8")
    assert len(set(folder.keys.values())) == 3
    assert [key for key in folder.keys.values() if key in written] == []


def test_the_users_own_settings_have_no_part_in_it(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = tmp_path / "own" / "callgate"
    own.mkdir(parents=True)
    (own / "callgate.yaml").write_text("servers: {mine: {url: 'http://127.0.0.1:3/mcp'}}\n", "utf-8")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(own.parent))
    monkeypatch.setenv("CALLGATE_IDENTITY__ANONYMOUS", "true")
    loaded = folder.load({})
    assert "mine" not in loaded.settings.servers
    assert loaded.settings.identity.anonymous is None


def test_the_variable_of_the_demo_is_no_setting(tmp_path: Path) -> None:
    home = str(tmp_path)
    env = {"CALLGATE_DEMO_STAY": "0", "HOME": home, "XDG_CONFIG_HOME": home, "XDG_DATA_HOME": home}
    assert load(None, env=env, cwd=tmp_path, system=tmp_path / "none.yaml").settings == Settings()


def test_the_folder_is_removed() -> None:
    with temporary() as folder:
        assert "callgate-DEMO-" in folder.path.name
        if os.name == "posix":
            assert folder.path.stat().st_mode & 0o077 == 0
    assert not folder.path.exists()


def test_a_usual_port_that_is_taken_gives_way_and_one_asked_for_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken: int = other.getsockname()[1]
        monkeypatch.setattr("callgate.demo.folder.USUAL", {"port": taken})
        assert ports({"host": None, "port": None})["port"] == 0
        assert ports({"host": None, "port": taken})["port"] == taken
    assert ports({"host": None, "port": None})["port"] == taken

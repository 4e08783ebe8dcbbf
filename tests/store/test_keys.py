from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from callgate.errors import ConfigError
from callgate.store import secret_key


def test_a_key_is_made_once_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    key = secret_key(folder, "seal")
    assert len(key) == 32
    assert secret_key(folder, "seal") == key
    assert secret_key(folder, "other") != key
    assert sorted(path.name for path in folder.iterdir()) == ["other.key", "seal.key"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_only_the_owner_can_read_a_key(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        secret_key(tmp_path / "state", "seal")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "state" / "seal.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_who_starts_together_gets_the_same_key(tmp_path: Path) -> None:
    keys: list[bytes] = []
    together = threading.Barrier(8)

    def start() -> None:
        together.wait()
        keys.append(secret_key(tmp_path, "seal"))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["seal.key"]


def test_a_damaged_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "seal.key").write_bytes(b"short")
    with pytest.raises(ConfigError, match="holds 5 bytes instead of 32"):
        secret_key(tmp_path, "seal")


def test_a_key_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "seal.key").mkdir()
    with pytest.raises(ConfigError, match="cannot be used"):
        secret_key(tmp_path, "seal")


@pytest.mark.parametrize("name", ["", "../etc", "A", "a/b", "x" * 65])
def test_a_key_cannot_be_called_anything(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a key"):
        secret_key(tmp_path, name)
    assert list(tmp_path.iterdir()) == []

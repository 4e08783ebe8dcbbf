"""Signing keys: made safely, agreed on by all processes, replaced without a moment of doubt."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from callgate.errors import ConfigError
from callgate.identity.oauth.signing import AFTER, AHEAD, SigningKey, SigningKeys
from tests.identity.provider import Clock

DAY = 86400.0


def keys(folder: Path, clock: Clock) -> SigningKeys:
    made = SigningKeys(folder, 30 * DAY, clock)
    made.refresh()
    return made


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_the_files_are_the_owners(tmp_path: Path) -> None:
    keys(tmp_path / "keys", Clock())
    (file,) = (tmp_path / "keys").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o777 == 0o700
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="Others can read"):
        keys(tmp_path / "keys", Clock())


def is_trusted(key: SigningKey) -> bool:
    return key.trusted


def test_a_file_that_is_no_key(tmp_path: Path) -> None:
    for content in (b"", b"{}", b'{"made": 1, "key": {"kty": "EC"}}', b'{"made": "x", "key": []}'):
        (tmp_path / "000001.json").write_bytes(content)
        (tmp_path / "000001.json").chmod(0o600)
        with pytest.raises(ConfigError, match="holds no signing key"):
            keys(tmp_path, Clock())


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    clock = Clock()
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: keys(tmp_path, clock), range(8)))
    assert len({each.signer().kid for each in made}) == 1
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.key("identity.oauth.key_rotation")
def test_a_new_key_is_published_before_it_signs_and_an_old_one_while_its_tokens_live(tmp_path: Path) -> None:
    clock = Clock()
    one, other = keys(tmp_path, clock), keys(tmp_path, clock)
    first = one.signer()
    clock.now += 30 * DAY - AHEAD
    one.refresh()
    assert one.signer() is first and len(one.published()) == 2
    other.refresh()
    clock.now += AHEAD
    assert one.signer().kid == other.signer().kid != first.kid
    clock.now += AFTER - 1
    one.refresh()
    assert one.find(first.kid) is first and is_trusted(first)
    clock.now += 1
    one.refresh()
    assert one.find(first.kid) is None and not is_trusted(first) and len(one.published()) == 1


def test_a_gateway_that_was_away_for_long_signs_with_what_is_published(tmp_path: Path) -> None:
    clock = Clock()
    first = keys(tmp_path, clock).signer().kid
    clock.now += 300 * DAY
    again = keys(tmp_path, clock)
    assert again.signer().kid == first and len(again.published()) == 2


def test_a_running_gateway_keeps_its_keys_when_the_files_are_spoilt(tmp_path: Path) -> None:
    clock = Clock()
    running = keys(tmp_path, clock)
    kid = running.signer().kid
    (tmp_path / "000002.json").write_bytes(b"{}")
    clock.now += 61
    assert running.stale()
    running.reread()
    assert running.signer().kid == kid and not running.stale()
    with pytest.raises(ConfigError):
        SigningKeys(tmp_path, 30 * DAY, clock).reread()

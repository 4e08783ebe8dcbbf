from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from callgate.config import Identity
from callgate.errors import ConfigError, Unauthenticated
from callgate.identity import Recogniser, Refused, is_operator, operator_token, recognise_operator

posix = pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")


def test_the_token_is_made_once(tmp_path: Path) -> None:
    token = operator_token(tmp_path / "state" / "deep")
    assert token.startswith("cgo_") and len(token) == 47
    assert operator_token(tmp_path / "state" / "deep") == token
    assert operator_token(tmp_path / "other") != token
    assert [file.name for file in (tmp_path / "state" / "deep").iterdir()] == ["operator.token"]


@posix
def test_only_its_owner_can_read_the_token(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        operator_token(tmp_path / "state")
    finally:
        os.umask(before)
    assert (tmp_path / "state" / "operator.token").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


@posix
def test_attack_a_token_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    operator_token(tmp_path)
    (tmp_path / "operator.token").chmod(0o640)
    with pytest.raises(ConfigError, match="Others can read"):
        operator_token(tmp_path)


@pytest.mark.parametrize("content", [b"", b"cgo_short", b"admin", b"\xff\xfe", b"cgo_" + b"x" * 44])
def test_attack_a_file_with_something_else_is_not_used(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "operator.token"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(ConfigError, match="no operator token"):
        operator_token(tmp_path)


def test_a_data_dir_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"):
        operator_token(tmp_path / "file")


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    program = "import pathlib; from callgate.identity import operator_token; print(operator_token(pathlib.Path()))"
    command = [sys.executable, "-c", program]
    started = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {process.communicate(timeout=30)[0] for process in started}
    assert said == {operator_token(tmp_path) + "\n"}


def test_the_token_of_the_process_that_was_first_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process makes its file after we looked for one."""
    first = operator_token(tmp_path)
    looked = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: False if path.name == "operator.token" else looked(path))
    assert operator_token(tmp_path) == first


def test_a_file_system_without_hard_links_works_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: object) -> None:
        raise PermissionError("hard links are not supported")

    monkeypatch.setattr(os, "link", no_link)
    token = operator_token(tmp_path)
    assert operator_token(tmp_path) == token
    assert len(list(tmp_path.iterdir())) == 1


def test_the_operator_is_recognised_on_the_admin_side(tmp_path: Path) -> None:
    token = operator_token(tmp_path)
    operator = recognise_operator(b"bearer " + token.encode(), token)
    assert (operator.subject, operator.via) == ("operator", "operator")
    assert is_operator(token, token)


@pytest.mark.parametrize("spoil", ["", "x", "cgo_", "cgo_\xff", "{}x", "Bearer {}"])
def test_attack_anything_else_is_not_the_operator(tmp_path: Path, spoil: str) -> None:
    token = operator_token(tmp_path)
    presented = spoil.format(token)
    assert not is_operator(presented, token)
    with pytest.raises(Unauthenticated) as caught:
        recognise_operator(b"Bearer " + presented.encode("latin-1"), token)
    assert token not in str(caught.value)


@pytest.mark.parametrize("header", [None, b"", b"Basic {}", b"{}"])
def test_attack_a_header_of_another_shape_is_not_the_operator(tmp_path: Path, header: bytes | None) -> None:
    token = operator_token(tmp_path)
    with pytest.raises(Refused):
        recognise_operator(header and header.replace(b"{}", token.encode()), token)


def test_the_operator_is_nobody_on_the_gateway(tmp_path: Path) -> None:
    async def no_fetch(url: str) -> bytes:
        raise AssertionError(url)

    who = Recogniser(Identity(), loopback=True, fetch=no_fetch)
    with pytest.raises(Refused):
        asyncio.run(who.recognise(b"Bearer " + operator_token(tmp_path).encode()))

"""Where sign-ins are kept: readable by one user, whole or not at all, and given to one gateway only."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from callgate.cli import kept as module
from callgate.cli.kept import KeptSignIns, SignedIn
from callgate.errors import ConfigError, Overloaded

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(os.name != "posix", reason="owners and modes are those of POSIX")]
URL = "https://mcp.example.org"


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeptSignIns:
    monkeypatch.setitem(sys.modules, "keyring", None)  # not installed
    return KeptSignIns({"XDG_STATE_HOME": str(tmp_path / "state")})


def signed_in(url: str = URL, token: str = "an-access-token", **more: Any) -> SignedIn:
    return SignedIn(url, url, f"{url}/oauth/token", token, 2e9, "a-refresh-token", **more)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_what_was_kept_is_found_again_by_its_gateway_only(kept: KeptSignIns) -> None:
    assert kept.get(URL) is None
    assert kept.put(signed_in()) is False
    kept.put(signed_in("https://other.example", "another"))
    assert kept.get(URL) == signed_in()
    for url in ("https://mcp.example.org.evil.example", "http://mcp.example.org", f"{URL}/", "https://MCP.example.org"):
        assert kept.get(url) is None
    kept.drop(URL)
    assert kept.get(URL) is None and kept.urls() == ["https://other.example"]


async def test_nobody_else_can_read_it_whatever_the_umask(kept: KeptSignIns) -> None:
    before = os.umask(0)
    try:
        kept.put(signed_in())
        async with kept.turn():
            pass
    finally:
        os.umask(before)
    assert mode(kept.file) == 0o600 and mode(kept.folder) == 0o700
    assert mode(kept.folder / "signed-in.lock") == 0o600


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660, 0o644])
async def test_a_file_that_others_can_read_is_refused(kept: KeptSignIns, bits: int) -> None:
    kept.put(signed_in())
    kept.file.chmod(bits)
    with pytest.raises(ConfigError, match="Others can read"):
        kept.get(URL)
    with pytest.raises(ConfigError, match="Others can read"):
        kept.put(signed_in())


async def test_a_link_is_not_followed(kept: KeptSignIns, tmp_path: Path) -> None:
    """Whoever can put a link there could have us read, or overwrite, another file."""
    kept.put(signed_in())
    elsewhere = tmp_path / "elsewhere.json"
    kept.file.rename(elsewhere)
    kept.file.symlink_to(elsewhere)
    content = elsewhere.read_bytes()
    for act in (lambda: kept.get(URL), lambda: kept.put(signed_in(token="new")), lambda: kept.drop(URL)):
        with pytest.raises(ConfigError, match="it is a link"):
            act()
    assert elsewhere.read_bytes() == content


async def test_a_link_in_place_of_the_lock_is_not_followed(kept: KeptSignIns, tmp_path: Path) -> None:
    kept.folder.mkdir(parents=True, mode=0o700)
    (kept.folder / "signed-in.lock").symlink_to(tmp_path / "made-by-us")
    with pytest.raises(ConfigError):
        async with kept.turn():
            pass
    assert not (tmp_path / "made-by-us").exists()


@pytest.mark.parametrize("bits", [0o770, 0o707, 0o777])
async def test_a_folder_that_others_can_change_is_refused(kept: KeptSignIns, bits: int) -> None:
    kept.folder.mkdir(parents=True)
    kept.folder.chmod(bits)
    with pytest.raises(ConfigError, match="Others can change"):
        kept.put(signed_in())
    assert not kept.file.exists()


@pytest.mark.parametrize("content", [b"", b"{", b'{"x": 1}', b'["an-access-token"]', b"\xff"])
async def test_a_file_that_cannot_be_understood_is_not_repeated(kept: KeptSignIns, content: bytes) -> None:
    kept.put(signed_in())
    kept.file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        kept.get(URL)
    assert "an-access-token" not in str(vars(caught.value))


async def test_an_entry_under_another_gateways_name_is_not_used(kept: KeptSignIns) -> None:
    kept.put(signed_in())
    entries = json.loads(kept.file.read_text())
    kept.file.write_text(json.dumps({"https://evil.example": entries[URL]}))
    assert kept.get("https://evil.example") is None


async def test_a_write_that_fails_leaves_what_was_there(kept: KeptSignIns, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.put(signed_in())

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        kept.put(signed_in(token="new"))
    assert kept.get(URL) == signed_in()
    assert [path.name for path in kept.folder.iterdir()] == ["signed-in.json"]


async def test_it_does_not_show_itself() -> None:
    thing = signed_in()
    assert "token" not in repr(thing) and "token" not in str(thing) and "access" not in f"{[thing]}"


async def test_only_one_has_its_turn(kept: KeptSignIns, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    async def act(name: str) -> None:
        async with KeptSignIns({"XDG_STATE_HOME": str(kept.folder.parent)}).turn():
            order.append(f"{name} begins")
            await asyncio.sleep(0.1)
            order.append(f"{name} ends")

    await asyncio.gather(act("one"), act("two"))
    assert [each.split()[1] for each in order] == ["begins", "ends", "begins", "ends"]
    monkeypatch.setattr(module, "TURN", 0.1)
    async with kept.turn():
        with pytest.raises(Overloaded):
            async with kept.turn():
                pass


class Backend:
    """Plays the backend of the ``keyring`` package: that package is the edge of the house."""

    def __init__(self, priority: float, fails: bool = False) -> None:
        self.priority = priority
        self.fails = fails
        self.held: dict[tuple[str, str], str] = {}

    def get_keyring(self) -> Backend:
        return self

    def get_password(self, service: str, name: str) -> str | None:
        return self.held.get((service, name))

    def set_password(self, service: str, name: str, value: str) -> None:
        if self.fails:
            raise RuntimeError("locked")
        self.held[service, name] = value

    def delete_password(self, service: str, name: str) -> None:
        del self.held[service, name]


def installed(monkeypatch: pytest.MonkeyPatch, backend: Backend) -> Backend:
    package = ModuleType("keyring")
    for name in ("get_keyring", "get_password", "set_password", "delete_password"):
        setattr(package, name, getattr(backend, name))
    monkeypatch.setitem(sys.modules, "keyring", package)
    return backend


async def test_a_keyring_has_the_tokens_and_the_file_only_says_so(
    kept: KeptSignIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = installed(monkeypatch, Backend(5))
    assert kept.put(signed_in()) is True
    assert "token" not in kept.file.read_text() and kept.get(URL) == signed_in()
    kept.drop(URL)
    assert not backend.held and kept.get(URL) is None


@pytest.mark.parametrize("backend", [Backend(0), Backend(0.5), Backend(5, fails=True)])
async def test_where_the_keyring_is_no_good_the_file_is_used(
    kept: KeptSignIns, monkeypatch: pytest.MonkeyPatch, backend: Backend
) -> None:
    """One that keeps passwords in plain text (priority below 1) is worse than our file."""
    installed(monkeypatch, backend)
    assert kept.put(signed_in()) is False
    assert kept.get(URL) == signed_in() and not backend.held


async def test_a_keyring_that_went_away_means_not_signed_in(kept: KeptSignIns, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = installed(monkeypatch, Backend(5))
    kept.put(signed_in())
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert kept.get(URL) is None
    assert kept.put(signed_in(token="new")) is False and kept.get(URL) == signed_in(token="new")
    installed(monkeypatch, backend)
    assert kept.get(URL) == signed_in(token="new")

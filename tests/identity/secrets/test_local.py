"""The local store, and who tampers with it."""

from __future__ import annotations

import base64
import contextlib
import copy
import json
import logging
import os
import pickle
import secrets
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from callgate.config import load
from callgate.errors import CallgateError, ConfigError, NotFound, UsageError
from callgate.identity import Secrets, SecretStore
from callgate.identity.secrets import Keys, Secret
from callgate.store import Database, SqliteHeld, SqliteSecrets, open_database
from tests.processes import environment

posix = pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
CANARY = "canary-5f0e1d2c3b4a"


class Place:
    """A data directory with a store."""

    def __init__(self, folder: Path, tenant: str = "default", given: str = "") -> None:
        self.folder = folder
        self.database: Database = open_database(folder)
        self.key_file = folder / "secrets.key"
        self.rows = SqliteSecrets(self.database, tenant)
        self.store = SecretStore(self.rows, Keys(self.key_file, given), SqliteHeld(self.database, tenant), tenant)

    def sql(self, statement: str, *values: object) -> None:
        with contextlib.closing(self.database.writer()) as connection:
            connection.execute(statement, values)

    def value(self, name: str) -> str:
        found = self.store.get(name)
        assert found is not None
        return found.reveal()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "state")


def a_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def refused(act: Callable[[], object], match: str) -> CallgateError:
    """The error, in which no value and no key stands, however it is printed."""
    with pytest.raises(CallgateError, match=match) as caught:
        act()
    said = "".join(traceback.format_exception(caught.value)) + caught.value.hint + repr(vars(caught.value))
    assert CANARY not in said
    return caught.value


def test_what_is_set_is_found_with_its_version(place: Place) -> None:
    assert place.store.get("docs") is None
    assert place.store.set("docs", "one").version == 1
    again = place.store.set("docs", CANARY)
    assert (again.version, again.updated_at >= again.created_at) == (2, True)
    assert place.value("docs") == CANARY
    assert [(row.name, row.version) for row in place.store.all()] == [("docs", 2)]
    place.store.remove("docs")
    assert place.store.get("docs") is None
    with pytest.raises(NotFound):
        place.store.remove("docs")


def test_neither_the_value_nor_the_key_is_in_the_database_files(place: Place) -> None:
    place.store.set("docs", CANARY)
    place.store.set("docs", CANARY + "2")
    key = base64.b64decode(place.key_file.read_text())
    for file in place.folder.glob("callgate.db*"):
        content = file.read_bytes()
        assert CANARY.encode() not in content
        assert key not in content and place.key_file.read_bytes().strip() not in content


@pytest.mark.rule("SEC-2")
def test_a_secret_prints_as_stars_wherever_it_is_put(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.store.set("docs", CANARY)
    found = place.store.get("docs")
    assert isinstance(found, Secret)
    logging.getLogger("callgate").warning("got %s and %r of %s", found, found, {"a": [found]})
    shown = [str(found), repr(found), f"{found}", f"{found:>20}", "%s" % found, repr([found]), caplog.text]  # noqa: UP031
    shown += [str(ValueError(found)), repr(ConfigError(found))]  # type: ignore[arg-type]
    assert all(CANARY not in text and "***" in text for text in shown)
    for write in (pickle.dumps, copy.copy, json.dumps):
        with pytest.raises(TypeError):
            write(found)


@pytest.mark.rule("SEC-4")
def test_a_row_under_another_name_does_not_open(place: Place) -> None:
    place.store.set("docs", CANARY)
    place.store.set("mail", "another value")
    mail = place.rows.find("mail")
    assert mail is not None
    place.sql("UPDATE secrets SET sealed = ?, key_id = ? WHERE name = 'docs'", mail.sealed, mail.key_id)
    assert "callgate secret set docs" in refused(lambda: place.store.get("docs"), "stands at another's place").hint
    assert place.value("mail") == "another value"


@pytest.mark.rule("SEC-4")
def test_an_old_version_put_back_as_the_new_one_does_not_open(place: Place) -> None:
    place.store.set("docs", CANARY)
    old = place.rows.find("docs")
    assert old is not None
    place.store.set("docs", "new")
    place.sql("UPDATE secrets SET sealed = ? WHERE name = 'docs'", old.sealed)
    refused(lambda: place.store.get("docs"), "was changed in the database")


@pytest.mark.rule("SEC-4")
def test_a_row_of_another_tenant_does_not_open(place: Place) -> None:
    place.store.set("docs", CANARY)
    place.sql("UPDATE secrets SET tenant = 'other'")
    assert place.store.get("docs") is None
    refused(lambda: Place(place.folder, "other").store.get("docs"), "was changed in the database")


@pytest.mark.parametrize("damage", [b"", b"x", b"x" * 11, b"x" * 12, b"x" * 60])
def test_sealed_bytes_that_are_none(place: Place, damage: bytes) -> None:
    place.store.set("docs", CANARY)
    place.sql("UPDATE secrets SET sealed = ?", damage)
    refused(lambda: place.store.get("docs"), "was changed in the database")


def test_one_changed_bit_is_found_wherever_it_is(place: Place) -> None:
    place.store.set("docs", CANARY)
    row = place.rows.find("docs")
    assert row is not None
    for at in range(len(row.sealed)):
        changed = bytearray(row.sealed)
        changed[at] ^= 1
        place.sql("UPDATE secrets SET sealed = ?", bytes(changed))
        refused(lambda: place.store.get("docs"), "was changed in the database")


def test_another_key_opens_nothing(place: Place) -> None:
    place.store.set("docs", CANARY)
    row = place.rows.find("docs")
    place.key_file.write_text(a_key())
    error = refused(lambda: place.store.get("docs"), "sealed with another key")
    assert row is not None and row.key_id in error.hint


def test_a_row_that_claims_the_other_key_does_not_open(place: Place) -> None:
    """The name of the key is bound too: who has the database cannot make a row look as if sealed with another key."""
    place.store.set("docs", CANARY)
    keys = Keys(place.key_file)
    other = a_key()
    keys.write((*keys.read(), *Keys(place.key_file, other).read()))
    place.sql("UPDATE secrets SET key_id = ?", keys.read()[1].id)
    refused(lambda: place.store.get("docs"), "was changed in the database")


def test_without_its_key_nothing_opens_and_no_new_key_is_made(place: Place) -> None:
    place.store.set("docs", CANARY)
    place.key_file.unlink()
    refused(lambda: place.store.get("docs"), "their key is not at")
    refused(lambda: place.store.set("docs", "new"), "their key is not at")
    refused(place.store.rotate, "their key is not at")
    assert not place.key_file.exists()


@pytest.mark.parametrize("content", ["", "\n", "abc", "A" * 43, "not base64 at all: " + CANARY, "=" * 44])
def test_a_key_file_that_was_cut_off_or_holds_something_else(place: Place, content: str) -> None:
    place.store.set("docs", "a value")
    key = place.key_file.read_text()
    place.key_file.write_text(content or key[:20])
    refused(lambda: place.store.get("docs"), "no key")
    refused(lambda: place.store.set("docs", "new"), "no key")
    refused(place.store.rotate, "no key")
    place.key_file.write_text(key)
    assert place.value("docs") == "a value"


@posix
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602])
def test_a_key_file_that_others_can_use_is_refused_with_the_fix(place: Place, mode: int) -> None:
    place.store.set("docs", CANARY)
    place.key_file.chmod(mode)
    assert f"chmod 600 {place.key_file}" in refused(lambda: place.store.get("docs"), "Others can read or write").hint
    place.key_file.chmod(0o600)
    assert place.value("docs") == CANARY


@posix
def test_only_the_owner_can_read_the_key(place: Place) -> None:
    old = os.umask(0)
    try:
        place.store.set("docs", "value")
        place.store.rotate()
    finally:
        os.umask(old)
    assert stat.S_IMODE(place.key_file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../docs", "a/b", "a\\b", "/etc/passwd", "a b", "a\n", "-a", "ä", "a" * 129, "a\0"]
)
def test_names_that_lead_elsewhere_are_refused(place: Place, name: str) -> None:
    for act in (place.store.get, place.store.remove, lambda name: place.store.set(name, CANARY)):
        with pytest.raises(UsageError, match="cannot be the name"):
            act(name)


@pytest.mark.parametrize("value", ["", "a\0b", "x" * (64 * 1024 + 1), "\ud800"])
def test_values_that_cannot_be_kept(place: Place, value: str) -> None:
    with pytest.raises(UsageError):
        place.store.set("docs", value)
    assert place.store.all() == ()


def test_rotation_seals_everything_anew(place: Place) -> None:
    values = {f"s{number}": f"value {number}" for number in range(20)}
    for name, value in values.items():
        place.store.set(name, value)
    before = {row.name: row for row in place.store.all()}
    old_key = place.key_file.read_text()
    assert place.store.rotate() == 20
    after = {row.name: row for row in place.store.all()}
    assert {name: place.value(name) for name in values} == values
    assert all(after[name].version == row.version and after[name].key_id != row.key_id for name, row in before.items())
    assert old_key not in place.key_file.read_text()
    assert len(place.key_file.read_text().split()) == 1


STEPS = ["the new key is written", "all is sealed anew", "the old key is forgotten"]


@pytest.mark.parametrize("step", STEPS)
def test_a_rotation_that_dies_at_any_step_loses_nothing(
    place: Place, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.store.set("docs", CANARY)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if step == STEPS[0]:
            patch.setattr(SecretStore, "_again", die)  # in the middle of the transaction
        elif step == STEPS[1]:
            patch.setattr(SecretStore, "_forget_old", die)  # the transaction is committed
        else:
            patch.setattr("callgate.identity.secrets.keys._settle", die)
        with pytest.raises(KeyboardInterrupt):
            place.store.rotate()
    again = Place(place.folder)
    assert again.value("docs") == CANARY
    again.store.set("mail", "set in between")
    assert again.store.rotate() == 2
    assert (again.value("docs"), again.value("mail")) == (CANARY, "set in between")
    assert len(place.key_file.read_text().split()) == 1


def test_a_rotation_that_meets_a_damaged_secret_changes_nothing(place: Place) -> None:
    place.store.set("a", "first")
    place.store.set("b", "second")
    place.sql("UPDATE secrets SET sealed = ? WHERE name = 'b'", b"x" * 60)
    before = place.rows.find("a")
    refused(place.store.rotate, "`b` was changed in the database")
    assert place.rows.find("a") == before
    assert place.value("a") == "first"


def test_the_key_of_the_environment_comes_first_and_is_not_written(tmp_path: Path) -> None:
    one, two = a_key(), a_key()
    place = Place(tmp_path, given=one)
    place.store.set("docs", CANARY)
    assert not place.key_file.exists()
    assert "in front" in refused(place.store.rotate, "already").hint
    moved = Place(tmp_path, given=f"{two},{one}")
    assert moved.value("docs") == CANARY
    assert moved.store.rotate() == 1
    assert Place(tmp_path, given=two).value("docs") == CANARY
    refused(lambda: place.store.get("docs"), "CALLGATE_SECRETS_KEY")


@posix
def test_a_rotation_leaves_no_key_behind_a_link_and_none_where_the_link_stands(place: Place, tmp_path: Path) -> None:
    place.store.set("docs", CANARY)
    elsewhere = tmp_path / "keys" / "real.key"
    elsewhere.parent.mkdir()
    place.key_file.rename(elsewhere)
    place.key_file.symlink_to(elsewhere)
    old = elsewhere.read_text()
    place.store.rotate()
    assert place.key_file.is_symlink()
    assert old not in elsewhere.read_text()
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o600
    assert place.value("docs") == CANARY


@pytest.mark.key("secrets.key_file")
def test_the_key_file_can_stand_elsewhere(tmp_path: Path) -> None:
    for folder in ("state", "conf"):
        (tmp_path / folder).mkdir()
    (tmp_path / "conf" / "callgate.yaml").write_text("data_dir: ../state\nsecrets: {key_file: ../keys/own.key}\n")
    loaded = load(tmp_path / "conf" / "callgate.yaml", env={}, cwd=tmp_path, system=tmp_path / "none")
    found = Secrets(loaded, open_database(loaded.data_dir), env={})
    found.store.set("docs", "value")
    assert (tmp_path / "keys" / "own.key").exists()
    assert not (tmp_path / "state" / "secrets.key").exists()
    assert found.stored("docs").reveal() == "value"


def test_the_environment_stands_in_for_the_store_and_never_comes_before_it(tmp_path: Path) -> None:
    loaded = load(None, env={"XDG_DATA_HOME": str(tmp_path)}, cwd=tmp_path, system=tmp_path / "none")
    found = Secrets(loaded, open_database(loaded.data_dir), env={"CALLGATE_SECRET_MY_DOCS": "of the environment"})
    assert found.stored("my-docs").reveal() == "of the environment"
    found.store.set("my-docs", "of the store")
    assert found.stored("my-docs").reveal() == "of the store"
    assert "callgate secret set other" in refused(lambda: found.stored("other"), "which is not set").hint
    (loaded.data_dir / "secrets.key").unlink()
    refused(lambda: found.stored("my-docs"), "their key is not at")  # not silently the other value


CROWD = """
import sys
from pathlib import Path
from callgate.identity import SecretStore
from callgate.identity.secrets import Keys
from callgate.store import SqliteHeld, SqliteSecrets, open_database
folder, who = Path(sys.argv[1]), sys.argv[2]
database = open_database(folder)
store = SecretStore(SqliteSecrets(database), Keys(folder / "secrets.key"), SqliteHeld(database))
sys.stdin.read()
for number in range(8):
    store.set("shared", f"{who} {number}")
    store.set(f"own-{who}", f"{who} {number}")
    if number % 3 == 0:
        store.rotate()
"""


def test_processes_that_set_and_rotate_at_once_lose_nothing(place: Place) -> None:
    """The first key is made by whoever comes first, too."""
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", CROWD, str(place.folder), who], env=environment(), stdin=subprocess.PIPE
        )
        for who in ("a", "b")
    ]
    for each in crowd:
        each.communicate(timeout=30)
    assert [each.returncode for each in crowd] == [0, 0]
    assert {name: place.value(name) for name in ("own-a", "own-b")} == {"own-a": "a 7", "own-b": "b 7"}
    shared = place.rows.find("shared")
    assert shared is not None and shared.version == 16
    assert place.value("shared") in ("a 7", "b 7")

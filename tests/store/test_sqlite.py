from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

import callgate.store
from callgate.errors import ConfigError
from callgate.store import Database, open_database
from callgate.store.schema import HEAD, REVISIONS
from callgate.store.sqlite import upgrade
from callgate.store.tables import metadata

posix = pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")


def structure(database: Database) -> list[tuple[object, ...]]:
    """Every table, column and index, as SQLite understood them."""
    found: list[tuple[object, ...]] = []
    with contextlib.closing(database.reader()) as connection:
        names = connection.execute("SELECT type, name, tbl_name FROM sqlite_master ORDER BY type, name").fetchall()
        for kind, name, table in names:
            pragma = "table_info" if kind == "table" else "index_xinfo"
            found.append((kind, name, table, *connection.execute(f"PRAGMA {pragma}({name})").fetchall()))
        found += connection.execute("SELECT version_num FROM alembic_version").fetchall()
    return found


def normal_sql(database: Database) -> dict[str, str]:
    with contextlib.closing(database.reader()) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {name: "".join(sql.split()) for name, sql in rows}


def test_the_frozen_schema_is_what_the_migrations_make(tmp_path: Path) -> None:
    frozen = open_database(tmp_path / "frozen")
    migrated = Database(tmp_path / "migrated.db")
    upgrade(migrated.engine())
    assert structure(frozen) == structure(migrated)
    assert normal_sql(frozen) == normal_sql(migrated)


def test_the_migrations_make_what_the_tables_say(tmp_path: Path) -> None:
    with open_database(tmp_path).engine().connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_every_migration_is_known_in_order() -> None:
    script = ScriptDirectory(str(Path(callgate.store.__file__).parent / "migrations"))
    assert tuple(reversed([revision.revision for revision in script.walk_revisions()])) == REVISIONS


def test_an_older_database_is_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older than all revisions is a database that has only Alembic's own table."""
    monkeypatch.setattr("callgate.store.sqlite.REVISIONS", ("", *REVISIONS))
    with contextlib.closing(sqlite3.connect(tmp_path / "callgate.db")) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
    monkeypatch.setattr("callgate.store.sqlite._create", lambda _: "")
    database = open_database(tmp_path)
    assert database.revision() == HEAD
    assert {"audit", "listings"} <= normal_sql(database).keys()


def test_a_database_of_the_first_revision_gets_secrets_and_keeps_what_it_has(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    fresh = structure(database)
    with contextlib.closing(database.writer()) as connection:
        connection.execute("DROP TABLE secrets")
        connection.execute("DROP TABLE held")
        connection.execute("DROP TABLE pins")
        connection.execute("DROP TABLE counts")
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
        connection.execute("INSERT INTO listings VALUES ('default', 's', '', '{}', 1.0)")
    database = open_database(tmp_path)
    assert structure(database) == fresh
    with contextlib.closing(database.reader()) as connection:
        assert connection.execute("SELECT server FROM listings").fetchall() == [("s",)]


def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    with contextlib.closing(database.writer()) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigError, match=f"has schema 9999; this callgate knows schemas up to {HEAD}") as caught:
        open_database(tmp_path)
    assert "newer callgate" in caught.value.hint
    assert database.revision() == "9999"


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    before = structure(open_database(tmp_path))
    assert structure(open_database(tmp_path)) == before


def test_who_creates_second_finds_it_created(tmp_path: Path) -> None:
    from callgate.store.sqlite import _create

    database = open_database(tmp_path)
    assert _create(database) == HEAD


STARTS = """
import sys
from pathlib import Path
from callgate.store import open_database
open_database(Path(sys.argv[1]))
open_database(Path(sys.argv[1]))
assert not {"sqlalchemy", "alembic"} & sys.modules.keys()
"""


def test_neither_the_first_nor_the_second_start_imports_sqlalchemy(tmp_path: Path) -> None:
    source = str(Path(callgate.store.__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": source}
    subprocess.run([sys.executable, "-c", STARTS, str(tmp_path)], env=environment, check=True, timeout=30)


@posix
def test_nobody_else_can_read_the_files(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        database = open_database(tmp_path / "deep" / "state")
        writer = database.writer()
        writer.execute("INSERT INTO listings VALUES ('t', 's', '', '{}', 0)")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in database.path.parent.iterdir()}
        writer.close()
    finally:
        os.umask(old)
    assert modes == dict.fromkeys(("callgate.db", "callgate.db-wal", "callgate.db-shm"), 0o600)
    assert stat.S_IMODE(database.path.parent.stat().st_mode) == 0o700


@posix
def test_a_folder_of_the_users_own_keeps_its_permissions(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    open_database(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_folder_that_cannot_be_made_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be opened") as caught:
        open_database(tmp_path / "file" / "state")
    assert "data_dir" in caught.value.hint


def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "callgate.db").write_text("this is not a database at all, " * 100)
    with pytest.raises(ConfigError, match="file is not a database"):
        open_database(tmp_path)


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    with (
        contextlib.closing(open_database(tmp_path).reader()) as connection,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        connection.execute("DELETE FROM audit")


def test_a_name_with_odd_characters_works(tmp_path: Path) -> None:
    database = open_database(tmp_path / "a ?mode=rwc#%20é")
    assert database.revision() == HEAD
    database.reader().close()


@pytest.mark.parametrize(("synchronous", "level"), [("FULL", 2), ("NORMAL", 1)])
def test_durability_is_a_setting_of_the_connection(tmp_path: Path, synchronous: str, level: int) -> None:
    database = open_database(tmp_path)
    with contextlib.closing(database.writer(synchronous)) as connection:  # type: ignore[arg-type]
        assert connection.execute("PRAGMA synchronous").fetchone() == (level,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)

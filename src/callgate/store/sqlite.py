"""One SQLite file for one gateway: how it is created, brought up to date and opened.

Everything here blocks; the event loop calls it in a thread, or before it serves.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from callgate.errors import ConfigError
from callgate.store.schema import CREATE, HEAD, REVISIONS

if TYPE_CHECKING:
    from sqlalchemy import Engine

FILE = "callgate.db"
PAGE = 8192  # a fifth less CPU per audit record than 4096
BUSY_MS = 2000
WAL_PAGES = 8192  # the writer checkpoints long before; this only bounds the log if it cannot
WAL_KEEP = 16 * 1024 * 1024

Synchronous = Literal["FULL", "NORMAL"]


class Database:
    """The file, and the ways to open it. Made by ``open_database``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def writer(self, synchronous: Synchronous = "FULL") -> sqlite3.Connection:
        """A connection for writing; the caller closes it and begins and ends transactions by hand.

        With ``FULL`` a commit is on disk when it returns; with ``NORMAL`` it survives the death of the
        process, but the last moments may be lost with the power.
        """
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1000)
        connection.execute(f"PRAGMA page_size={PAGE}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit={WAL_KEEP}")
        return connection

    def reader(self) -> sqlite3.Connection:
        """A connection that cannot write. Readers and the writer do not wait for each other (WAL)."""
        uri = f"{self.path.absolute().as_uri()}?mode=ro"
        return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1000)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Raises ConfigError when the file cannot be read."""
        try:
            with contextlib.closing(self.reader()) as connection:
                yield connection
        except sqlite3.Error as error:
            raise ConfigError(f"{self.path} cannot be read: {error}.") from error

    @contextlib.contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """One transaction that no other writer runs beside, on disk at its end. What it replaces is overwritten in the
        file. Raises ConfigError when the file cannot be changed.
        """
        try:
            with contextlib.closing(self.writer("FULL")) as connection:
                connection.execute("PRAGMA secure_delete=ON")
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise ConfigError(
                f"{self.path} cannot be changed: {error}.",
                hint="Check that the file may be written and the disk is not full, and try again.",
            ) from error

    def engine(self) -> Engine:
        """A SQLAlchemy engine over ``writer`` connections, for migrations."""
        from sqlalchemy import create_engine
        from sqlalchemy.pool import NullPool

        return create_engine("sqlite://", creator=self.writer, poolclass=NullPool)

    def revision(self) -> str:
        """The schema revision of the file, ``""`` when it has no tables yet."""
        if not self.path.stat().st_size:
            return ""  # nothing was ever written; to look would cost two syncs of the disk
        with contextlib.closing(self.writer()) as connection:
            known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if known else None
        return str(row[0]) if row else ""


def open_database(data_dir: Path) -> Database:
    """Open ``data_dir/callgate.db``: create it when it is missing, migrate it when it is older than the code.

    Raises ``ConfigError`` when the folder or file cannot be used, or when a newer callgate wrote it.
    """
    database = Database(data_dir / FILE)
    try:
        make_private_folder(data_dir)
        # SQLite gives its -wal and -shm files the permissions of the database.
        os.close(os.open(database.path, os.O_CREAT | os.O_RDWR, 0o600))
        _bring_up_to_date(database)
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(
            f"The database {database.path} cannot be opened: {error}.",
            hint="Name a folder that callgate may write to with `data_dir`.",
        ) from error
    return database


def make_private_folder(folder: Path) -> None:
    """Create ``folder`` for its owner only. A folder that is there already keeps its permissions."""
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def upgrade(engine: Engine) -> None:
    """Run every migration that the database has not seen, all in one transaction. There is no way back."""
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(Path(__file__).parent / "migrations"))
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        # As alembic's own `upgrade` command does it, without the folder of files that the command needs.
        with EnvironmentContext(Config(), script, fn=lambda seen, _: script._upgrade_revs("head", seen)) as environment:
            environment.configure(connection=connection)
            environment.run_migrations()
        connection.commit()


def _bring_up_to_date(database: Database) -> None:
    revision = database.revision()
    if revision == HEAD:
        return
    if not revision:
        revision = _create(database)
    if revision not in REVISIONS:
        raise ConfigError(
            f"The database {database.path} has schema {revision}; this callgate knows schemas up to {HEAD}.",
            hint="A newer callgate wrote it: use that version, or another `data_dir`.",
        )
    if revision != HEAD:
        upgrade(database.engine())


def _create(database: Database) -> str:
    """Create all tables at once; returns the revision, which is another's when two processes start together."""
    with contextlib.closing(database.writer()) as connection:
        connection.execute("BEGIN IMMEDIATE")
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone() is None:
            for statement in CREATE.split(";"):
                connection.execute(statement)
            connection.execute("INSERT INTO alembic_version VALUES (?)", (HEAD,))
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        connection.execute("COMMIT")
    return str(row[0])

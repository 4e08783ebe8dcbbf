from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest

from callgate.store import Database, Listings, ListingStore, open_database
from callgate.store.tables import listings
from callgate.types import Listing

GIT = Listing(
    "git", ({"name": "status", "inputSchema": {"type": "object", "x-é": [1, None]}},), "legacy", "2025-11-25",
    capabilities={"tools": {"listChanged": True}}, server_info={"name": "git", "version": "1"}, instructions="Be kind.",
    ttl_ms=5000, scope="public",
)  # fmt: skip
DOCS = Listing("docs", (), "modern", "2026-07-28")


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return open_database(tmp_path)


def test_a_listing_survives_a_restart(database: Database) -> None:
    before = time.time()
    store: ListingStore = Listings(database)
    store.save(GIT, "digest-1")
    store.save(DOCS)
    docs, git = Listings(Database(database.path)).load_all()
    assert (git.listing, git.config_digest) == (GIT, "digest-1")
    assert (docs.listing, docs.config_digest) == (DOCS, "")
    assert before <= git.seen_at <= time.time()


def test_the_last_listing_replaces_the_one_before(database: Database) -> None:
    store = Listings(database)
    store.save(GIT, "old")
    newer = Listing("git", (), "modern", "2026-07-28")
    store.save(newer, "new")
    (known,) = store.load_all()
    assert (known.listing, known.config_digest) == (newer, "new")


def test_tenants_do_not_see_each_other(database: Database) -> None:
    one, other = Listings(database, "one"), Listings(database, "other")
    one.save(GIT)
    other.save(DOCS)
    one.forget("docs")
    assert [known.listing for known in one.load_all()] == [GIT]
    assert [known.listing for known in other.load_all()] == [DOCS]


def test_a_forgotten_server_is_gone(database: Database) -> None:
    store = Listings(database)
    store.save(GIT)
    store.forget("git")
    store.forget("git")
    assert store.load_all() == ()


@pytest.mark.parametrize("body", ["{}", "nonsense", '{"server":"git"}'])
def test_what_cannot_be_read_any_more_is_left_out(database: Database, body: str) -> None:
    store = Listings(database)
    store.save(GIT)
    store.save(DOCS)
    with contextlib.closing(database.writer()) as connection:
        connection.execute("UPDATE listings SET body = ? WHERE server = 'git'", (body,))
    assert [known.listing for known in store.load_all()] == [DOCS]


def test_the_statements_name_the_columns_of_the_table() -> None:
    assert [column.name for column in listings.columns] == ["tenant", "server", "config_digest", "body", "seen_at"]

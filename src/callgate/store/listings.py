"""The last known tool list of every server, kept so that a restart can serve lists before servers answer.

These functions block for a moment; the event loop calls them in a thread.
"""

from __future__ import annotations

import contextlib
import time
from typing import Protocol

import msgspec

from callgate.store.sqlite import Database
from callgate.types import DEFAULT_TENANT, Listing


class KnownListing(msgspec.Struct, frozen=True):
    """A listing as it was last seen, ``seen_at`` seconds since the epoch.

    ``config_digest`` names the server's settings of that time: with other settings it is another server, and
    what it listed says nothing.
    """

    listing: Listing
    config_digest: str
    seen_at: float


class ListingStore(Protocol):
    """Where listings are remembered."""

    def load_all(self) -> tuple[KnownListing, ...]: ...

    def save(self, listing: Listing, config_digest: str = "") -> None: ...

    def forget(self, server: str) -> None: ...


class Listings:
    """The listings of one tenant in SQLite."""

    def __init__(self, database: Database, tenant: str = DEFAULT_TENANT) -> None:
        self._database = database
        self._tenant = tenant

    def load_all(self) -> tuple[KnownListing, ...]:
        """Every remembered listing, by server name. One that cannot be read any more is left out."""
        sql = "SELECT config_digest, body, seen_at FROM listings WHERE tenant = ? ORDER BY server"
        with contextlib.closing(self._database.reader()) as connection:
            rows = connection.execute(sql, (self._tenant,)).fetchall()
        known = []
        for digest, body, seen_at in rows:
            with contextlib.suppress(msgspec.DecodeError, RecursionError):  # only a memory; the server will list again
                known.append(KnownListing(msgspec.json.decode(body, type=Listing), digest, seen_at))
        return tuple(known)

    def save(self, listing: Listing, config_digest: str = "") -> None:
        """Remember what a server lists now, in place of what it listed before."""
        body = msgspec.json.encode(listing).decode()
        self._write(
            "INSERT INTO listings (tenant, server, config_digest, body, seen_at) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (tenant, server) DO UPDATE SET config_digest = excluded.config_digest, "
            "body = excluded.body, seen_at = excluded.seen_at",
            (self._tenant, listing.server, config_digest, body, time.time()),
        )

    def forget(self, server: str) -> None:
        """Drop the listing of a server that was removed."""
        self._write("DELETE FROM listings WHERE tenant = ? AND server = ?", (self._tenant, server))

    def _write(self, sql: str, values: tuple[object, ...]) -> None:
        with contextlib.closing(self._database.writer("NORMAL")) as connection:
            connection.execute(sql, values)

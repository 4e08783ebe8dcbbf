"""The store: where state is kept. One SQLite file and a few key files in ``data_dir``."""

from __future__ import annotations

from callgate.store.audit import SqliteAudit
from callgate.store.counts import CountRow, SqliteCounts
from callgate.store.held import HeldRow, HeldRows, SqliteHeld
from callgate.store.keys import secret_key
from callgate.store.listings import KnownListing, Listings, ListingStore
from callgate.store.pins import PinRow, SqlitePins
from callgate.store.rows import AuditFilters, AuditRow
from callgate.store.secrets import SealedSecret, SecretRows, SqliteSecrets
from callgate.store.sqlite import FILE as DATABASE
from callgate.store.sqlite import Database, open_database
from callgate.store.usage import UsedRow, Whose, used

__all__ = [
    "DATABASE",
    "AuditFilters",
    "AuditRow",
    "CountRow",
    "Database",
    "HeldRow",
    "HeldRows",
    "KnownListing",
    "ListingStore",
    "Listings",
    "PinRow",
    "SealedSecret",
    "SecretRows",
    "SqliteAudit",
    "SqliteCounts",
    "SqliteHeld",
    "SqlitePins",
    "SqliteSecrets",
    "UsedRow",
    "Whose",
    "open_database",
    "secret_key",
    "used",
]

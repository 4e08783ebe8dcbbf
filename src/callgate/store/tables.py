"""The tables, defined once, for SQLite and for PostgreSQL.

Only migrations and tests import this module: SQLAlchemy takes a third of a second to import, and callgate is
ready to serve in less than one. The SQL that runs all day is written out beside its use and checked against
these definitions.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, MetaData, Table, Text

metadata = MetaData()

audit = Table(
    "audit",
    metadata,
    # The order of writing. An id is given when a call arrives and its record is written when the call ends,
    # so ids alone cannot tell a follower or an exporter what is new.
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("id", BigInteger, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("server", Text, nullable=False),
    Column("tool", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("body", Text, nullable=False),
    Index("audit_id", "id", unique=True),
)

listings = Table(
    "listings",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("server", Text, primary_key=True),
    Column("config_digest", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("seen_at", Float, nullable=False),
)

secrets = Table(
    "secrets",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
)

held = Table(
    "held",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("expires_at", Float, nullable=False),
    Index("held_owner", "tenant", "owner"),
    Index("held_expires", "expires_at"),
)

pins = Table(
    "pins",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("server", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("digest", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("seen_at", Float, nullable=False),
    Column("decided_at", Float, nullable=False),
    Column("decided_by", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Index("pins_version", "tenant", "version"),
)

counts = Table(
    "counts",
    metadata,
    Column("name", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("slot", BigInteger, primary_key=True),
    Column("used", Float, nullable=False),
    Column("ends_at", Float, nullable=False),
    Index("counts_ends", "ends_at"),
)

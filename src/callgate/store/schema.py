"""The schema of a fresh SQLite database, frozen, so that the first start need not import Alembic.

A test proves that ``CREATE`` makes exactly what the migrations make. A new migration therefore changes three
places: ``tables.py``, ``migrations/versions/`` and this one.
"""

from __future__ import annotations

REVISIONS = ("0001", "0002", "0003", "0004", "0005")
"""Every revision this code knows, oldest first."""

HEAD = REVISIONS[-1]

CREATE = """
CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
CREATE TABLE audit (
    seq INTEGER NOT NULL,
    id BIGINT NOT NULL,
    tenant TEXT NOT NULL,
    subject TEXT NOT NULL,
    server TEXT NOT NULL,
    tool TEXT NOT NULL,
    outcome TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (seq)
);
CREATE UNIQUE INDEX audit_id ON audit (id);
CREATE TABLE listings (
    tenant TEXT NOT NULL,
    server TEXT NOT NULL,
    config_digest TEXT NOT NULL,
    body TEXT NOT NULL,
    seen_at FLOAT NOT NULL,
    PRIMARY KEY (tenant, server)
);
CREATE TABLE secrets (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    key_id TEXT NOT NULL,
    sealed BLOB NOT NULL,
    created_at FLOAT NOT NULL,
    updated_at FLOAT NOT NULL,
    PRIMARY KEY (tenant, name)
);
CREATE TABLE held (
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    owner TEXT NOT NULL,
    key_id TEXT NOT NULL,
    sealed BLOB NOT NULL,
    expires_at FLOAT NOT NULL,
    PRIMARY KEY (tenant, kind, id)
);
CREATE INDEX held_owner ON held (tenant, owner);
CREATE INDEX held_expires ON held (expires_at);
CREATE TABLE pins (
    tenant TEXT NOT NULL,
    server TEXT NOT NULL,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    state TEXT NOT NULL,
    body TEXT NOT NULL,
    seen_at FLOAT NOT NULL,
    decided_at FLOAT NOT NULL,
    decided_by TEXT NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (tenant, server, name, digest)
);
CREATE INDEX pins_version ON pins (tenant, version);
CREATE TABLE counts (
    name TEXT NOT NULL,
    "key" TEXT NOT NULL,
    slot BIGINT NOT NULL,
    used FLOAT NOT NULL,
    ends_at FLOAT NOT NULL,
    PRIMARY KEY (name, "key", slot)
);
CREATE INDEX counts_ends ON counts (ends_at);
"""

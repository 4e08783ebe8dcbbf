"""What the audit log and its store hand each other: rows going down, filters going up.

They stand here, below the audit room, because imports point one way; ``callgate.audit`` offers them under its
own names.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class AuditRow(NamedTuple):
    """One record as it is kept: the columns that people filter by, and the JSON text of everything else."""

    id: int
    tenant: str
    subject: str
    server: str
    tool: str
    outcome: str
    body: str


class AuditFilters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which records to find; an empty field lets everything through.

    ``tool`` is a glob over ``server/tool``, or over the tool's name alone when it has no slash. ``since_id``
    and ``until_id`` are bounds of time (ids begin with the time), ``before_id`` pages back. ``after_id`` asks
    for what was *written* after that record; a slow call is written long after its id was given, so this and
    not ``since_id`` is how to follow the log.
    """

    tenant: str = ""
    subject: str = ""
    server: str = ""
    tool: str = ""
    outcomes: tuple[str, ...] = ()
    since_id: int | None = None
    until_id: int | None = None
    before_id: int | None = None
    after_id: int | None = None
    limit: int = 100

"""Which definitions are approved, and what a server's list becomes by that (rules GRD-2, GRD-3).

One definition of a name is approved at a time, unless an operator approves several. Everything that is new is written
to the store before it is shown, so that of two processes that see two first definitions only one is believed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from callgate.errors import NotFound, UsageError, nearest
from callgate.guard.definitions import digest, pinned
from callgate.store import PinRow
from callgate.types import JSON

log = logging.getLogger("callgate.guard")

#: Definitions of one name that wait for an operator; the newest are kept.
MOST_PENDING = 8
#: Definitions of one server that are kept, and their characters. Beyond it, what is new is hidden.
MOST, MOST_SIZE = 10_000, 64 * 1024 * 1024
FIRST_SEEN = "first seen"


class PinRows(Protocol):
    """Where they are kept."""

    def all(self) -> tuple[int, tuple[PinRow, ...]]: ...

    def version(self) -> int: ...

    def change(self, server: str, change: Callable[[tuple[PinRow, ...]], Sequence[PinRow]]) -> tuple[PinRow, ...]: ...


class Judged(msgspec.Struct, frozen=True):
    """What is known of one definition that a server shows now. ``approved`` is the approved one in its place, if there
    is one; ``fresh``: nobody had seen it before.
    """

    digest: str
    state: str
    approved: PinRow | None = None
    fresh: bool = False


class Pins:
    """All definitions, in memory as they are in the store. Threads may ask at once."""

    def __init__(self, rows: PinRows) -> None:
        self._rows = rows
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, dict[str, PinRow]]] = {}
        self._version = -1

    def load(self) -> None:
        version, rows = self._rows.all()
        known: dict[str, dict[str, dict[str, PinRow]]] = {}
        for row in rows:
            known.setdefault(row.server, {}).setdefault(row.name, {})[row.digest] = row
        with self._lock:
            self._known, self._version = known, version

    def moved(self) -> bool:
        """Whether another process changed something since the last look; then it is known here, too."""
        if self._rows.version() == self._version:
            return False
        self.load()
        return True

    def judge(self, server: str, shown: Sequence[tuple[str, JSON]], trusts: Callable[[str], bool]) -> list[Judged]:
        """Each of a server's definitions (name, definition). ``trusts`` says of a name whether its first definition is
        believed. What cannot be written down is not believed.
        """
        digests = [(name, digest(definition)) for name, definition in shown]
        with self._lock:
            known = self._known.get(server, {})
            new = [at for at, (name, each) in enumerate(digests) if each not in known.get(name, {})]
            if new:
                fresh = [(digests[at], pinned(shown[at][1]).decode()) for at in new]
                known = dict(self._note(server, fresh, trusts))
        unseen = {digests[at] for at in new}
        return [_judged(known.get(name, {}), each, (name, each) in unseen) for name, each in digests]

    def _note(
        self, server: str, fresh: Iterable[tuple[tuple[str, str], str]], trusts: Callable[[str], bool]
    ) -> Mapping[str, dict[str, PinRow]]:
        now, news = time.time(), dict(fresh)

        def change(rows: tuple[PinRow, ...]) -> Sequence[PinRow]:
            known = {(row.name, row.digest) for row in rows}
            decided = {row.name for row in rows if row.state != "pending"}
            after, size = list(rows), sum(len(row.body) for row in rows)
            for (name, each), body in news.items():
                if (name, each) in known or len(after) >= MOST or size + len(body) > MOST_SIZE:
                    continue
                size += len(body)
                trusted = name not in decided and trusts(name)
                decided |= {name} if trusted else set()
                if trusted:
                    after.append(PinRow(server, name, each, "approved", body, now, now, FIRST_SEEN))
                else:
                    after.append(PinRow(server, name, each, "pending", body, now))
            return _trimmed(after)

        try:
            self._take(server, self._rows.change(server, change))
        except Exception as why:  # whatever is wrong with the disk: what is new stays hidden
            log.error("server %s: its definitions cannot be written down, so new ones are hidden: %s", server, why)
        return self._known.get(server, {})

    def _take(self, server: str, rows: Iterable[PinRow]) -> None:
        known: dict[str, dict[str, PinRow]] = {}
        for row in rows:
            known.setdefault(row.name, {})[row.digest] = row
        self._known[server] = known  # the version stays behind: the next look reads everything once more

    # What operators see and do.

    def of(self, server: str, name: str) -> tuple[PinRow, ...]:
        return tuple(self._known.get(server, {}).get(name, {}).values())

    def waiting(self) -> tuple[PinRow, ...]:
        """Everything that waits for an operator."""
        return tuple(
            row
            for names in self._known.copy().values()
            for rows in names.values()
            for row in rows.values()
            if row.state == "pending"
        )

    def approved(self, server: str, name: str) -> PinRow | None:
        return _approved(self._known.get(server, {}).get(name, {}))

    def decide(self, server: str, names: Mapping[str, str], by: str, *, approve: bool, also: bool) -> list[PinRow]:
        """Approve or reject definitions: ``names`` maps each name to the beginning of a digest (``""``: the only one
        that waits). ``also``: what was approved before stays so. Raises ``NotFound`` and ``UsageError``, and decides
        nothing then.
        """
        now, decided = time.time(), list[PinRow]()

        def change(rows: tuple[PinRow, ...]) -> Sequence[PinRow]:
            chosen = {name: _chosen(rows, server, name, start, approve) for name, start in names.items()}
            decided.clear()
            after = []
            for row in rows:
                choice = chosen.get(row.name)
                if choice is not None and row.digest == choice.digest:
                    state = "approved" if approve else "rejected"
                    row = msgspec.structs.replace(row, state=state, decided_at=now, decided_by=by)
                    decided.append(row)
                elif choice is not None and approve and not also and row.state == "approved":
                    row = msgspec.structs.replace(row, state="past", decided_at=now, decided_by=by)
                after.append(row)
            return after

        with self._lock:
            self._take(server, self._rows.change(server, change))
        return decided


def _judged(rows: Mapping[str, PinRow], each: str, fresh: bool) -> Judged:
    row = rows.get(each)
    return Judged(each, row.state if row is not None else "unwritten", _approved(rows), fresh and row is not None)


def _approved(rows: Mapping[str, PinRow]) -> PinRow | None:
    """The approved definition; of several, the one that was approved last."""
    approved = [row for row in rows.values() if row.state == "approved"]
    return max(approved, key=lambda row: row.decided_at, default=None)


def _trimmed(rows: list[PinRow]) -> list[PinRow]:
    """A server that shows another definition each time fills nothing: of each name the newest that wait are kept."""
    waiting: dict[str, list[PinRow]] = {}
    for row in rows:
        if row.state == "pending":
            waiting.setdefault(row.name, []).append(row)
    gone = {id(row) for each in waiting.values() for row in each[:-MOST_PENDING]}
    return [row for row in rows if id(row) not in gone]


def _chosen(rows: Sequence[PinRow], server: str, name: str, start: str, approve: bool) -> PinRow:
    mine = [row for row in rows if row.name == name]
    found = [row for row in mine if row.digest.startswith(start.lower())] if start else []
    if not start:
        found = [row for row in mine if row.state == "pending"]
    if len(found) == 1:
        return found[0]
    if found:
        hint = "Name one by the beginning of its digest (`--digest`): " + ", ".join(row.digest[:12] for row in found)
        raise UsageError(f"Several definitions of `{server}/{name}` wait.", hint=hint)
    what = "has no definition with this digest" if start else "has no definition that waits"
    near = "" if mine else nearest(name, {row.name for row in rows})
    hint = f"Did you mean `{server}/{near}`?" if near else "`callgate catalog pending` lists what waits."
    raise NotFound(f"`{server}/{name}` {what}.", hint=hint)


def definition(row: PinRow) -> dict[str, Any]:
    """The definition that a row holds."""
    return msgspec.json.decode(row.body, type=dict[str, Any])

"""The guard: one object that the house asks about listings, calls and results."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec

from callgate.catalog import Part, Screened
from callgate.config import Guard as Settings
from callgate.errors import NotFound
from callgate.guard.calls import Outcome, Refused, bounded, fits, fitting, quarantined
from callgate.guard.definitions import Difference, differences
from callgate.guard.kept import Results
from callgate.guard.pins import PinRows, Pins, definition
from callgate.guard.plans import Plans
from callgate.guard.rules import Rulebook
from callgate.guard.screening import Event, Screening, findings_of
from callgate.store import PinRow
from callgate.types import Answer, Call, Listing


class Guard:
    """``on``: whether calls are looked at at all. ``screen`` is what the catalog asks."""

    def __init__(self, settings: Settings, rows: PinRows, data_dir: Path, tell: Callable[[Event], None]) -> None:
        self.pins = Pins(rows)
        self.kept = Results(data_dir)
        self.tell = tell
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Take over settings. What was listed has to be screened once more."""
        self.settings = settings
        self.book = Rulebook(settings)
        self._plans = Plans(self.book)
        self.screen = Screening(self.book, self.pins, self._plans, self.tell)
        self.on = self.book.calls
        self.remembers = self.book.pins or "quarantine" in (settings.lookalikes, settings.hidden_text)

    # What the catalog asks (`catalog.Screen`): of the settings of now.

    @property
    def strict(self) -> bool:
        return self.screen.strict

    def listing(self, listing: Listing) -> Screened:
        return self.screen.listing(listing)

    def across(self, parts: Mapping[str, Part], order: Collection[str]) -> Mapping[str, str]:
        return self.screen.across(parts, order)

    def load(self) -> None:
        """Read the pins, before anything is screened. Blocks."""
        self.pins.load()

    def arguments(self, call: Call) -> Refused | None:
        """Whether a call may leave; raises ``Denied`` for a tool that is held back."""
        if call.tool.definition == b"{}" and call.method in ("tools/call", "prompts/get", "completion/complete"):
            self._unseen(call)
        return fits(call, self._plans)

    def fitting(self, answer: Answer, call: Call) -> Outcome:
        """A server's answer, if it fits the tool's output schema."""
        return fitting(answer, call, self._plans)

    async def bounded(self, answer: Answer, call: Call) -> Outcome:
        """An answer within its bounds."""
        return await bounded(answer, call, self._plans, self.kept)

    def _unseen(self, call: Call) -> None:
        """A tool whose server has not listed it to this caller: only what was approved before may be called so."""
        tool = call.tool
        pin, known = self.book.of(tool.native).pin, self.pins.of(tool.server, tool.name)
        approved = any(row.state == "approved" for row in known) and not any(row.state == "pending" for row in known)
        if pin != "off" and not approved and (known or pin == "all"):
            raise quarantined(msgspec.structs.replace(tool, withheld="its definition is not known"))

    # For operators.

    def waiting(self) -> list[tuple[PinRow, str, list[dict[str, Any]]]]:
        """What waits for a decision: the definition, why it is held back (empty: it is shown), what was found."""
        rows = {(row.server, row.name, row.digest): row for row in self.pins.waiting()}
        for server, held in self.screen.held.items():
            for name, each in held.items():
                for row in self.pins.of(server, name):
                    if row.digest == each.digest:
                        rows.setdefault((server, name, row.digest), row)
        for native in self.screen.alike:
            server, _, name = native.partition("/")
            approved = self.pins.approved(server, name)
            if approved is not None and not self.screen.vouched(server, name, approved.digest):
                rows.setdefault((server, name, approved.digest), approved)
        shown = []
        for row in sorted(rows.values(), key=lambda row: (row.server, row.name, row.seen_at)):
            held_now = self.screen.held.get(row.server, {}).get(row.name)
            why = held_now.why if held_now is not None and held_now.digest == row.digest else ""
            if not why and f"{row.server}/{row.name}" in self.screen.alike:
                why = "look-alike"
            shown.append((row, why, findings_of(self.screen, row.server, row.name)))
        return shown

    def held_of(self, server: str) -> int:
        """How many entries of a server are held back now."""
        alike = sum(native.startswith(f"{server}/") for native in self.screen.alike)
        return len(self.screen.held.get(server, ())) + alike

    def found(self) -> Mapping[str, list[dict[str, Any]]]:
        """All findings by ``server/name``."""
        natives = [f"{server}/{name}" for server, names in self.screen.found.items() for name in names]
        return {
            native: findings_of(self.screen, *native.split("/", 1))
            for native in sorted({*natives, *self.screen.shadowed})
        }

    def difference(self, server: str, name: str, start: str = "") -> tuple[PinRow, PinRow | None, list[Difference]]:
        """A definition that waits (or begins with the digest ``start``), the approved one, and how they differ."""
        rows = [row for row in self.pins.of(server, name) if row.digest.startswith(start.lower())]
        rows = rows if start else [row for row in rows if row.state == "pending"] or rows
        if not rows:
            hint = "`callgate catalog pending` lists what waits."
            raise NotFound(f"No definition of `{server}/{name}` is remembered.", hint=hint)
        row, approved = rows[-1], self.pins.approved(server, name)
        before = definition(approved) if approved is not None else {}
        return row, approved, differences(before, definition(row))

    def decide(
        self, server: str, names: Mapping[str, str], by: str, *, approve: bool, also: bool = False
    ) -> list[PinRow]:
        """Approve or reject. Blocks."""
        held = self.screen.held.get(server, {})
        chosen = {}
        for name, start in names.items():
            pending = any(row.state == "pending" for row in self.pins.of(server, name))
            here = held.get(name)
            if not start and not pending:
                approved = self.pins.approved(server, name)
                start = here.digest if here is not None else approved.digest if approved is not None else ""
            chosen[name] = start
        return self.pins.decide(server, chosen, by, approve=approve, also=also)

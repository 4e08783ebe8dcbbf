"""From what a server lists to what is shown: pins, hidden text, schemas that can be used, names that deceive."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from callgate.catalog import Part, Screened, Shown
from callgate.guard.definitions import digest
from callgate.guard.findings import Finding
from callgate.guard.hidden import clean, hidden, strip
from callgate.guard.lookalikes import Known, shadows
from callgate.guard.pins import FIRST_SEEN, Judged, Pins, definition
from callgate.guard.plans import Plans
from callgate.guard.rules import Rulebook
from callgate.types import JSON, PROMPT, RESOURCE, Listing

log = logging.getLogger("callgate.guard")

#: Why an entry is held back.
QUARANTINED, HIDDEN, SCHEMA, ALIKE = "quarantined", "hidden text", "unusable schema", "look-alike"
#: What has been told, so that it is told once.
TOLD = 20_000


class Event(msgspec.Struct, frozen=True):
    """Something about a definition that belongs in the audit log. ``what``: quarantined, changed, stripped."""

    server: str
    name: str
    what: str
    says: str
    digest: str = ""


class Held(msgspec.Struct, frozen=True):
    """An entry that is held back now: why, and the definition that an operator may approve."""

    why: str
    digest: str


class Screening:
    """Judges listings, in any thread. ``tell`` is given what belongs in the audit log."""

    def __init__(self, book: Rulebook, pins: Pins, plans: Plans, tell: Callable[[Event], None]) -> None:
        self.book = book
        self.found: dict[str, dict[str, tuple[Finding, ...]]] = {}
        self.held: dict[str, dict[str, Held]] = {}
        self.shadowed: Mapping[str, list[Finding]] = {}
        self.alike: Mapping[str, str] = {}
        self._pins = pins
        self._plans = plans
        self._tell = tell
        self._told: dict[tuple[str, ...], None] = {}

    @property
    def strict(self) -> bool:
        return self.book.guard.lookalikes == "quarantine"

    @property
    def _remembers(self) -> bool:
        guard = self.book.guard
        return self.book.pins or "quarantine" in (guard.lookalikes, guard.hidden_text)

    def listing(self, listing: Listing) -> Screened:
        """Everything of one listing, judged; a definition that cannot be judged is held back."""
        lists = (
            [(each.get("name"), each) for each in listing.tools],
            [(f"{PROMPT}{each.get('name')}", each) for each in listing.prompts],
            [(f"{RESOURCE}{each.get('uriTemplate')}", each) for each in listing.templates],
        )
        shown = [(str(name), each) for entries in lists for name, each in entries]
        judged: list[Judged | None] = [None] * len(shown)
        if self._remembers:
            judged = list(self._pins.judge(listing.server, shown, lambda name: self._trusts(listing.server, name)))
        found: dict[str, tuple[Finding, ...]] = {}
        held: dict[str, Held] = {}
        made: list[Shown] = []
        for (name, each), verdict in zip(shown, judged, strict=True):
            result, findings = self._judge(listing.server, name, each, verdict)
            made.append(result)
            if findings:
                found.setdefault(name, findings)
            if result[1]:
                held.setdefault(name, Held(result[1], verdict.digest if verdict is not None else ""))
        self.found[listing.server], self.held[listing.server] = found, held
        tools, prompts = len(listing.tools), len(listing.tools) + len(listing.prompts)
        return Screened(tuple(made[:tools]), tuple(made[tools:prompts]), tuple(made[prompts:]))

    def across(self, parts: Mapping[str, Part], order: Collection[str]) -> Mapping[str, str]:
        """What is held back because it looks like an entry of another server."""
        if self.book.guard.lookalikes == "off":
            self.shadowed = {}
            return {}
        entries = [
            Known(server, tool.name, tool.description, (self._since(server, tool.name), at))
            for at, server in enumerate(order)
            if server in parts
            for tool in parts[server].tools
        ]
        self.shadowed = found = shadows(entries)
        for native, findings in found.items():
            server, _, name = native.partition("/")
            for each in findings:
                self._note(server, name, "", each)
        if not self.strict:
            return {}
        held: dict[str, str] = {}
        for native, findings in found.items():
            server, _, name = native.partition("/")
            if any(each.severity in ("medium", "high") for each in findings) and not self._vouched(parts[server], name):
                held[native] = ALIKE
                self._once(Event(server, name, QUARANTINED, findings[0].says))
        self.alike = held
        return held

    def vouched(self, server: str, name: str, each: str) -> bool:
        """Whether an operator, not chance, approved this definition."""
        return any(
            row.digest == each and row.state == "approved" and row.decided_by != FIRST_SEEN
            for row in self._pins.of(server, name)
        )

    def _vouched(self, part: Part, name: str) -> bool:
        listed = next((each for each in part.listing.tools if each.get("name") == name), None)
        return listed is not None and self.vouched(part.listing.server, name, digest(listed))

    def _since(self, server: str, name: str) -> int:
        """When a name was first seen, in seconds; without pins everything is as old as everything."""
        return int(min((row.seen_at for row in self._pins.of(server, name)), default=0.0))

    def _trusts(self, server: str, name: str) -> bool:
        return self.book.of(f"{server}/{name}").pin != "all"

    def _judge(self, server: str, name: str, each: JSON, judged: Judged | None) -> tuple[Shown, tuple[Finding, ...]]:
        rules = self.book.of(f"{server}/{name}")
        findings: list[Finding] = []
        why = ""
        if rules.pin != "off" and judged is not None:
            each, why = self._by_pin(server, name, each, judged, findings)
        if not why and self.book.guard.hidden_text != "off":
            vouched = judged is not None and self.vouched(server, name, judged.digest)
            each, why = self._by_text(server, name, each, vouched, findings)
        if not why and not name.startswith((PROMPT, RESOURCE)):
            why = self._by_schema(server, name, each, findings)
        for finding in findings:
            self._note(server, name, judged.digest if judged is not None else "", finding)
        return (each, why), tuple(findings)

    def _by_pin(self, server: str, name: str, each: JSON, judged: Judged, findings: list[Finding]) -> Shown:
        rules = self.book.of(f"{server}/{name}")
        if judged.state == "approved":
            return each, ""
        known = judged.approved
        says = "The definition is new." if known is None else "The definition is not the approved one."
        findings.append(Finding("new" if known is None else "changed", says, "high"))
        if known is None or (rules.on_change == "warn" and judged.state in ("rejected", "unwritten")):
            shown = (each if known is None else definition(known)), QUARANTINED
        elif rules.on_change == "warn":
            shown = each, ""
        else:  # what the server claims now decides nothing, not even in a rule of the policy
            shown = definition(known), "" if rules.on_change == "serve_pinned" else QUARANTINED
        what = QUARANTINED if shown[1] else "changed"
        self._once(Event(server, name, what, says, judged.digest))
        return shown

    def _by_text(self, server: str, name: str, each: JSON, vouched: bool, findings: list[Finding]) -> Shown:
        found = hidden(each)
        if not found:
            return each, ""
        findings += found
        mode = self.book.guard.hidden_text
        if mode == "flag" or vouched:
            return each, ""
        if mode == "strip" and clean(name) == name:
            made = strip(each)
            self._once(Event(server, name, "stripped", found[0].says, digest(each)))
            # What a property is called cannot be taken out: arguments must be called so.
            return made, HIDDEN if hidden(made) else ""
        self._once(Event(server, name, QUARANTINED, found[0].says, digest(each)))
        return each, HIDDEN

    def _by_schema(self, server: str, name: str, each: JSON, findings: list[Finding]) -> str:
        plan = self._plans.make(server, name, each)
        for flaw, stops in plan.flaws:
            findings.append(Finding(SCHEMA, flaw, "high" if stops else "medium"))
            if stops:
                self._once(Event(server, name, QUARANTINED, flaw, digest(each)))
        return SCHEMA if any(stops for _, stops in plan.flaws) else ""

    def _note(self, server: str, name: str, each: str, finding: Finding) -> None:
        if self._first(("log", server, name, each, finding.kind, finding.says)):
            level = logging.INFO if finding.severity in ("info", "low") else logging.WARNING
            log.log(level, "server %s: %s: %s", server, repr(name)[:200], finding.says)

    def _once(self, event: Event) -> None:
        if self._first(("event", *map(str, msgspec.structs.astuple(event)))):
            self._tell(event)

    def _first(self, what: tuple[str, ...]) -> bool:
        if what in self._told:
            return False
        if len(self._told) >= TOLD:
            self._told.clear()
        self._told[what] = None
        return True


def findings_of(screening: Screening, server: str, name: str) -> list[dict[str, Any]]:
    """Everything that was found about an entry, for operators."""
    found = [*screening.found.get(server, {}).get(name, ()), *screening.shadowed.get(f"{server}/{name}", ())]
    return [{"kind": each.kind, "says": each.says, "severity": each.severity} for each in found]

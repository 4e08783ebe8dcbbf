"""What an outcome means: compared with the file of expected failures, as a table, as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from tests.npm import NODE

from .install import SUITE
from .suite import ANY, SETS, Leg, Outcome, Scenario

Route = Literal["direct", "callgate"]
ROUTES: tuple[Route, ...] = ("direct", "callgate")


class Asked(NamedTuple):
    """One run: which side of the conversation was tested, with or without callgate, by which requirement set."""

    leg: Leg
    route: Route
    revision: str


Outcomes = Mapping[Asked, Outcome]
EXTENSIONS = "extensions"


class Known(NamedTuple):
    """The scenarios of one leg and revision that are known to fail through callgate."""

    scored: frozenset[str] = frozenset()
    unscored: frozenset[str] = frozenset()


class Surprise(NamedTuple):
    """A scenario that did not do what the file says."""

    asked: Asked
    scenario: str
    kind: Literal["fails", "passes"]

    def __str__(self) -> str:
        told = f"{self.asked.leg} {self.asked.revision} {self.scenario}"
        if self.kind == "passes":
            return f"{told}: passes now; take it out of expected-failures.yaml"
        return f"{told}: fails {'directly' if self.asked.route == 'direct' else 'through callgate'}"


def expected(file: Path) -> dict[tuple[Leg, str], Known]:
    """What the file lists, per leg and revision."""
    # BaseLoader, because a revision looks like a date.
    document = yaml.load(file.read_text("utf-8"), Loader=yaml.BaseLoader) or {}
    beside = document.pop(EXTENSIONS, None) or {}
    for part in (document, beside):
        strange = {leg for leg in part if leg not in SETS}
        strange |= {name for leg in part.keys() - strange for name in part[leg] or () if name not in SETS[leg]}
        if strange:
            raise ValueError(f"{file.name}: no such leg or revision: {', '.join(sorted(strange))}")

    def listed(part: Mapping[str, Any], leg: Leg, revision: str) -> frozenset[str]:
        return frozenset((part.get(leg) or {}).get(revision) or ())

    return {
        (leg, revision): Known(listed(document, leg, revision), listed(beside, leg, revision))
        for leg, revisions in SETS.items()
        for revision in revisions
    }


def surprises(outcomes: Outcomes, known: Mapping[tuple[Leg, str], Known]) -> list[Surprise]:
    """What fails and should not, and what should fail and does not. Directly, everything has to pass."""
    found: list[Surprise] = []
    for asked, outcome in outcomes.items():
        excused = known[asked.leg, asked.revision] if asked.route == "callgate" else Known()
        found += compared(asked, outcome.scored, excused.scored)
        found += compared(asked, outcome.unscored, excused.unscored)
    return found


def compared(asked: Asked, scenarios: Iterable[Scenario], excused: frozenset[str]) -> list[Surprise]:
    """A listed scenario that did not run counts as failing: its name may be wrong."""
    good = {scenario.name: scenario.good for scenario in scenarios}
    failing = frozenset(name for name, passed in good.items() if not passed)
    return [
        *(Surprise(asked, name, "fails") for name in sorted(failing - excused)),
        *(Surprise(asked, name, "passes") for name in sorted(excused & good.keys() - failing)),
        *(Surprise(asked, name, "fails") for name in sorted(excused - good.keys())),
    ]


def cell(scenario: Scenario | None) -> str:
    if scenario is None:
        return "–"
    if scenario.idle:
        return "not run by the suite" if scenario.good else "not offered"
    if scenario.good:
        return "passes"
    return f"fails ({scenario.failed} of {scenario.passed + scenario.failed})" if scenario.failed else "fails"


def rows(outcomes: Outcomes, leg: Leg, revision: str, *, scored: bool = True) -> list[tuple[str, str, str]]:
    """Scenario, direct, through callgate."""
    columns: list[dict[str, Scenario]] = []
    for route in ROUTES:
        outcome = outcomes.get(Asked(leg, route, revision))
        scenarios: Iterable[Scenario] = () if outcome is None else outcome.scored if scored else outcome.unscored
        columns.append({scenario.name: scenario for scenario in scenarios})
    names = list(dict.fromkeys(name for column in columns for name in column))
    return [(name, cell(columns[0].get(name)), cell(columns[1].get(name))) for name in names]


def score(outcome: Outcome | None) -> str:
    return "–" if outcome is None else f"{len(outcome.scored) - len(outcome.failing)}/{len(outcome.scored)}"


def scores(outcomes: Outcomes, leg: Leg, revision: str) -> tuple[str, ...]:
    return tuple(score(outcomes.get(Asked(leg, route, revision))) for route in ROUTES)


def table(outcomes: Outcomes, leg: Leg, revision: str) -> str:
    """All scenarios of one leg and revision for a terminal; the score counts those above it."""
    scored = [*rows(outcomes, leg, revision), ("scored", *scores(outcomes, leg, revision))]
    body = [("scenario", "direct", "through callgate"), *scored, *rows(outcomes, leg, revision, scored=False)]
    widths = [max(len(row[column]) for row in body) for column in range(3)]
    drawn = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in body]
    of = f", revision {revision}" if revision != ANY else ""
    return "\n".join([f"{leg.capitalize()} scenarios{of}", *drawn])


def as_json(outcomes: Outcomes) -> dict[str, Any]:
    """Leg, route, revision, then scored and unscored scenarios by name."""
    told: dict[str, Any] = {"suite": SUITE, "node": NODE}
    for asked, outcome in outcomes.items():
        parts = {"scored": outcome.scored, "unscored": outcome.unscored}
        named = {name: {one.name: one._asdict() for one in part} for name, part in parts.items()}
        told.setdefault(asked.leg, {}).setdefault(asked.route, {})[asked.revision] = named
    return told

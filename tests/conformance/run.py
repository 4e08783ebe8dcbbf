"""Run the official conformance suite: ``python -m tests.conformance.run direct|gateway|all [--leg LEG]``.

In the server leg, ``direct`` asks the fixture and ``gateway`` asks callgate in front of it; in the client leg the
suite is asked by our client, directly or through callgate; in the authorization leg callgate itself is asked, as the
authorization server that it is. ``all`` does everything. Exit 1 when a scenario fails that is not
in ``expected-failures.yaml``, or when one that is there has begun to pass.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.processes import CACHE as KEPT
from tests.processes import ROOT, NotReady, environment, python, start_fixture

from .authorization import authorize
from .gateway import in_front_of
from .install import install
from .page import page
from .suite import ANY, LEGS, NOT_IN_THE_SDK, REVISIONS, SETS, Leg, Outcome, Suite, SuiteError
from .verdict import ROUTES, Asked, Outcomes, Route, as_json, expected, surprises, table

HERE = Path(__file__).resolve().parent
KNOWN = HERE / "expected-failures.yaml"
CACHE = KEPT / "conformance"
PAGE = ROOT / "docs" / "conformance.md"
ASKED: dict[str, tuple[Route, ...]] = {"direct": ("direct",), "gateway": ("callgate",), "all": ROUTES}


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.run", description=__doc__)
    parser.add_argument("route", choices=list(ASKED))
    parser.add_argument("--leg", choices=LEGS, help="only this one")
    parser.add_argument("--revision", action="append", choices=REVISIONS, help="only this one (may be repeated)")
    parser.add_argument("--url", help="ask this running gateway (its single-server endpoint) instead of starting one")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the suite and the results are kept")
    parser.add_argument("--write-docs", action="store_true", help="write docs/conformance.md (with `all`)")
    chosen = parser.parse_args(given)
    if chosen.write_docs and (chosen.route != "all" or chosen.revision or chosen.leg):
        parser.error("--write-docs needs `all`, every leg and every revision")
    if chosen.leg == "authorization" and (chosen.route == "direct" or chosen.revision or chosen.url):
        parser.error("the authorization leg asks a callgate of its own: use `gateway` or `all`, and nothing else")
    chosen.legs = [chosen.leg] if chosen.leg else ["server"] if chosen.url else list(LEGS)
    if not chosen.leg and (chosen.route == "direct" or chosen.revision):
        chosen.legs = [leg for leg in chosen.legs if leg != "authorization"]
    return chosen


def revisions(leg: Leg, chosen: argparse.Namespace) -> Sequence[str]:
    """What one leg is asked for in this run."""
    return chosen.revision or SETS[leg]


def endpoints(stack: ExitStack, chosen: argparse.Namespace, folder: Path) -> dict[Route, str]:
    """Start what the server leg needs and say where the suite shall ask."""
    wanted: dict[Route, str] = {}
    if chosen.url and chosen.route == "gateway":
        return {"callgate": chosen.url}
    running, fixture = start_fixture(folder)
    stack.enter_context(running)
    if chosen.route != "gateway":
        wanted["direct"] = fixture
    if chosen.route != "direct":
        wanted["callgate"] = chosen.url or stack.enter_context(in_front_of(fixture, folder, "fixture"))[1]
    return wanted


def ask(suite: Suite, chosen: argparse.Namespace, folder: Path) -> dict[Asked, Outcome]:
    """The server leg."""
    outcomes: dict[Asked, Outcome] = {}
    with ExitStack() as stack:
        for route, url in endpoints(stack, chosen, folder).items():
            for revision in revisions("server", chosen):
                asked = Asked("server", route, revision)
                tell(f"asking {url} for {revision}")
                outcomes[asked] = suite.ask(url, revision, chosen.cache / "results" / "-".join(asked), progress)
    return outcomes


def play(suite: Suite, chosen: argparse.Namespace) -> dict[Asked, Outcome]:
    """The client leg: the suite starts our client itself, once for each scenario."""
    outcomes: dict[Asked, Outcome] = {}
    for route in ASKED[chosen.route]:
        # The suite has a shell start it, and ends the shell when time is over: then it must be the client.
        client = " ".join(["exec", *python("-m", "tests.conformance.client", route)])
        for revision in revisions("client", chosen):
            asked = Asked("client", route, revision)
            tell(f"playing {revision} {'directly' if route == 'direct' else 'through callgate'}")
            results, without = chosen.cache / "results" / "-".join(asked), _left_out(route)
            outcomes[asked] = suite.play(client, revision, results, progress, without)
    return outcomes


def _left_out(route: Route) -> frozenset[str]:
    return NOT_IN_THE_SDK if route == "direct" else frozenset()


def progress(scenario: str, number: int) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K  {number}  {scenario}", end="\r", file=sys.stderr, flush=True)
    elif number % 10 == 0:
        tell(f"  {number} scenarios, now {scenario}")


def conclude(outcomes: Outcomes, chosen: argparse.Namespace) -> int:
    """Print the tables, write the files, judge."""
    for leg in chosen.legs:
        for revision in revisions(leg, chosen):
            print(table(outcomes, leg, revision), end="\n\n")
    results = chosen.cache / "results.json"
    results.write_text(json.dumps(as_json(outcomes), indent=2) + "\n", "utf-8")
    tell(f"results: {results}")
    if chosen.write_docs:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page(outcomes), "utf-8")
    found = surprises(outcomes, expected(KNOWN))
    for surprise in found:
        tell(str(surprise))
    asked = " and ".join(route for route in ROUTES if any(one.route == route for one in outcomes))
    tell(f"{asked}: {'as expected' if not found else f'{len(found)} not as expected'}")
    return 1 if found else 0


def main(given: Sequence[str] | None = None) -> int:
    chosen = arguments(given)
    chosen.cache.mkdir(parents=True, exist_ok=True)
    # The suite starts our client with the environment that it has itself.
    os.environ.update(environment())
    outcomes: dict[Asked, Outcome] = {}
    try:
        suite = install(chosen.cache, tell)
        compileall.compile_dir(HERE, quiet=2)
        if "server" in chosen.legs:
            with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
                outcomes |= ask(suite, chosen, Path(folder))
        if "client" in chosen.legs:
            outcomes |= play(suite, chosen)
        if "authorization" in chosen.legs:
            asked = Asked("authorization", "callgate", ANY)
            tell("asking callgate as an authorization server")
            with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
                outcomes[asked] = authorize(suite, Path(folder), chosen.cache / "results" / "-".join(asked))
    except (SuiteError, NotReady) as wrong:
        tell(f"error: {wrong}")
        return 2
    return conclude(outcomes, chosen)


if __name__ == "__main__":
    sys.exit(main())

"""Run the official conformance suite: ``python -m tests.conformance.run direct|gateway|all``.

``direct`` asks the fixture, ``gateway`` asks callgate in front of it, ``all`` does both. Exit 1 when a scenario
fails that is not in ``expected-failures.yaml``, or when one that is there has begun to pass.
"""

from __future__ import annotations

import argparse
import compileall
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.processes import CACHE as KEPT
from tests.processes import ROOT, NotReady, free_port, start_callgate, start_fixture

from .suite import REVISIONS, Suite, SuiteError, install
from .verdict import ROUTES, Outcomes, Route, as_json, expected, page, surprises, table

HERE = Path(__file__).resolve().parent
KNOWN = HERE / "expected-failures.yaml"
CACHE = KEPT / "conformance"
PAGE = ROOT / "docs" / "conformance.md"

CONFIG = """\
listen: 127.0.0.1:{port}
admin_listen: 127.0.0.1:{admin}
data_dir: {data}
watch: false
log_level: warning
servers:
  fixture:
    url: {url}
"""


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.run", description=__doc__)
    parser.add_argument("route", choices=["direct", "gateway", "all"])
    parser.add_argument("--revision", action="append", choices=REVISIONS, help="only this one (may be repeated)")
    parser.add_argument("--url", help="ask this running gateway (its single-server endpoint) instead of starting one")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the suite and the results are kept")
    parser.add_argument("--write-docs", action="store_true", help="write docs/conformance.md (with `all`)")
    chosen = parser.parse_args(given)
    if chosen.write_docs and (chosen.route != "all" or chosen.revision):
        parser.error("--write-docs needs `all` and every revision")
    return chosen


def gateway(stack: ExitStack, folder: Path, fixture: str) -> str:
    """Start callgate in front of the fixture; the URL of its single-server endpoint."""
    data = folder / "data"
    data.mkdir()
    config = folder / "callgate.yaml"
    config.write_text(CONFIG.format(port=free_port(), admin=free_port(), data=json.dumps(str(data)), url=fixture))
    running, root = start_callgate(config, folder)
    stack.enter_context(running)
    return f"{root}/servers/fixture/mcp"


def endpoints(stack: ExitStack, chosen: argparse.Namespace, folder: Path) -> dict[Route, str]:
    """Start what is needed and say where the suite shall ask."""
    wanted: dict[Route, str] = {}
    if chosen.url and chosen.route == "gateway":
        return {"callgate": chosen.url}
    compileall.compile_dir(HERE, quiet=2)
    running, fixture = start_fixture(folder)
    stack.enter_context(running)
    if chosen.route != "gateway":
        wanted["direct"] = fixture
    if chosen.route != "direct":
        wanted["callgate"] = chosen.url or gateway(stack, folder, fixture)
    return wanted


def ask(suite: Suite, urls: dict[Route, str], revisions: Sequence[str], results: Path) -> Outcomes:
    outcomes = {}
    for route, url in urls.items():
        for revision in revisions:
            tell(f"asking {url} for {revision}")
            outcomes[route, revision] = suite.run(url, revision, results / f"{route}-{revision}", progress)
    return outcomes


def progress(scenario: str, number: int) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K  {number}  {scenario}", end="\r", file=sys.stderr, flush=True)
    elif number % 10 == 0:
        tell(f"  {number} scenarios, now {scenario}")


def conclude(outcomes: Outcomes, chosen: argparse.Namespace) -> int:
    """Print the tables, write the files, judge."""
    for revision in chosen.revision or REVISIONS:
        print(table(outcomes, revision), end="\n\n")
    results = chosen.cache / "results.json"
    results.write_text(json.dumps(as_json(outcomes), indent=2) + "\n", "utf-8")
    tell(f"results: {results}")
    if chosen.write_docs:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page(outcomes), "utf-8")
    found = surprises(outcomes, expected(KNOWN))
    for surprise in found:
        tell(str(surprise))
    asked = " and ".join(route for route in ROUTES if any(way == route for way, _ in outcomes))
    tell(f"{asked}: {'as expected' if not found else f'{len(found)} not as expected'}")
    return 1 if found else 0


def main(given: Sequence[str] | None = None) -> int:
    chosen = arguments(given)
    chosen.cache.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="conformance-")))
            suite = install(chosen.cache, tell)
            urls = endpoints(stack, chosen, folder)
            outcomes = ask(suite, urls, chosen.revision or REVISIONS, chosen.cache / "results")
    except (SuiteError, NotReady) as wrong:
        tell(f"error: {wrong}")
        return 2
    return conclude(outcomes, chosen)


if __name__ == "__main__":
    sys.exit(main())

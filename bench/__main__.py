"""The command: ``python -m bench [quick|full]`` and ``python -m bench compare A B``."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from rich.console import Console

from bench import compare, page, peers, results
from bench.processes import ROOT, NotStarted
from bench.scenarios import IN_QUICK, SCENARIOS
from bench.show import show
from bench.targets import CALLGATE
from bench.track import Track

LATEST = ROOT / "bench" / "results" / "latest.json"
DOCS = ROOT / "docs"
ADVICE = "python -m bench compare BEFORE.json AFTER.json prints the ratios of two runs."


def arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Compare callgate with others.", epilog=ADVICE)
    parser.add_argument("mode", nargs="?", choices=("quick", "full"), default="quick")
    parser.add_argument("--only", action="append", choices=tuple(SCENARIOS), help="only this part; may be repeated")
    parser.add_argument("--json", type=Path, default=LATEST, metavar="FILE", help="where the figures are written")
    parser.add_argument("--data", type=Path, metavar="DIR", help="keep the gateways' state here instead of deleting it")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench", help="environments of the peers")
    parser.add_argument("--install-peers", action="store_true", help="install FastMCP and ContextForge in the cache")
    parser.add_argument("--python", default="", help="interpreter for the peers (default: a fitting one is looked for)")
    parser.add_argument("--write-docs", action="store_true", help="write docs/performance.md and docs/performance.json")
    return parser.parse_args(given)


def install_peers(chosen: argparse.Namespace, console: Console) -> None:
    for peer in (peers.FASTMCP_PROXY, peers.CONTEXT_FORGE):
        console.print(f"[dim]{peer.package} {peer.version} …[/dim]", highlight=False)
        try:
            peers.install(peer, chosen.cache, chosen.python)
        except peers.Absent as error:
            console.print(f"[yellow]{error}[/yellow]", highlight=False)


def measure(chosen: argparse.Namespace, console: Console) -> results.Results:
    """Run the chosen parts one after the other."""
    folder = Path(tempfile.mkdtemp(prefix="callgate-bench-", dir=chosen.data))
    track = Track(chosen.mode, chosen.cache.resolve(), folder, console)
    begun = monotonic()
    try:
        for name in chosen.only or (SCENARIOS if chosen.mode == "full" else IN_QUICK):
            console.print(f"[bold]{name}[/bold] [dim]after {monotonic() - begun:.0f} s[/dim]", highlight=False)
            try:
                SCENARIOS[name](track)
            except NotStarted as error:  # callgate itself: the other parts still say something
                track.results.skipped[f"{CALLGATE}: {name}"] = str(error)
    finally:
        track.close()
        if not chosen.data:
            shutil.rmtree(folder, ignore_errors=True)
    return track.results


def wide() -> Console:
    """The tables need this many columns; a narrower terminal wraps lines, which loses nothing."""
    return Console(width=max(Console().width, 116))


def write_docs(found: results.Results) -> None:
    if found.soak is None and (DOCS / "performance.json").exists():
        found.soak = results.read(DOCS / "performance.json").soak
    results.write(found, DOCS / "performance.json")
    (DOCS / "performance.md").write_text(page.page(results.read(DOCS / "performance.json")), encoding="utf-8")


def bench(given: Sequence[str]) -> int:
    """Measure, show, write; 1 when callgate did not start or gave a wrong answer."""
    chosen = arguments(given)
    if chosen.data:
        chosen.data.mkdir(parents=True, exist_ok=True)
    progress = Console(stderr=True)
    if chosen.install_peers:
        install_peers(chosen, progress)
    found = measure(chosen, progress)
    show(found, wide())
    results.write(found, chosen.json)
    progress.print(f"[dim]written to {chosen.json}[/dim]", highlight=False)
    if chosen.write_docs:
        write_docs(found)
    return int(failed(found))


def failed(found: results.Results) -> bool:
    wrong = any(figure.errors for figure in found.figures if figure.target.startswith(CALLGATE))
    return wrong or any(name.startswith(CALLGATE) for name in found.skipped)


def main(given: Sequence[str]) -> int:
    if given and given[0] == "compare":
        parser = argparse.ArgumentParser(prog="python -m bench compare", description=compare.__doc__)
        parser.add_argument("before", type=Path)
        parser.add_argument("after", type=Path)
        files = parser.parse_args(given[1:])
        compare.compare(results.read(files.before), results.read(files.after), wide())
        return 0
    return bench(given)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What the demo says before and after the calls."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from callgate.demo.board import Board
from callgate.demo.folder import Folder

if TYPE_CHECKING:
    from callgate.gateway import Gateway
    from callgate.types import ServerStatus


def introduce(board: Board, gateway: Gateway, folder: Folder) -> None:
    from callgate.gateway import ready_line

    house = gateway.house
    servers = " · ".join(f"{each.name} ({_way(each)})" for each in house.statuses())
    tests = len(house.policy.run_tests())
    board.say(ready_line(gateway.url, house.statuses(), house.catalog.tools()), "bold")
    board.say()
    board.facts(
        [
            ("DEMO", "invented data in a temporary folder, removed at the end"),
            ("agents", "support (reads, refunds, writes notes, mails) · analyst (reads)"),
            ("servers", servers),
            ("policy", f"{len(house.policy.rules)} rules, {tests} tests passed"),
            ("", str(folder.policy)),
        ]
    )
    board.say()
    board.heading()


def _way(status: ServerStatus) -> str:
    if status.state != "ready":
        return status.state
    return "a child process" if status.transport == "stdio" else status.transport.upper()


def sum_up(board: Board, seconds: float) -> None:
    counts = dict(board.counts)
    lists = counts.pop("filtered", 0)
    total = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    board.say()
    board.say(f"{sum(counts.values())} calls in {seconds:.0f} s: {total}. Lists filtered: {lists}.", "bold")


def invite(board: Board, gateway: Gateway, folder: Folder, denied: str) -> None:
    """The user's own first calls; ``denied`` is the id of a call that was."""
    name = command()
    url = gateway.url.removesuffix("/mcp")
    board.say()
    board.say("Try it yourself, in another terminal:", "bold")
    board.say()
    board.commands(
        [
            (exported("CALLGATE_URL", url), ""),
            (exported("CALLGATE_TOKEN", folder.keys["you"]), ""),
            (f"{name} call shop/search_orders customer=ada", "allowed"),
            (f"{name} call shop/refund order=17 amount=900", "denied"),
            (f"{name} why {denied}", "a refusal, explained"),
            (f"{name} logs -f", "every call"),
        ]
    )
    board.say()
    board.say("Change a rule and its test and save; it holds at once:")
    board.commands([(str(folder.policy), "")])
    board.say()
    board.say("Your own servers, from the file of your AI client as it is:")
    board.commands([(f"{name} up -c mcp.json", "")])
    board.say()


def command() -> str:
    """How this very callgate is called from a shell in this folder."""
    own = Path(sys.executable).with_name("callgate.exe" if os.name == "nt" else "callgate")
    found = shutil.which("callgate")
    if found is not None and Path(found).resolve() == own.resolve():
        return "callgate"
    if not own.exists():
        return f"{_short(Path(sys.executable))} -m callgate"
    return _short(own)


def _short(path: Path) -> str:
    here = Path.cwd()
    text = str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
    return f'"{text}"' if " " in text else text


def exported(name: str, value: str) -> str:
    return f'$env:{name} = "{value}"' if os.name == "nt" else f"export {name}={value}"

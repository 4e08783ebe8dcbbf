"""The terminal: rows that stay, and on a real terminal a last line that moves."""

from __future__ import annotations

import logging
import os
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from callgate.demo.rows import Row, printable

COLOURS = {
    "allowed": "green",
    "denied": "bold red",
    "filtered": "cyan",
    "refused": "bold magenta",
    "error": "yellow",
    "failed": "bold yellow",
}
#: Widths of the columns that do not grow; at 80 columns 31 are left for the call.
TIME, WHO, VERDICT, RULE, MS = 8, 8, 8, 13, 5
FIXED = TIME + WHO + VERDICT + RULE + MS + 6
CALL, WHY = 36, 60
NARROWEST = 20
STUMP = 6


class Board:
    """Writes to stdout. ``moving``: there is a terminal with colours, so the last line tells how things stand."""

    def __init__(self) -> None:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")  # a Windows code page has no line-drawing characters
        self.terminal = sys.stdout.isatty()
        self.counts: Counter[str] = Counter()
        self.status = ""
        moving = self.terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self._console = Console(
            file=sys.stdout, highlight=False, markup=False, emoji=False, color_system="auto" if moving else None
        )
        self._live = Live(console=self._console, auto_refresh=False, transient=True) if moving else None

    def __enter__(self) -> Board:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str = "", style: str = "") -> None:
        """A line of prose; a terminal that is narrower wraps it, so that it can be copied whole."""
        self._console.print(Text(text, style), soft_wrap=True)

    def facts(self, facts: Sequence[tuple[str, str]]) -> None:
        """What is what, two columns."""
        width = max(len(name) for name, _ in facts)
        for name, text in facts:
            self._console.print(Text("  ").append(f"{name:{width}}  ", "dim").append(text), soft_wrap=True)

    def commands(self, commands: Sequence[tuple[str, str]]) -> None:
        """Commands to copy, each with a word on what comes of it where there is room for it."""
        width = max(len(command) for command, _ in commands)
        for command, remark in commands:
            line = Text("  ").append(command, "bold")
            if remark and width + len(remark) + 6 <= self._console.width:
                line.append(" " * (width - len(command)) + f"  # {remark}", "dim")
            self._console.print(line, soft_wrap=True)

    def heading(self) -> None:
        cells = [("time", TIME), ("agent", WHO), ("call", self._call), ("verdict", VERDICT), ("rule", RULE), ("ms", MS)]
        if self._why:
            cells.append(("why", self._why))
        line = " ".join(name.rjust(width) if name == "ms" else name.ljust(width) for name, width in cells)
        self._line(Text(line, "dim"))
        self._line(Text("─" * min(len(line), self._console.width), "dim"))

    def row(self, row: Row) -> None:
        self.counts[row.verdict] += 1
        colour = COLOURS[row.verdict]
        ms = row.took * 1000
        cells = [
            _cell(time.strftime("%H:%M:%S", time.localtime(row.when)), TIME, "dim"),
            _cell(row.who, WHO),
            _cell(_shortened(row.call, self._call), self._call),
            _cell(row.verdict, VERDICT, colour),
            _cell(row.rule, RULE, "dim" if row.verdict == "allowed" else ""),
            Text((f"{ms:.1f}" if ms < 100 else f"{ms:.0f}").rjust(MS), "dim"),
        ]
        if self._why:
            cells.append(_cell(row.why, self._why, "dim"))
        self._line(Text(" ").join(cells))

    def progress(self, who: str, call: str, done: int, of: int) -> None:
        """Progress of a call that is running: in the last line where that moves, else a line of its own."""
        text = f"{who} waits for {call}: {done} of {of}"
        if self._live is not None:
            self.status = text if done < of else ""
        else:
            self.remark(who, f"{call} has done {done} of {of}")

    def remark(self, kind: str, text: str) -> None:
        """Something that is no call. Sentences are wrapped below each other, excerpts of files are cut."""
        room = max(NARROWEST, self._console.width - TIME - WHO - 2)
        for line in map(printable, text.splitlines()):
            for part in [line] if " |" in line else textwrap.wrap(line, room):
                self._line(Text(f"{'':{TIME}} {kind:{WHO}} {part}", "dim"))
                kind = ""

    def refresh(self) -> None:
        if self._live is not None:
            counts = Text(no_wrap=True, overflow="ellipsis")
            for verdict, colour in COLOURS.items():
                if self.counts[verdict]:
                    counts.append(f"{self.counts[verdict]} {verdict}  ", colour)
            status = Text(self.status or "agents at work", "dim", no_wrap=True, overflow="ellipsis")
            self._live.update(Group(Text(), counts, status), refresh=True)

    @property
    def _call(self) -> int:
        spare = self._console.width - FIXED
        return max(NARROWEST, spare if not self._why else spare - 1 - self._why)

    @property
    def _why(self) -> int:
        """Room for reasons, on a wide terminal only."""
        room = self._console.width - FIXED - 1 - CALL
        return min(room, WHY) if room >= 24 else 0

    def _line(self, line: Text) -> None:
        self._console.print(line, no_wrap=True, overflow="ellipsis", crop=True)


def _shortened(call: str, width: int) -> str:
    """``call`` cut so that it does not end in the first letters of an argument's name.

    >>> _shortened("mailer/send to=kim@acme.test text=hello", 32)
    'mailer/send to=kim@acme.test …'
    """
    words, space, begun = call[: width - 1].rpartition(" ")
    return f"{words} …" if len(call) > width and space and len(begun) < STUMP else call


def _cell(text: str, width: int, style: str = "") -> Text:
    cell = Text(text, style)
    cell.truncate(width, overflow="ellipsis", pad=True)
    return cell


class BoardLog(logging.Handler):
    """The gateway's log between the rows."""

    def __init__(self, board: Board) -> None:
        super().__init__()
        self._board = board

    def emit(self, record: logging.LogRecord) -> None:
        self._board.remark(record.levelname.lower(), record.getMessage())

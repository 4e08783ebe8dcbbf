"""The command line. Commands are imported only when they run."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status (see ``docs/cli.md``)."""
    from callgate.cli.app import run

    return run(sys.argv[1:] if arguments is None else arguments)

"""The commands and how their errors end: data on stdout, everything else on stderr, one exit status per kind."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from callgate import __version__
from callgate.errors import CallgateError

app = App(
    name="callgate",
    help="The one door between AI agents and tools.",
    version=__version__,
    version_flags=["--version"],
)
app.command("callgate.cli.up:up", name="up", help="Start the gateway.")
app.command("callgate.cli.stdio:stdio", name="stdio", help="Serve one client over stdin and stdout.")


def run(arguments: Sequence[str]) -> int:
    try:
        result = app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        print(f"error: {error}\n  help: callgate --help", file=sys.stderr)
        return 2
    except CallgateError as error:
        print(shown(error), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return result if isinstance(result, int) else 0


def shown(error: CallgateError) -> str:
    from callgate.config import render

    return render(error, colour=sys.stderr.isatty() and "NO_COLOR" not in os.environ)

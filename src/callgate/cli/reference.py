"""The reference of the commands, made from the commands.

``python -m callgate.cli.reference [FOLDER]`` writes ``cli.md`` into ``docs`` (or FOLDER); with ``--check`` it exits 1
when that page differs.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cyclopts import App

from callgate.cli.app import COMMANDS, app
from callgate.cli.options import GATEWAY

_INTRO = """\
# Commands

<!-- Generated from src/callgate/cli/ by `python -m callgate.cli.reference`; do not edit. -->

`callgate COMMAND --help` says the same in the terminal.

## Output

Data goes to stdout, everything else (progress, call ids, errors) to stderr. Lists are a table on a terminal and
tab-separated lines without a header when piped; `-o table|json|yaml|jsonl` chooses. In JSON a list is an array whose
objects are those of the [admin API](api.md); `jsonl` prints one object a line, also while following.
`why`, `policy explain` and `doctor` print text unless `-o` is given. `NO_COLOR` and `TERM=dumb` are respected.

## Exit statuses

| status | meaning |
|---|---|
| 0 | done |
| 1 | what was asked about failed: the tool reported an error, a policy test fails, `doctor` found something wrong |
| 2 | the command line is wrong, or callgate itself failed |
| 3 | the configuration or a policy file is wrong |
| 4 | no such tool, server or call |
| 5 | denied |
| 6 | waiting for an approval |
| 7 | the server behind the gateway failed or did not answer in time, or the gateway cannot be reached |
| 8 | not signed in |
| 130 | interrupted |

## The gateway that a command talks to

`ls`, `call`, `logs`, `why`, `whoami` and `policy explain --url …` take these options:

{gateway}

`login` and `logout` take `--url`.

A gateway on this machine tells its admin listener and the file of the operator's token at `/healthz`, and proves that
it has that token; whoever may read that file (the user who runs the gateway) reads everything without a credential of
their own. To a program on the port that cannot prove it no command shows the token. `call` never uses it: a call is
made as `--token` says, else as whoever signed in with `callgate login` ([more](login.md)), else anonymously.
"""


def reference() -> str:
    """The whole page."""
    gateway = "\n".join(_rows(app["ls"], shared=True))
    parts = [_INTRO.replace("{gateway}", gateway)]
    parts += [_section(f"callgate {name}", app[name]) for name in COMMANDS]
    for noun in ("agent", "policy", "config", "secret"):
        parts += [_section(f"callgate {noun} {name}", app[noun][name]) for name in _verbs(app[noun])]
    return "\n".join(parts)


def _verbs(noun: App) -> list[str]:
    return [name for name in noun if not name.startswith("-")]


def _section(title: str, command: App) -> str:
    function = command.default_command
    assert function is not None
    says = inspect.getdoc(function) or ""
    description = says.partition("\nParameters\n")[0].strip()
    lines = [f"## {title}", "", "```", _usage(title, command), "```", "", description, ""]
    return "\n".join([*lines, *_rows(command), ""] if list(_arguments(command, shared=False)) else lines)


def _usage(title: str, command: App) -> str:
    words = [title]
    for each in _arguments(command, shared=False):
        if _positional(each):
            name = each.name.lstrip("-").upper().replace("-", "_")
            many = each.field_info.kind is inspect.Parameter.VAR_POSITIONAL
            words.append(f"[{name}…]" if many else name if each.field_info.required else f"[{name}]")
    return " ".join([*words, "[OPTIONS]"])


def _arguments(command: App, *, shared: bool) -> Iterator[Any]:
    """The arguments of a command: its own, or those that say which gateway is meant."""
    for each in command.assemble_argument_collection(parse_docstring=True):
        group: Any = each.parameter.group  # cyclopts keeps a tuple of groups
        if each.show and (GATEWAY in group) is shared:
            yield each


def _positional(each: Any) -> bool:
    return each.field_info.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)


def _rows(command: App, *, shared: bool = False) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    for each in _arguments(command, shared=shared):
        if _positional(each):
            name = f"`{each.name.lstrip('-').upper().replace('-', '_')}`"
        else:
            name = ", ".join(f"`{name}`" for name in sorted(each.names, key=len, reverse=True))
        yield f"| {name} | {_says(each)} |"


def _says(each: Any) -> str:
    text = " ".join(str(each.parameter.help or "").split()).replace("|", "\\|")
    extra = [f"`{name}`" for name in each.parameter.env_var or ()]
    if each.field_info.default not in (None, False, (), "", inspect.Parameter.empty):
        extra.append(f"default `{each.field_info.default}`")
    return f"{text} ({', '.join(extra)})" if extra else text


def main(arguments: list[str]) -> int:
    known = ("--check", "--write")
    if unknown := [each for each in arguments if each.startswith("-") and each not in known]:
        usage = "usage: python -m callgate.cli.reference [--check] [FOLDER]"
        print(f"unknown option {unknown[0]}; {usage}", file=sys.stderr)
        return 2
    page = Path(next((each for each in arguments if not each.startswith("-")), "docs")) / "cli.md"
    text = reference()
    if "--check" in arguments:
        if page.exists() and page.read_text(encoding="utf-8") == text:
            return 0
        print(f"{page} differs from the commands; run `python -m callgate.cli.reference`", file=sys.stderr)
        return 1
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

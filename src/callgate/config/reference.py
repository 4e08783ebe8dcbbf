"""The configuration reference, made from the model.

``python -m callgate.config.reference [FOLDER]`` writes ``configuration.md`` and ``callgate.schema.json`` into ``docs``
(or FOLDER); with ``--check`` it exits 1 when they differ.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from .decode import fields, is_struct, kind, members, nullable, split, unit
from .layers import NOT_SETTINGS, PREFIX
from .model import Settings
from .schema import schema_text

_INTRO = f"""\
# Configuration

<!-- Generated from src/callgate/config/model.py by `python -m callgate.config.reference`; do not edit. -->

`callgate up -c FILE` reads a `callgate.yaml` (or the same as JSON), or the `mcp.json` of an AI client as it is.
An editor that knows JSON Schema completes and checks the file with [callgate.schema.json](callgate.schema.json):

```yaml
# yaml-language-server: $schema=./callgate.schema.json
listen: 127.0.0.1:8080
servers:
  time: {{command: uvx, args: [mcp-server-time]}}
  docs: {{url: https://example.org/mcp, headers: {{Authorization: "env:DOCS_TOKEN"}}}}
```

## Layers

Highest first; `callgate config show --origin` names the source of each value.

1. flags of the command
2. `{PREFIX}*` environment variables: the key in capitals, `__` between levels (`{PREFIX}AUDIT__DURABILITY=strict`),
   commas between the entries of a list
3. the file given with `-c`, or `./callgate.yaml`
4. `$XDG_CONFIG_HOME/callgate/callgate.yaml` (`~/.config/callgate/callgate.yaml`)
5. `/etc/callgate/callgate.yaml`
6. the defaults below

Sections (`servers`, `virtual_servers`, `identity`, `audit`, `limits`) merge key by key; one server, one virtual server,
a list, a policy and every other value is replaced whole. Relative paths resolve against the folder of the file they
stand in; those of flags and variables against the working directory. {{ignored}} and
`{PREFIX}SECRET_*` are no settings.

## Values

* Durations are seconds, or text with a unit: `250ms`, `30s`, `5m`, `1h`, `1h 30m`.
* Sizes are bytes, or text with a unit: `64KB` (1000), `64KiB` (1024), `1MiB`, `1GiB`.
* Only `true` and `false` are booleans; `on`, `off`, `yes` and `no` are text.
* Where text is wanted a number is taken as it is written (`args: [--port, 8080]`).
* A key given twice, an unknown key, a file or folder that does not exist is an error (exit status 3).

## Client files

A file with `mcpServers` (most clients) or with `servers` and `inputs` (VS Code) is taken unchanged; keys that a client
adds to its entries are left alone, `serverUrl` and `httpUrl` count as `url`. `${{NAME}}`, `${{env:NAME}}` and
`${{NAME:-default}}` are filled from the environment. A name that callgate does not allow is changed (`Google Maps` →
`Google-Maps`) and `up` says so.
"""


def reference() -> str:
    """The reference as Markdown: one table for each section of the file."""
    ignored = ", ".join(f"`{name}`" for name in sorted(NOT_SETTINGS))
    parts = [_INTRO.replace("{ignored}", ignored)]
    parts.extend(_section(Settings, ""))
    return "\n".join(parts)


def _section(type_: Any, path: str) -> Iterator[str]:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    below: list[tuple[Any, str]] = []
    for key, field in fields(type_).items():
        name = f"{path}.{key}" if path else key
        text = _description(field.type)
        inner, at = _inner(field.type, name)
        if inner is not None:
            below.append((inner, at))
            text += f" See [{at}](#{_anchor(at)})."
        rows.append(f"| `{key}` | {_type(field.type)} | {_default(field)} | {text} |")
    yield f"## {path or 'Keys'}\n\n{_said(type_)}" + "\n".join(rows) + "\n"
    for inner, at in below:
        yield from _section(inner, at)


def _said(type_: Any) -> str:
    own = type_.__dict__.get("__doc__")
    return f"{' '.join(own.split()).replace('``', '`')}\n\n" if own else ""


def _anchor(heading: str) -> str:
    """As GitHub makes them."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _description(type_: Any) -> str:
    found = next((meta.description for meta in reversed(split(type_)[1]) if meta.description), "")
    return found.replace("|", "\\|")


def _inner(type_: Any, name: str) -> tuple[Any, str]:
    """The section below a key and what it is called, or ``None``."""
    bare = split(type_)[0]
    args = get_args(bare)
    if is_struct(bare):
        return bare, name
    if kind(bare) == "map" and len(args) == 2 and is_struct(split(args[1])[0]):
        return split(args[1])[0], f"{name}.NAME"
    if kind(bare) == "list" and args and is_struct(split(args[0])[0]):
        return split(args[0])[0], f"{name} entry"
    return None, name


def _type(type_: Any) -> str:
    if found := unit(type_):
        return "duration" if found == "seconds" else "size"
    return " or ".join(_one(part) for part in members(type_))


def _one(type_: Any) -> str:
    bare = split(type_)[0]
    args = get_args(bare)
    if get_origin(bare) is Literal:
        return ", ".join(f"`{choice}`" for choice in args)
    if kind(bare) == "list":
        return f"list of {_plural(args[0])}"
    if kind(bare) == "map":
        return f"mapping of {_plural(args[1])}" if len(args) == 2 and args[1] is not Any else "mapping"
    return {str: "text", int: "number", float: "number", bool: "boolean"}.get(bare, "any")


def _plural(type_: Any) -> str:
    return {"text": "texts", "mapping": "mappings"}.get(_one(type_), _one(type_))


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    if (
        value is None
        or isinstance(value, msgspec.Struct)
        or value in ((), {}, "")
        or (value is None and nullable(field.type))
    ):
        return "–"
    return f"`{_written(value, unit(field.type))}`"


def _written(value: Any, measure: str) -> str:
    """A default as one would write it in the file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(value)}]"
    steps = {"seconds": ((3600, "h"), (60, "m"), (1, "s")), "bytes": ((2**20, "MiB"), (2**10, "KiB"))}.get(measure, ())
    for factor, name in steps:
        if value and value % factor == 0:
            return f"{int(value // factor)}{name}"
    return str(value)


def pages() -> dict[str, str]:
    """File names below ``docs/`` and what they must contain."""
    return {"configuration.md": reference(), "callgate.schema.json": schema_text()}


def main(arguments: list[str]) -> int:
    check = "--check" in arguments
    folder = Path(next((argument for argument in arguments if not argument.startswith("-")), "docs"))
    if unknown := [
        argument for argument in arguments if argument.startswith("-") and argument not in ("--check", "--write")
    ]:
        print(
            f"unknown option {unknown[0]}; usage: python -m callgate.config.reference [--check] [FOLDER]",
            file=sys.stderr,
        )
        return 2
    different = [name for name, text in pages().items() if not _write(folder / name, text, check)]
    for name in different:
        print(f"{folder / name} differs from the model; run `python -m callgate.config.reference`", file=sys.stderr)
    return 1 if different else 0


def _write(path: Path, text: str, check: bool) -> bool:
    """Write the page, or say whether it is as it should be."""
    if check:
        return path.exists() and path.read_text(encoding="utf-8") == text
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

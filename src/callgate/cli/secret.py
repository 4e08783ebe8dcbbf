"""`callgate secret set|ls|rm|rotate-key`: the local store, opened where the gateway keeps it.

A running gateway notices what changes and starts the servers anew that use it.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from callgate.cli.options import Config, Output
from callgate.cli.output import Column, emit, emit_value, field, say
from callgate.config import Loaded, load, variable_of
from callgate.errors import UsageError
from callgate.identity import Secrets, SecretStore, check_name, users
from callgate.store import open_database

#: More is no secret, and is not read.
LARGEST = 64 * 1024 + 2

COLUMNS = (
    Column("SECRET", field("name"), keep=True),
    Column("VERSION", field("version"), right=True),
    Column("CREATED", field("created"), keep=True),
    Column("UPDATED", field("updated"), keep=True),
    Column("FROM", field("source"), keep=True),
    Column("USED BY", field("used_by")),
)


def set_(name: str, /, *arguments: str, config: Config = None, output: Output = None) -> int:
    """Keep a value under a name, in place of the one before.

    The value comes from stdin (one line end at its end is not part of it) or is asked for on a terminal. It is never an
    argument: other users of the machine and the shell's history can read those.

    Parameters
    ----------
    name
        The name, as in `secret:NAME`.
    """
    if arguments or "=" in name:
        raise UsageError(
            "A value is not taken from the command line, where others can read it.",
            hint="`callgate secret set NAME` asks for it, or reads stdin. Replace the value: it has been seen.",
        )
    _, store = _open(config)
    check_name(name)
    row = store.set(name, _value(name))
    _done(f"{name} is set (version {row.version}).", {"name": name, "version": row.version}, output)
    return 0


def ls(*, config: Config = None, output: Output = None) -> int:
    """List the secrets: names, versions, dates, and the servers that use them; also those that are used but not set."""
    loaded, store = _open(config)
    emit(list(_rows(loaded, store)), COLUMNS, output)
    return 0


def rm(name: str, /, *, config: Config = None, output: Output = None) -> int:
    """Drop a secret. Servers that use it fail at their next start, unless the environment has it.

    Parameters
    ----------
    name
        The name of the secret.
    """
    _, store = _open(config)
    store.remove(name)
    _done(f"{name} is gone.", {"name": name}, output)
    return 0


def rotate_key(*, config: Config = None, output: Output = None) -> int:
    """Make a new key and seal every secret with it. The old key is kept until that is done."""
    _, store = _open(config)
    count = store.rotate()
    _done(f"{count} secret{'s' * (count != 1)} sealed with the new key.", {"secrets": count}, output)
    return 0


def _open(config: Path | None) -> tuple[Loaded, SecretStore]:
    loaded = load(config)
    return loaded, Secrets(loaded, open_database(loaded.data_dir)).store


def _value(name: str) -> str:
    if sys.stdin.isatty():
        value = getpass.getpass(f"Value of {name}: ")
        if getpass.getpass("Once more: ") != value:
            raise UsageError("The two values differ; nothing was changed.")
        return value
    raw = sys.stdin.buffer.read(LARGEST + 1)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise UsageError("The value is not UTF-8 text.", hint="Encode it, in base64 for example.") from None
    return text.removesuffix("\n").removesuffix("\r")


def _rows(loaded: Loaded, store: SecretStore) -> Iterator[dict[str, Any]]:
    used = users(loaded.settings)
    kept = store.all()
    for row in kept:
        yield {
            "name": row.name, "version": row.version, "created": _time(row.created_at),
            "updated": _time(row.updated_at), "source": "store", "used_by": used.get(row.name, []),
        }  # fmt: skip
    for name in sorted(used.keys() - {row.name for row in kept}):
        source = "environment" if variable_of(name) in os.environ else "missing"
        yield {"name": name, "version": 0, "created": "", "updated": "", "source": source, "used_by": used[name]}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _done(text: str, told: dict[str, Any], output: Output) -> None:
    if output in (None, "table"):
        say(text)
    else:
        emit_value(told, output)

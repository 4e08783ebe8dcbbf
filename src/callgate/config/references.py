"""Values that stand elsewhere: which settings are references, and those that lead to this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from callgate.errors import ConfigError

#: Kinds of references that lead to a store of secrets.
STORES = frozenset({"secret", "vault"})
_HERE = frozenset({"env", "file"})


def is_reference(value: str) -> bool:
    """Whether a configured value is only the name of another.

    >>> is_reference("secret:docs"), is_reference("Bearer abc"), is_reference("vault:apps/docs#token")
    (True, False, True)
    """
    kind, colon, name = value.partition(":")
    return bool(colon and name) and kind in STORES | _HERE


def stored_name(value: str) -> str:
    """The name in ``secret:NAME``; empty for everything else."""
    kind, _, name = value.partition(":")
    return name if kind == "secret" else ""


def variable_of(name: str) -> str:
    """The environment variable that may hold a secret instead of the store.

    >>> variable_of("docs-token")
    'CALLGATE_SECRET_DOCS_TOKEN'
    """
    return "CALLGATE_SECRET_" + "".join(sign if sign.isalnum() else "_" for sign in name).upper()


def read_here(value: str, base: Path, env: Mapping[str, str] = os.environ) -> str | None:
    """What ``env:NAME`` or ``file:PATH`` leads to; ``None`` for anything else. Touches the disk."""
    kind, _, name = value.partition(":")
    if kind == "env":
        if name not in env:
            raise ConfigError(f"the environment variable {name} is not set")
        return env[name]
    if kind == "file":
        try:
            return (base / name).read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise ConfigError(f"the file {name} cannot be read ({error})") from None
        except ValueError:  # the error of a wrong encoding would show bytes of the file
            raise ConfigError(f"the file {name} cannot be read (it is not UTF-8 text)") from None
    return None

"""Values that stand elsewhere: which settings are references, and those that lead to this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from callgate.errors import ConfigError

from .node import Path_

if TYPE_CHECKING:
    from .model import Settings

#: Kinds of references that lead to a store of secrets.
STORES = frozenset({"secret", "vault", "k8s", "op", "keyring"})
_HERE = frozenset({"env", "file"})
_NAME = r"[A-Za-z0-9_.-](?:[A-Za-z0-9_. -]*[A-Za-z0-9_.-])?"
_FORMS = {
    "k8s": (
        "k8s:NAMESPACE/NAME/KEY",
        re.compile(r"k8s:([a-z0-9][a-z0-9-]{0,62})/([a-z0-9][a-z0-9.-]{0,252})/([A-Za-z0-9._-]{1,253})"),
    ),
    "op": (
        "op://VAULT/ITEM/FIELD or op://VAULT/ITEM/SECTION/FIELD",
        re.compile(rf"op://({_NAME})/({_NAME})(?:/({_NAME}))?/({_NAME})"),
    ),
    "keyring": ("keyring:SERVICE/USER", re.compile(r"keyring:([^\x00-\x1f]+)/([^/\x00-\x1f]+)")),
}


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


def taken_apart(reference: str) -> tuple[str, ...]:
    """The parts of a ``k8s:``, ``op:`` or ``keyring:`` reference; ``ConfigError`` where it has another form.

    >>> taken_apart("k8s:team/docs/token"), taken_apart("op://Team/Docs/api token")
    (('team', 'docs', 'token'), ('Team', 'Docs', '', 'api token'))
    """
    form, pattern = _FORMS[reference.partition(":")[0]]
    found = pattern.fullmatch(reference)
    if found is None:
        raise ConfigError(f"`{reference}` is not of the form `{form}`")
    return found.groups("")


def form_fault(value: str) -> str:
    """What is wrong with the form of a reference, or ``""``."""
    kind, _, name = value.partition(":")
    if kind not in _FORMS or not name:
        return ""
    try:
        taken_apart(value)
    except ConfigError as error:
        return error.message
    return ""


def places(settings: Settings) -> Iterator[tuple[Path_, str]]:
    """Every setting that may be a reference, with its value."""
    for name, server in settings.servers.items():
        at: Path_ = ("servers", name)
        yield from (((*at, "env", key), value) for key, value in server.env.items())
        yield from (((*at, "headers", key), value) for key, value in server.headers.items())
        yield from _given(((*at, "auth", key), getattr(server.auth, key)) for key in ("client_secret", "client_key"))
    yield from _given(
        (("identity", "providers", name, "client_secret"), provider.client_secret)
        for name, provider in settings.identity.providers.items()
    )
    for key in ("vault", "onepassword"):
        if (store := getattr(settings.secrets, key)) is not None:
            yield from _given([(("secrets", key, "token"), store.token)])


def _given(found: Iterable[tuple[Path_, str | None]]) -> Iterator[tuple[Path_, str]]:
    return ((path, value) for path, value in found if value)


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

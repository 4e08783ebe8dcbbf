"""What must agree about references to secrets: their form, and the store that they lead to."""

from __future__ import annotations

from collections.abc import Iterator

from callgate.errors import ConfigError

from .auth_checks import endpoint_fault
from .document import Document
from .model import Secrets, Settings
from .node import Path_
from .references import form_fault, places

#: Kinds of references that need a section of `secrets`, and what is missing without it.
_NEEDS = {"vault": ("vault", "there is no vault"), "op": ("onepassword", "there is no 1Password Connect server")}
_TOKENS = ("env", "file", "secret")


def check_secrets(settings: Settings, document: Document) -> Iterator[ConfigError]:
    """Every reference that cannot lead anywhere, and every fault of the stores."""
    for path, value in places(settings):
        section, lacks = _NEEDS.get(value.partition(":")[0], ("", ""))
        if section and getattr(settings.secrets, section) is None:
            yield document.wrong(lacks, path, hint=f"set `secrets.{section}.url`")
        elif fault := form_fault(value):
            yield document.wrong(fault, path)
    yield from _stores(settings.secrets, document)


def _stores(secrets: Secrets, document: Document) -> Iterator[ConfigError]:
    for key, url in (
        ("kubernetes", secrets.kubernetes.api),
        ("onepassword", getattr(secrets.onepassword, "url", None)),
    ):
        if url is not None and (why := endpoint_fault(url)):
            name = "api" if key == "kubernetes" else "url"
            hint = "write it like `https://secrets.example.org`"
            yield document.wrong(f"`{name}` {why}", ("secrets", key, name), hint=hint)
    for key in ("vault", "onepassword"):
        store = getattr(secrets, key)
        token = store.token if store is not None else None
        if token is not None and token.partition(":")[0] not in _TOKENS:
            hint = "write `env:NAME`, `file:PATH` or `secret:NAME`, and replace the token that stood here"
            at: Path_ = ("secrets", key, "token")
            yield document.wrong("`token` holds a token itself instead of a reference", at, hint=hint)

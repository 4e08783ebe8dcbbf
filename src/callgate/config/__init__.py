"""Settings: where they come from, what they mean, and what is said when they are wrong."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .addresses import Address, parse_address
from .document import Document, decode, parse_document, read_document
from .load import Loaded, Origin, load
from .model import (
    Agent,
    Audit,
    Bytes,
    Count,
    Identity,
    Issuer,
    Key,
    Limits,
    OAuth,
    Seconds,
    Secrets,
    Server,
    Settings,
    Text,
    Vault,
    VirtualServer,
    doc,
)
from .references import STORES, is_reference, read_here, stored_name, variable_of
from .render import render
from .schema import schema, schema_text
from .show import Row, show

if TYPE_CHECKING:
    from .watch import changes

__all__ = [
    "STORES",
    "Address",
    "Agent",
    "Audit",
    "Bytes",
    "Count",
    "Document",
    "Identity",
    "Issuer",
    "Key",
    "Limits",
    "Loaded",
    "OAuth",
    "Origin",
    "Row",
    "Seconds",
    "Secrets",
    "Server",
    "Settings",
    "Text",
    "Vault",
    "VirtualServer",
    "changes",
    "decode",
    "doc",
    "is_reference",
    "load",
    "parse_address",
    "parse_document",
    "read_document",
    "read_here",
    "render",
    "schema",
    "schema_text",
    "show",
    "stored_name",
    "variable_of",
]


def __getattr__(name: str) -> Any:
    """``changes`` needs asyncio, which costs a one-shot command more than all the rest of this room."""
    if name != "changes":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.watch").changes

"""Settings: where they come from, what they mean, and what is said when they are wrong."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .addresses import Address, parse_address
from .allowance import Allowance, allowance, share
from .document import Document, decode, parse_document, read_document
from .kinds import Bytes, Count, Seconds, Text, doc
from .load import Loaded, Origin, load
from .model import Audit, Egress, Kubernetes, Limits, OnePassword, Secrets, Server, Settings, Vault, VirtualServer
from .model_auth import UpstreamAuth
from .model_guard import Guard, MaxResult, ToolGuard
from .model_identity import (
    Agent,
    App,
    ClientCertificates,
    Federation,
    Identity,
    Issuer,
    Key,
    OAuth,
    Provider,
    Workload,
)
from .model_policy import PolicyLayer, ToolClass
from .model_quotas import Price, Quota, QuotasStore, QuotaTo
from .references import STORES, is_reference, places, read_here, stored_name, taken_apart, variable_of
from .render import render
from .schema import schema, schema_text
from .show import Row, show

if TYPE_CHECKING:
    from .watch import changes

__all__ = [
    "STORES",
    "Address",
    "Agent",
    "Allowance",
    "App",
    "Audit",
    "Bytes",
    "ClientCertificates",
    "Count",
    "Document",
    "Egress",
    "Federation",
    "Guard",
    "Identity",
    "Issuer",
    "Key",
    "Kubernetes",
    "Limits",
    "Loaded",
    "MaxResult",
    "OAuth",
    "OnePassword",
    "Origin",
    "PolicyLayer",
    "Price",
    "Provider",
    "Quota",
    "QuotaTo",
    "QuotasStore",
    "Row",
    "Seconds",
    "Secrets",
    "Server",
    "Settings",
    "Text",
    "ToolClass",
    "ToolGuard",
    "UpstreamAuth",
    "Vault",
    "VirtualServer",
    "Workload",
    "allowance",
    "changes",
    "decode",
    "doc",
    "is_reference",
    "load",
    "parse_address",
    "parse_document",
    "places",
    "read_document",
    "read_here",
    "render",
    "schema",
    "schema_text",
    "share",
    "show",
    "stored_name",
    "taken_apart",
    "variable_of",
]


def __getattr__(name: str) -> Any:
    """``changes`` needs asyncio, which costs a one-shot command more than all the rest of this room."""
    if name != "changes":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.watch").changes

"""How much they may: rates, concurrency, quotas and budgets (docs/limits.md)."""

from __future__ import annotations

from .charge import BYTES_PER_TOKEN, Charge, Warned, tokens
from .keeping import Keeper
from .quotas import Quotas
from .rules import Rules
from .shared import Shared

__all__ = ["BYTES_PER_TOKEN", "Charge", "Keeper", "Quotas", "Rules", "Shared", "Warned", "tokens"]

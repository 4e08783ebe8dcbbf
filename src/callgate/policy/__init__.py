"""May they: the rule language, the decision, its explanation, and the permission that follows from it."""

from __future__ import annotations

from .believed import believing
from .bounded import Bounded
from .check import TestResult
from .conditions import MAX_ARGUMENTS, Lost
from .decide import Policy, load_policy, open_policy
from .explain import Explanation, RuleTrace, render_explanation
from .impact import Covered, Difference, Replayed, coverage, differences, imagined, recorded_callers, replay
from .language import Rule
from .limits import BYTES_PER_TOKEN, Charge, Keeper, Quotas, Shared, tokens
from .limits import Rules as QuotaRules
from .patterns import ToolIndex, tool_flaw
from .results import Treatment
from .settle import settle

__all__ = [
    "BYTES_PER_TOKEN",
    "MAX_ARGUMENTS",
    "Bounded",
    "Charge",
    "Covered",
    "Difference",
    "Explanation",
    "Keeper",
    "Lost",
    "Policy",
    "QuotaRules",
    "Quotas",
    "Replayed",
    "Rule",
    "RuleTrace",
    "Shared",
    "TestResult",
    "ToolIndex",
    "Treatment",
    "believing",
    "coverage",
    "differences",
    "imagined",
    "load_policy",
    "open_policy",
    "recorded_callers",
    "render_explanation",
    "replay",
    "settle",
    "tokens",
    "tool_flaw",
]

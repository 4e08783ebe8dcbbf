"""May they: the rule language, the decision, its explanation, and the permission that follows from it."""

from __future__ import annotations

from .bounded import Bounded
from .check import TestResult
from .conditions import MAX_ARGUMENTS
from .decide import Policy, load_policy, open_policy
from .explain import Explanation, RuleTrace, render_explanation
from .language import Rule
from .patterns import ToolIndex, tool_flaw
from .settle import settle

__all__ = [
    "MAX_ARGUMENTS",
    "Bounded",
    "Explanation",
    "Policy",
    "Rule",
    "RuleTrace",
    "TestResult",
    "ToolIndex",
    "load_policy",
    "open_policy",
    "render_explanation",
    "settle",
    "tool_flaw",
]

"""Which rules allow by what is known of a tool, and so by the word of its server where the server is believed."""

from __future__ import annotations

from .decide import Policy

#: What servers claim of their tools.
CLAIMED = frozenset({"tool.readOnly", "tool.destructive", "tool.idempotent", "tool.openWorld", "tool.operation"})


def believing(policy: Policy) -> tuple[str, ...]:
    """The ids of the allow rules that look at annotations or operations (rule POL-6)."""
    return tuple(
        rule.id
        for rule in policy.rules
        if rule.effect == "allow" and (rule.operations or (rule.when is not None and rule.when.needs & CLAIMED))
    )

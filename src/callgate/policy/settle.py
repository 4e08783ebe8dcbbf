"""From a verdict to permission.

``settle`` is the only function of the house that makes a ``Permitted``; ``tests/policy/test_settle.py`` looks
through the source for others.
"""

from __future__ import annotations

from callgate.errors import AwaitingApproval, Denied
from callgate.types import Call, Permitted, Verdict


def settle(call: Call, verdict: Verdict) -> Permitted:
    """The permission for a call that policy allowed.

    Raises ``Denied``, or ``AwaitingApproval`` where a human must answer first (approvals come later, so nobody can
    yet). What the caller reads names only the kind of the refusal (POL-10); the verdict rides along as
    ``error.verdict``, for the audit log.
    """
    if verdict.effect == "allow":
        return Permitted(call, verdict)
    refusal: Denied
    if verdict.effect == "ask":
        refusal = AwaitingApproval("A human must approve this call first.", data={"kind": "approval"})
    else:
        refusal = Denied("The policy does not allow this call.", data={"kind": "denied"})
    refusal.verdict = verdict
    raise refusal

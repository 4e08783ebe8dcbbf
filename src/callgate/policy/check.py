"""The tests that a policy file carries.

A test names a tool that need not exist. What it does not say of the tool (``tool: {readOnly: …}``) is taken as the
specification has it for a server that claims nothing: not read-only, destructive. If a call that is expected to be
allowed is denied that way, it is tried once more as a read-only tool, because whether a tool is read-only is the
server's claim and not the policy's; the result says so in ``note``. A call that is expected to be denied gets no
second try.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from callgate.errors import Place
from callgate.types import Actor, Call, Effect, Front, Operation, Principal, Tool, Verdict

from .language import CallerText, Test, ToolText
from .matching import ANONYMOUS

if TYPE_CHECKING:
    from .decide import Policy

_UNANNOTATED = {"read_only": False, "destructive": True, "idempotent": False, "open_world": True}
_READ_ONLY = {"read_only": True, "destructive": False, "idempotent": True, "open_world": True}


class TestResult(msgspec.Struct, frozen=True):
    """What came of one test. ``expected_by`` is ``None`` when the test names no rule, ``by`` is the deciding rule
    (``""``: the default), ``reason`` what the audit log would say, ``note`` what was assumed.
    """

    __test__ = False  # not a test for pytest

    name: str
    passed: bool
    expected: Effect
    got: Effect
    expected_by: str | None
    by: str
    reason: str
    place: Place
    note: str = ""


def run(policy: Policy, test: Test) -> TestResult:
    """Decide the call of one test and compare."""
    verdict = _judge(policy, test, _UNANNOTATED)
    note = ""
    if not _fits(test, verdict) and test.text.expect != "deny" and _open(test):
        second = _judge(policy, test, _READ_ONLY)
        if _fits(test, second):
            verdict, note = second, f"taking {test.text.call} as a read-only tool"
    return TestResult(
        test.name, _fits(test, verdict), test.text.expect, verdict.effect, test.text.by, verdict.rule, verdict.reason,
        test.place, note,
    )  # fmt: skip


def _fits(test: Test, verdict: Verdict) -> bool:
    return verdict.effect == test.text.expect and test.text.by in (None, verdict.rule)


def _open(test: Test) -> bool:
    """Whether the test leaves open what the server claims."""
    tool = test.text.tool
    return tool.read_only is None and tool.destructive is None and tool.operation is None


def _judge(policy: Policy, test: Test, claims: Mapping[str, bool]) -> Verdict:
    return policy.decide_at(call_of(test, claims), test.now or policy.clock(), shadow=test.shadow)


def call_of(test: Test, claims: Mapping[str, bool] = _UNANNOTATED) -> Call:
    """The call that a test describes; ``claims`` fill in what it does not say of the tool."""
    text = test.text
    request = Front(text.request.door, text.request.version, text.request.era, text.request.transport)
    return Call(0, _caller(text.who), _tool(test, claims), text.args, request, 0)


def _tool(test: Test, claims: Mapping[str, bool]) -> Tool:
    text = test.text.tool
    said: dict[str, Any] = {name: getattr(text, name) for name in claims}
    if text.operation is not None:  # as the operator's classification has it
        usual = {"read_only": text.operation == "read", "destructive": text.operation in ("delete", "execute")}
        claims = {**claims, **usual}
    said = {name: claims[name] if value is None else value for name, value in said.items()}
    operation = text.operation or _operation(text, said)
    return Tool(
        test.server, test.tool, test.text.call, b"{}", description=text.description, operation=operation, **said
    )


def _operation(text: ToolText, said: Mapping[str, bool]) -> Operation:
    """As ``catalog/classes.py`` has it: what only the specification assumes tells nothing."""
    if said["read_only"]:
        return "read"
    return "" if text.destructive is None else "delete" if text.destructive else "write"


def _caller(text: CallerText | None) -> Principal:
    """Without description, or with the subject ``anonymous``, a stranger."""
    if text is None:
        text = CallerText(subject=ANONYMOUS)
    via = text.via or ("anonymous" if text.subject == ANONYMOUS else "key")
    chain = tuple(Actor(actor.subject, actor.issuer, actor.roles) for actor in text.chain)
    return Principal(
        text.subject, f"test:{text.subject}", text.tenant, text.issuer, text.roles, text.groups, text.claims, chain, via
    )  # fmt: skip

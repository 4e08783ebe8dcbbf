"""The decision: may this caller call this tool with these arguments?

Deny wins over ask, ask over allow, and what nobody allows is denied unless the file says ``default: allow``. Of
several rules with the winning effect the first in the files is named. A condition that cannot be decided takes
whichever value makes the verdict stricter (rule POL-2): its deny rule denies, its allow rule does not allow, and
its ask rule turns an allowed call into a question but never a denied one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from callgate.config import Document
from callgate.types import Call, Effect, Front, Principal, Tool, Verdict

from .bounded import Bounded
from .compile import UNLISTED, CallerMask, Masks, ToolMask
from .conditions import EPOCH, MAX_ARGUMENTS, Fault, Inputs
from .language import Rule, Test, Written, read_policy
from .matching import with_barriers
from .wording import printable

if TYPE_CHECKING:
    from .check import TestResult
    from .explain import Explanation

MAX_VERDICTS = 8_192
MAX_SHOWN = 65_536
NO_POLICY = "none"
OPEN = "no policy is configured"
Clock = Callable[[], datetime]


def _now() -> datetime:
    return datetime.now(UTC)


class Policy:
    """A compiled policy; it never changes. All questions may be asked from several threads."""

    def __init__(
        self, written: Written, version: str, *, clock: Clock = _now, max_arguments: int = MAX_ARGUMENTS
    ) -> None:
        self.version = version
        self.rules: tuple[Rule, ...] = written.rules
        self.tests: tuple[Test, ...] = written.tests
        self.default = written.default
        self.clock = clock
        self.max_arguments = max_arguments
        self._masks = Masks(tuple(with_barriers(written.rules)), max_arguments)
        self._verdicts: Bounded[int, Verdict] = Bounded(MAX_VERDICTS)
        self._shown: Bounded[tuple[CallerMask, ToolMask], bool] = Bounded(MAX_SHOWN)

    def decide(self, call: Call) -> Verdict:
        """The verdict on one call. Never raises; whatever goes wrong inside a condition is part of the verdict."""
        masks = self._masks
        caller = masks.caller(call.principal, call.front)
        tool = masks.tool(call.tool)
        matching = caller.mask & tool.mask
        if not matching:
            return tool.unmatched or self._unmatched(tool)
        open_ = matching & (masks.conditional | caller.open | tool.open)
        if open_:
            return self._weigh(matching, open_, Inputs.of(call, self.clock(), self.max_arguments))
        return self._verdicts.get(matching) or self._settled(matching, call)

    def decide_at(self, call: Call, now: datetime) -> Verdict:
        """The verdict as it is at another moment."""
        caller, tool = self._masks.caller(call.principal, call.front), self._masks.tool(call.tool)
        open_ = self._masks.conditional | caller.open | tool.open
        return self._weigh(caller.mask & tool.mask, open_, Inputs.of(call, now, self.max_arguments))

    def visible(self, who: Principal, tools: Sequence[Tool], front: Front) -> list[Tool]:
        """The tools that this caller might be allowed (or allowed to ask for) with some arguments, in their order.

        What is left out is denied when called; what is shown is not denied by a rule that always denies (POL-5).
        """
        masks = self._masks
        caller = masks.caller(who, front)
        mask, weighed = caller.mask, masks.conditional | caller.open
        deny, helps = masks.deny, masks.allow | masks.ask
        open_by_default = self.default == "allow"
        found = []
        for tool in tools:
            entry = masks.tool(tool)
            matching = mask & entry.mask
            if matching & (weighed | entry.open):
                if self._may_show(caller, entry, front):
                    found.append(tool)
            elif not matching & deny and (open_by_default or matching & helps):
                found.append(tool)
        return found

    def list_key(self, who: Principal, front: Front) -> Hashable | None:
        """Callers with equal keys see the same of any list of tools; ``None``: the list must not be kept.

        The key covers this policy only; the door and the version of the catalog are the caller's to add.
        """
        masks = self._masks
        caller = masks.caller(who, front)
        if caller.facts is None or caller.mask & masks.needs_now & ~masks.needs_args:
            return None
        return (self.version, caller.mask, caller.open, caller.facts)

    def prepare(self, tools: Iterable[Tool]) -> None:
        """Compile the masks of these tools (microseconds each), so that the first list need not; fit for a thread."""
        for tool in tools:
            self._masks.tool(tool)

    def explain(self, call: Call) -> Explanation:
        """Why ``decide`` says what it says: every rule, with the clause that fails or the values it saw."""
        from .explain import explain

        return explain(self, call)

    def run_tests(self) -> tuple[TestResult, ...]:
        """The results of the tests in the policy files."""
        from .check import run

        return tuple(run(self, test) for test in self.tests)

    def first_failure(self) -> TestResult | None:
        """The first test that fails; a policy that has one must not replace a running one (POL-7)."""
        return next((result for result in self.run_tests() if not result.passed), None)

    def _unmatched(self, tool: ToolMask) -> Verdict:
        verdict = tool.unmatched = self._by_default(tool.tool, None)
        return verdict

    def _settled(self, matching: int, call: Call) -> Verdict:
        """The verdict of rules that leave nothing open; it depends on nothing but which rules they are."""
        verdict = self._weigh(matching, 0, Inputs.of(call, EPOCH, self.max_arguments))
        self._verdicts.put(matching, verdict)
        return verdict

    def _weigh(self, matching: int, open_: int, inputs: Inputs) -> Verdict:
        masks = self._masks
        for rule, fault in self._standing(matching & masks.deny, open_, inputs):
            return self._verdict("deny", rule, fault)
        doubt: tuple[Rule, Fault] | None = None
        for rule, fault in self._standing(matching & masks.ask, open_, inputs):
            if fault is None:
                return self._verdict("ask", rule, None)
            doubt = doubt or (rule, fault)
        missed = doubt
        for rule, fault in self._standing(matching & masks.allow, open_, inputs):
            if fault is None:
                return self._verdict("ask", *doubt) if doubt else self._verdict("allow", rule, None)
            missed = missed or (rule, fault)
        if doubt and self.default == "allow":
            return self._verdict("ask", *doubt)
        return self._by_default(inputs.tool, missed)

    def _standing(self, mask: int, open_: int, inputs: Inputs) -> Iterator[tuple[Rule, Fault | None]]:
        """The rules of ``mask`` that hold, and with their fault those that cannot be decided."""
        for bit, rule in self._masks.bits(mask):
            answer = rule.when.holds(inputs) if bit & open_ and rule.when is not None else True
            if isinstance(answer, Fault):
                yield rule, answer
            elif answer:
                yield rule, None

    def _may_show(self, caller: CallerMask, tool: ToolMask, front: Front) -> bool:
        """What ``visible`` says of one tool when conditions are open; kept, unless it depends on the time."""
        masks = self._masks
        volatile = caller.mask & tool.mask & masks.needs_now or tool.tool.definition == UNLISTED
        known = None if volatile else self._shown.get((caller, tool))
        if known is None:
            inputs = Inputs(caller.who, tool.tool, front, now=self.clock(), limit=self.max_arguments)
            known = self._shows(caller, tool, inputs)
            if not volatile:
                self._shown.put((caller, tool), known)
        return known

    def _shows(self, caller: CallerMask, tool: ToolMask, inputs: Inputs) -> bool:
        """Conditions over arguments stay open here: they may yet allow, and they do not deny for certain."""
        masks = self._masks
        matching = caller.mask & tool.mask
        open_ = masks.conditional | caller.open | tool.open
        certain = matching & ~masks.needs_args
        if any(self._standing(certain & masks.deny, open_, inputs)):
            return False
        helps = masks.ask | masks.allow
        if self.default == "allow" or matching & helps & masks.needs_args:
            return True
        return any(fault is None for _, fault in self._standing(certain & helps, open_, inputs))

    def _verdict(self, effect: Effect, rule: Rule, fault: Fault | None) -> Verdict:
        said = {"allow": "allowed by", "deny": "denied by", "ask": "approval asked for by"}[effect]
        why = f"its condition cannot be decided: {fault.why}" if fault else rule.reason
        return Verdict(effect, rule.id, f"{said} {rule.id}: {why}" if why else f"{said} {rule.id}", self.version)

    def _by_default(self, tool: Tool, missed: tuple[Rule, Fault] | None) -> Verdict:
        if self.default == "allow":
            return Verdict("allow", "", OPEN if self.version == NO_POLICY else "allowed by default", self.version)
        reason = f"no rule allows {printable(tool.native)}"
        if missed:
            rule, fault = missed
            reason += f"; the condition of {rule.id} cannot be decided: {fault.why}"
        return Verdict("deny", "", reason, self.version)


def load_policy(documents: Sequence[Document], *, clock: Clock = _now, max_arguments: int = MAX_ARGUMENTS) -> Policy:
    """Read, check and compile the documents of one policy; tests are not run (see ``Policy.first_failure``).

    ``version`` is the start of the SHA-256 over what decides: the default and the rules in their order.
    ``max_arguments`` is the encoded size in bytes up to which conditions look at arguments.
    Raises ``ConfigError`` with every mistake found.
    """
    written = read_policy(documents)
    version = hashlib.sha256(written.content).hexdigest()[:12]
    return Policy(written, version, clock=clock, max_arguments=max_arguments)


def open_policy() -> Policy:
    """The policy of a gateway without one (only ever used on a loopback listener): everything is allowed."""
    return Policy(Written("allow", (), (), b""), NO_POLICY)

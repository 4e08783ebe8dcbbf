"""One layer of a policy: rules that are judged together.

Deny wins over ask, ask over allow, and what nobody allows is denied unless the layer says ``default: allow``. Of
several rules with the winning effect the first in the files is named. A condition that cannot be decided takes
whichever value makes the verdict stricter (rule POL-2): its deny rule denies, its allow rule does not allow, and
its ask rule turns an allowed call into a question but never a denied one. An allow rule that needs scopes which the
caller's token lacks does not allow; where nothing else allows, the verdict names them (rule POL-4).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Literal

from callgate.types import Call, Effect, Front, Principal, Tool, Verdict

from .bounded import Bounded
from .compile import UNLISTED, CallerMask, Covers, Masks, ToolMask
from .conditions import EPOCH, Fault, Inputs
from .language import Layer, Rule
from .matching import with_barriers
from .wording import printable

MAX_VERDICTS = 8_192
MAX_SHOWN = 65_536
NO_POLICY = "none"
OPEN = "no policy is configured"
Clock = Callable[[], datetime]
#: What a list can say of a tool: called now, with any arguments, it would be allowed or asked for; it depends on the
#: arguments; it needs a token with more scopes; it would be denied.
Outlook = Literal["allow", "ask", "scopes", "arguments", "deny"]


class Ruleset:
    """A compiled layer; it never changes. All questions may be asked from several threads."""

    def __init__(self, layer: Layer, version: str, clock: Clock, limit: int, covers: Covers = frozenset) -> None:
        self.name = layer.name
        self.default = layer.default
        self.version = version
        self.clock = clock
        self._limit = limit
        self._masks = Masks(tuple(with_barriers(layer.rules)), limit, covers)
        self._verdicts: Bounded[int, Verdict] = Bounded(MAX_VERDICTS)
        self._shown: Bounded[tuple[CallerMask, ToolMask], Outlook] = Bounded(MAX_SHOWN)

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
            return self._weigh(caller, matching, open_, Inputs.of(call, self.clock(), self._limit))
        return self._verdicts.get(matching) or self._settled(caller, matching, call)

    def decide_at(self, call: Call, now: datetime) -> Verdict:
        """The verdict as it is at another moment."""
        caller, tool = self._masks.caller(call.principal, call.front), self._masks.tool(call.tool)
        open_ = self._masks.conditional | caller.open | tool.open
        return self._weigh(caller, caller.mask & tool.mask, open_, Inputs.of(call, now, self._limit))

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
                if self._outlook(caller, entry, front) != "deny":
                    found.append(tool)
            elif not matching & deny and (open_by_default or matching & helps):
                found.append(tool)
        return found

    def outlook(self, who: Principal, tool: Tool, front: Front) -> Outlook:
        """What a list can say of one tool."""
        return self._outlook(self._masks.caller(who, front), self._masks.tool(tool), front)

    def standing(self, call: Call) -> list[Rule]:
        """The rules that apply to a call, and those of which that cannot be decided."""
        masks = self._masks
        caller, tool = masks.caller(call.principal, call.front), masks.tool(call.tool)
        matching = caller.mask & tool.mask
        if not matching:
            return []
        open_ = matching & (masks.conditional | caller.open | tool.open)
        inputs = Inputs.of(call, self.clock() if open_ else EPOCH, self._limit).doubting()
        return [rule for rule, _ in self._standing(matching, open_, inputs)]

    def arguable(self, who: Principal, tool: Tool, front: Front) -> list[Rule]:
        """The rules for this caller and this tool that look at arguments."""
        masks = self._masks
        mask = masks.caller(who, front).mask & masks.tool(tool).mask & masks.needs_args
        return [rule for _, rule in masks.bits(mask)]

    def list_key(self, who: Principal, front: Front) -> Hashable | None:
        """Callers with equal keys see the same of any list of tools; ``None``: the list must not be kept."""
        masks = self._masks
        caller = masks.caller(who, front)
        if caller.facts is None or caller.mask & masks.needs_now & ~masks.needs_args:
            return None
        return (self.version, caller.mask, caller.open, caller.lacking, caller.facts)

    def prepare(self, tools: Iterable[Tool]) -> None:
        """Compile the masks of these tools (microseconds each), so that the first list need not; fit for a thread."""
        for tool in tools:
            self._masks.tool(tool)

    @property
    def depends(self) -> bool:
        """Whether a list can say of a tool anything but that it would be allowed."""
        return bool(self._masks.needs_args or self._masks.ask or self._masks.scoped)

    def _unmatched(self, tool: ToolMask) -> Verdict:
        verdict = tool.unmatched = self._by_default(tool.tool, None)
        return verdict

    def _settled(self, caller: CallerMask, matching: int, call: Call) -> Verdict:
        """The verdict of rules that leave nothing open; it depends on nothing but which rules they are."""
        verdict = self._weigh(caller, matching, 0, Inputs.of(call, EPOCH, self._limit))
        self._verdicts.put(matching, verdict)
        return verdict

    def _weigh(self, caller: CallerMask, matching: int, open_: int, inputs: Inputs) -> Verdict:
        masks = self._masks
        for rule, fault in self._standing(matching & masks.deny, open_, inputs):
            return self._verdict("deny", rule, fault)
        doubt: tuple[Rule, Fault] | None = None
        for rule, fault in self._standing(matching & masks.ask, open_, inputs):
            if fault is None:
                return self._verdict("ask", rule, None)
            doubt = doubt or (rule, fault)
        missed = doubt
        for rule, fault in self._standing(matching & masks.allow & ~caller.lacking, open_, inputs):
            if fault is None:
                return self._verdict("ask", *doubt) if doubt else self._verdict("allow", rule, None)
            missed = missed or (rule, fault)
        if doubt and self.default == "allow":
            return self._verdict("ask", *doubt)
        if self.default == "deny":
            for rule, fault in self._standing(matching & caller.lacking, open_, inputs):
                if fault is None:
                    reason = f"{rule.id} would allow it with a token that has the scopes {' '.join(rule.scopes)}"
                    return Verdict("deny", rule.id, reason, self.version, rule.scopes)
        return self._by_default(inputs.tool, missed)

    def _standing(self, mask: int, open_: int, inputs: Inputs) -> Iterator[tuple[Rule, Fault | None]]:
        """The rules of ``mask`` that hold, and with their fault those that cannot be decided."""
        for bit, rule in self._masks.bits(mask):
            answer = rule.answer(inputs) if bit & open_ else True
            if isinstance(answer, Fault):
                yield rule, answer
            elif answer:
                yield rule, None

    def _outlook(self, caller: CallerMask, tool: ToolMask, front: Front) -> Outlook:
        """The outlook of one tool; kept, unless it depends on the time."""
        masks = self._masks
        volatile = caller.mask & tool.mask & masks.needs_now or tool.tool.definition == UNLISTED
        known = None if volatile else self._shown.get((caller, tool))
        if known is None:
            inputs = Inputs(caller.who, tool.tool, front, now=self.clock(), limit=self._limit)
            known = self._look(caller, tool, inputs)
            if not volatile:
                self._shown.put((caller, tool), known)
        return known

    def _look(self, caller: CallerMask, tool: ToolMask, inputs: Inputs) -> Outlook:
        """Conditions over arguments stay open here: they may yet allow, and they do not deny for certain."""
        masks = self._masks
        matching = caller.mask & tool.mask
        certain, undecided = matching & ~masks.needs_args, matching & masks.needs_args
        open_ = masks.conditional | caller.open | tool.open
        if any(self._standing(certain & masks.deny, open_, inputs)):
            return "deny"
        now = self._certain(caller, certain, open_, inputs)
        if undecided & masks.deny:
            return "arguments" if now != "deny" or undecided & (masks.ask | masks.allow) else "deny"
        if undecided & masks.ask:
            return "ask" if now == "ask" else "arguments"
        return "arguments" if undecided and now in ("deny", "scopes") else now

    def _certain(self, caller: CallerMask, certain: int, open_: int, inputs: Inputs) -> Outlook:
        """What those rules say that do not look at arguments, none of which denies."""
        masks = self._masks
        asks = [fault for _, fault in self._standing(certain & masks.ask, open_, inputs)]
        if None in asks:
            return "ask"
        allows = self._standing(certain & masks.allow & ~caller.lacking, open_, inputs)
        if self.default == "allow" or any(fault is None for _, fault in allows):
            return "ask" if asks else "allow"
        lacks = self._standing(certain & caller.lacking, open_, inputs)
        return "scopes" if any(fault is None for _, fault in lacks) else "deny"

    def _verdict(self, effect: Effect, rule: Rule, fault: Fault | None) -> Verdict:
        said = {"allow": "allowed by", "deny": "denied by", "ask": "approval asked for by"}[effect]
        why = f"its condition cannot be decided: {fault.why}" if fault else rule.reason
        return Verdict(effect, rule.id, f"{said} {rule.id}: {why}" if why else f"{said} {rule.id}", self.version)

    def _by_default(self, tool: Tool, missed: tuple[Rule, Fault] | None) -> Verdict:
        if self.default == "allow":
            return Verdict("allow", "", OPEN if self.version == NO_POLICY else "allowed by default", self.version)
        whose = f"no rule of {printable(self.name)}" if self.name else "no rule"
        reason = f"{whose} allows {printable(tool.native)}"
        if missed:
            rule, fault = missed
            reason += f"; the condition of {rule.id} cannot be decided: {fault.why}"
        return Verdict("deny", "", reason, self.version)

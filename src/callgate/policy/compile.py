"""Rules → bit masks.

Bit *j* of a tool's mask says that rule *j* is for this tool, bit *j* of a caller's mask that it is for this caller;
what both have is what must be weighed. A condition that looks only at the tool, or only at caller and request, is
answered when the mask is made and costs nothing afterwards. Where that answer was a fault, the bit is set in
``open`` too: the rule is asked again in the decision, which knows what a fault means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from callgate.types import Front, Principal, Tool, Verdict

from .bounded import Bounded
from .conditions import VARIABLES, Fault, Inputs
from .language import EFFECTS, Rule
from .matching import Matcher
from .patterns import ToolIndex

MAX_TOOLS = 16_384
MAX_CALLERS = 4_096
#: The definition of what no server has listed (a resource behind a template, a tool of a server that still starts).
UNLISTED = b"{}"


class ToolMask:
    """What the rules say of one tool, whoever calls. ``unmatched`` is the verdict when no rule is left, once known."""

    __slots__ = ("mask", "open", "tool", "unmatched")

    def __init__(self, tool: Tool, mask: int, open_: int) -> None:
        self.tool, self.mask, self.open = tool, mask, open_
        self.unmatched: Verdict | None = None


class CallerMask:
    """What the rules say of one caller through one kind of request, whatever is called.

    ``lacking`` are rules that would allow, had the caller's token all scopes that they need. ``facts`` are the values
    on which open conditions depend, encoded; ``None`` when they cannot be encoded.
    """

    __slots__ = ("facts", "lacking", "mask", "open", "who")

    def __init__(self, who: Principal, mask: int, open_: int, lacking: int = 0) -> None:
        self.who, self.mask, self.open, self.lacking = who, mask, open_ | lacking, lacking
        self.facts: bytes | None = None


Covers = Callable[[Iterable[str]], frozenset[str]]


class Masks:
    """All rules of one policy, compiled. Caches hold as long as the policy object does.

    ``covers`` says what scopes stand for, themselves included.
    """

    def __init__(self, rules: Sequence[Rule], limit: int, covers: Covers = frozenset) -> None:
        self.rules = tuple(rules)
        self.deny, self.ask, self.allow = (
            _bits(at for at, rule in enumerate(rules) if rule.effect == effect) for effect in EFFECTS
        )
        roots = [rule.when.roots if rule.when else frozenset[str]() for rule in rules]
        self._by_tool = _bits(at for at, rule in enumerate(rules) if rule.when and roots[at] <= {"tool"})
        self._by_caller = _bits(at for at in range(len(rules)) if roots[at] and roots[at] <= {"caller", "request"})
        conditional = _bits(at for at, rule in enumerate(rules) if rule.when)
        self.conditional = conditional & ~self._by_tool & ~self._by_caller
        self.needs_args = _bits(at for at in range(len(rules)) if "args" in roots[at])
        self.needs_now = _bits(at for at in range(len(rules)) if "now" in roots[at])
        self._asks_request = any("request" in root for root in roots) or any(rule.virtual_servers for rule in rules)
        self._by_operation = _bits(at for at, rule in enumerate(rules) if rule.operations)
        self.scoped = _bits(at for at, rule in enumerate(rules) if rule.scopes)
        self._covers = covers
        self._index = ToolIndex(rule.tools for rule in rules)
        self._matchers = tuple(Matcher(rule) for rule in rules)
        self._limit = limit
        self._tools: Bounded[tuple[str, str], ToolMask] = Bounded(MAX_TOOLS)
        self._callers: Bounded[Any, CallerMask] = Bounded(MAX_CALLERS)

    def tool(self, tool: Tool) -> ToolMask:
        key = (tool.server, tool.name)
        known = self._tools.get(key)
        if known is not None and known.tool is tool:
            return known
        if known is None or not _same_claims(known.tool, tool):
            known = ToolMask(tool, *self._tool(tool))
        else:
            known = ToolMask(tool, known.mask, known.open)
        if tool.definition != UNLISTED:  # a caller chose its name: no place for it in memory
            self._tools.put(key, known)
        return known

    def caller(self, who: Principal, front: Front) -> CallerMask:
        """The mask of a caller. A principal never changes, so the object itself is the key (held, so that its id
        cannot be taken by another): a token with other roles is another object.
        """
        key: Any = id(who)
        if self._asks_request:
            key = (key, front.door, front.version, front.era, front.transport)
        known = self._callers.get(key)
        if known is not None and known.who is who:
            return known
        known = self._caller(who, front)
        known.facts = self._facts(who, front, known.mask & (self.conditional | known.open))
        self._callers.put(key, known)
        return known

    def bits(self, mask: int) -> Iterator[tuple[int, Rule]]:
        """The rules of a mask, in their order in the files."""
        while mask:
            low = mask & -mask
            yield low, self.rules[low.bit_length() - 1]
            mask ^= low

    def _tool(self, tool: Tool) -> tuple[int, int]:
        matching, unknown = self._index.mask(tool.server, tool.name), 0
        for bit, rule in self.bits(matching & self._by_operation):
            if not tool.operation:
                unknown |= bit
            elif tool.operation not in rule.operations:
                matching ^= bit
        matching, open_ = self._answer(matching, self._by_tool, Inputs(tool=tool, limit=self._limit))
        return matching, open_ | unknown & matching

    def _caller(self, who: Principal, front: Front) -> CallerMask:
        matching = _bits(at for at, matcher in enumerate(self._matchers) if not matcher.caller(who, front))
        matching, open_ = self._answer(matching, self._by_caller, Inputs(who, front=front, limit=self._limit))
        lacking = 0
        if matching & self.scoped:
            held = self._covers(str(who.claims.get("scope", "")).split())
            lacking = sum(bit for bit, rule in self.bits(matching & self.scoped) if not held.issuperset(rule.scopes))
            if who.via != "jwt":  # who has no token cannot get a better one
                matching, lacking = matching & ~lacking, 0
        return CallerMask(who, matching, open_, lacking)

    def _answer(self, matching: int, askable: int, inputs: Inputs) -> tuple[int, int]:
        """``matching`` without the rules whose condition is answered with no, and the faults."""
        open_ = 0
        for bit, rule in self.bits(matching & askable):
            answer = _held(rule, inputs)
            if answer is False:
                matching ^= bit
            elif answer is not True:
                open_ |= bit
        return matching, open_

    def _facts(self, who: Principal, front: Front, open_: int) -> bytes | None:
        static = open_ & ~self.needs_args
        names = {name for _, rule in self.bits(static) if rule.when for name in rule.when.needs}
        inputs = Inputs(who, front=front, limit=self._limit)
        try:
            facts = {
                name: VARIABLES[name].read(inputs) for name in names if VARIABLES[name].root in ("caller", "request")
            }
            return msgspec.json.encode(facts, order="deterministic")
        except Exception:  # claims that are too large, or no JSON: such lists are not shared
            return None


def _bits(places: Iterable[int]) -> int:
    mask = 0
    for at in places:
        mask |= 1 << at
    return mask


def _held(rule: Rule, inputs: Inputs) -> bool | Fault:
    """The condition alone: a caller's mask knows no tool yet."""
    return rule.when.holds(inputs) if rule.when is not None else True


def _same_claims(one: Tool, other: Tool) -> bool:
    """Whether two descriptions of a tool (of the same name) look alike to every rule."""
    return (
        one.read_only == other.read_only
        and one.destructive == other.destructive
        and one.idempotent == other.idempotent
        and one.open_world == other.open_world
        and one.operation == other.operation
        and one.description == other.description
    )

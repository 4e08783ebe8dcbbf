"""The decision: may this caller call this tool with these arguments?

A policy is one or more layers (``ruleset.py``): the files that say what is allowed, and files that narrow it. Every
layer judges by itself and the strictest verdict counts, so that a lower layer can only take away. Files and rules in
shadow mode are judged beside that, and change nothing (rule POL-11).
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import msgspec

from callgate.config import Document
from callgate.types import Answer, Call, Front, Principal, Shadow, Tool, Verdict

from .compile import Covers
from .conditions import MAX_ARGUMENTS
from .language import Layer, Rule, Test, Written
from .reading import read_policy
from .results import Treatment, treat, treatment_of
from .ruleset import NO_POLICY, Clock, Outlook, Ruleset

if TYPE_CHECKING:
    from .check import TestResult
    from .explain import Explanation

__all__ = ["Policy", "load_policy", "open_policy"]

_STRICTNESS = {"allow": 0, "ask": 1, "deny": 2}
_OUTLOOKS: dict[Outlook, int] = {"allow": 0, "ask": 1, "scopes": 2, "arguments": 3, "deny": 4}


def _now() -> datetime:
    return datetime.now(UTC)


class Policy:
    """A compiled policy; it never changes. All questions may be asked from several threads.

    ``treats``: whether there are rules over results, in force or tried out. ``enforced``: whether any file is in force.
    """

    def __init__(
        self, written: Written, version: str, *,
        clock: Clock = _now, max_arguments: int = MAX_ARGUMENTS, covers: Covers = frozenset,
    ) -> None:  # fmt: skip
        self.version = version
        self.rules: tuple[Rule, ...] = written.rules
        self.results: tuple[Rule, ...] = written.results
        self.tests: tuple[Test, ...] = written.tests
        self.enforced = written.enforced
        self.clock = clock
        self.max_arguments = max_arguments
        self.covers = covers

        def compiled(layers: Sequence[Layer]) -> tuple[Ruleset, ...]:
            return tuple(Ruleset(layer, version, clock, max_arguments, covers) for layer in layers)

        self._first, *self._lower = compiled(written.layers)
        self._tried = compiled(written.tried)
        self.default: Literal["allow", "deny"] = (
            "allow" if all(layer.default == "allow" for layer in written.layers) else "deny"
        )
        (self._treating,) = compiled([Layer("", "allow", written.results)])
        self.treats = bool(written.results)
        self.depends = any(layer.depends for layer in (self._first, *self._lower))
        self._composed = bool(self._lower or self._tried)

    def decide(self, call: Call) -> Verdict:
        """The verdict on one call. Never raises; whatever goes wrong inside a condition is part of the verdict."""
        verdict = self._first.decide(call)
        if not self._composed:
            return verdict
        verdict = _strictest([verdict, *(layer.decide(call) for layer in self._lower)])
        if self._tried:
            return _beside(verdict, _strictest([layer.decide(call) for layer in self._tried]))
        return verdict

    def decide_at(self, call: Call, now: datetime, *, shadow: bool = False) -> Verdict:
        """The verdict as it is at another moment; with ``shadow`` as it would be if shadow rules counted."""
        layers = self._tried if shadow and self._tried else (self._first, *self._lower)
        return _strictest([layer.decide_at(call, now) for layer in layers])

    def treatment(self, call: Call, *, shadow: bool = False) -> Treatment | None:
        """What the rules over results do with the answer to this call, ``None``: nothing."""
        rules = self._treating.standing(call)
        return treatment_of([rule for rule in rules if rule.shadow == shadow])

    def treated(self, treatment: Treatment, answer: Answer) -> Answer:
        """The answer as the caller may read it; raises ``Denied`` for one that is blocked."""
        return treat(treatment, answer, self.version)

    def visible(self, who: Principal, tools: Sequence[Tool], front: Front) -> list[Tool]:
        """The tools that this caller might be allowed (or allowed to ask for) with some arguments, in their order.

        What is left out is denied when called; what is shown is not denied by a rule that always denies (POL-5).
        """
        found = self._first.visible(who, tools, front)
        for layer in self._lower:
            found = layer.visible(who, found, front)
        return found

    def outlook(self, who: Principal, tool: Tool, front: Front) -> Outlook:
        """What a list can say of one tool."""
        found = (layer.outlook(who, tool, front) for layer in (self._first, *self._lower))
        return max(found, key=_OUTLOOKS.__getitem__)

    def arguable(self, who: Principal, tool: Tool, front: Front) -> list[Rule]:
        """The rules for this caller and this tool that look at arguments."""
        return [rule for layer in (self._first, *self._lower) for rule in layer.arguable(who, tool, front)]

    def list_key(self, who: Principal, front: Front) -> Hashable | None:
        """Callers with equal keys see the same of any list of tools; ``None``: the list must not be kept.

        The key covers this policy only; the door and the version of the catalog are the caller's to add.
        """
        if not self._lower:
            return self._first.list_key(who, front)
        keys = tuple(layer.list_key(who, front) for layer in (self._first, *self._lower))
        return None if None in keys else keys

    def prepare(self, tools: Iterable[Tool]) -> None:
        """Compile the masks of these tools (microseconds each), so that the first list need not; fit for a thread."""
        tools = tuple(tools)
        for layer in (self._first, *self._lower, *self._tried):
            layer.prepare(tools)

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


def _strictest(verdicts: Sequence[Verdict]) -> Verdict:
    """The first of the strictest; a denial that a better token would lift only where nobody denies for good."""
    return max(verdicts, key=lambda verdict: (_STRICTNESS[verdict.effect], not verdict.scopes))


def _beside(verdict: Verdict, would: Verdict) -> Verdict:
    """The verdict, with what it would be if it would be another one."""
    if would.effect == verdict.effect:
        return verdict
    return msgspec.structs.replace(verdict, shadow=Shadow(would.effect, would.rule))


def load_policy(
    documents: Sequence[Document], *,
    clock: Clock = _now, max_arguments: int = MAX_ARGUMENTS, covers: Covers = frozenset,
) -> Policy:  # fmt: skip
    """Read, check and compile the documents of one policy; tests are not run (see ``Policy.first_failure``).

    ``version`` is the start of the SHA-256 over what decides: the default and the rules in their order.
    ``max_arguments`` is the encoded size in bytes up to which conditions look at arguments. ``covers`` says what the
    scopes of a token stand for, themselves included.
    Raises ``ConfigError`` with every mistake found.
    """
    written = read_policy(documents)
    version = hashlib.sha256(written.content).hexdigest()[:12]
    return Policy(written, version, clock=clock, max_arguments=max_arguments, covers=covers)


def open_policy() -> Policy:
    """The policy of a gateway without one (only ever used on a loopback listener): everything is allowed."""
    return Policy(Written((Layer("", "allow", ()),), (), (), b""), NO_POLICY)

"""Why a verdict is what it is: every rule, with the clause that fails first or the values that its condition saw.

This reads the rules one by one, without the masks of ``compile``; a test compares the two ways.
"""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from callgate.errors import Place
from callgate.types import Call, Principal, Verdict

from .conditions import VARIABLES, Condition, Fault, Inputs, Unfit
from .language import Kind, Rule
from .matching import ANONYMOUS, Matcher, actors, barrier_of, claimed
from .wording import listed, printable, shown

if TYPE_CHECKING:
    from .decide import Policy

_TEXT = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
_PATH = re.compile(r"(?<![\w.])(?:args|caller|chain|now|request|tool)(?:\s*\.\s*\??\w+(?!\w*\s*\())*")


class RuleTrace(msgspec.Struct, frozen=True):
    """What one rule made of the call.

    ``clause`` is the first part that did not fit (``tool``, ``operations``, ``to``, ``to.roles``, ``chain_any``,
    ``needs``, ``when`` …), ``""`` when the rule stands; ``detail`` says it in words. ``inputs`` are the values that the
    condition looked at, as JSON, ``result`` what it gave (``true``, ``false``, ``undecided: …``; ``""`` when it was not
    asked).
    """

    rule: str
    effect: Kind
    place: Place
    clause: str
    detail: str
    condition: str = ""
    inputs: tuple[tuple[str, str], ...] = ()
    result: str = ""
    decides: bool = False
    shadow: bool = False


class Explanation(msgspec.Struct, frozen=True):
    """The verdict on one call and how every rule contributed, in the order of the files."""

    caller: str
    tool: str
    verdict: Verdict
    default: Literal["allow", "deny"]
    rules: tuple[RuleTrace, ...]

    def lines(self) -> list[str]:
        """The explanation as lines of text for a terminal, without colours."""
        verdict = self.verdict
        said = [f"{printable(self.caller)} calls {printable(self.tool)}"]
        said.append(f"  {verdict.effect}: {printable(verdict.reason)} (policy {verdict.policy})")
        weighed = [trace for trace in self.rules if trace.clause != "tool"]
        width = max((len(trace.rule) for trace in weighed), default=0)
        for trace in weighed:
            said += ["", *_trace_lines(trace, width)]
        if others := [printable(trace.rule) for trace in self.rules if trace.clause == "tool"]:
            said += ["", *textwrap.wrap(f"not for this tool: {', '.join(others)}", 100, subsequent_indent="  ")]
        if not verdict.rule:
            said += ["", f"no rule decides; the default is {self.default}"]
        return said


def explain(policy: Policy, call: Call) -> Explanation:
    """See ``Policy.explain``."""
    now = policy.clock()
    verdict = policy.decide_at(call, now)
    inputs = Inputs.of(call, now, policy.max_arguments)
    stranger = call.principal.via == ANONYMOUS
    rules = [(barrier_of(rule) if stranger else None) or rule for rule in (*policy.rules, *policy.results)]
    traces = tuple(_scoped(_trace(rule, call, inputs, verdict), rule, call, policy) for rule in rules)
    return Explanation(_who(call.principal), call.tool.native, verdict, policy.default, traces)


def render_explanation(explanation: Explanation) -> str:
    """The explanation as text for a terminal, without colours."""
    return "\n".join(explanation.lines()) + "\n"


def _who(who: Principal) -> str:
    through = " through " + ", ".join(actor.subject for actor in who.chain) if who.chain else ""
    return who.subject + through


def _trace(rule: Rule, call: Call, inputs: Inputs, verdict: Verdict) -> RuleTrace:
    trace = RuleTrace(
        rule.id, rule.effect, rule.place, "", "it stands", decides=verdict.rule == rule.id, shadow=rule.shadow
    )
    matcher = Matcher(rule)
    if not matcher.tool(call.tool.server, call.tool.name):
        return msgspec.structs.replace(trace, clause="tool", detail=f"it is for {listed(rule.tools)}")
    operation = call.tool.operation
    if rule.operations and operation and operation not in rule.operations:
        detail = f"it is for tools that {listed(rule.operations)}; this one does {operation}"
        return msgspec.structs.replace(trace, clause="operations", detail=detail)
    if clause := matcher.caller(call.principal, call.front):
        return msgspec.structs.replace(trace, clause=clause, detail=_mismatch(clause, rule, call))
    return _conditioned(rule, inputs, trace)


def _scoped(trace: RuleTrace, rule: Rule, call: Call, policy: Policy) -> RuleTrace:
    """A rule that stands, or would if the caller's token had the scopes that it needs."""
    if trace.clause or not rule.scopes:
        return trace
    held = str(call.principal.claims.get("scope", "")).split()
    if policy.covers(held).issuperset(rule.scopes):
        return trace
    detail = f"it needs a token with the scopes {listed(rule.scopes)}; the caller's has {listed(held)}"
    return msgspec.structs.replace(trace, clause="needs", detail=detail)


def _conditioned(rule: Rule, inputs: Inputs, trace: RuleTrace) -> RuleTrace:
    """What a rule that is for this tool and this caller makes of the rest of the call."""
    answer = rule.answer(inputs)
    if rule.when is None:
        if isinstance(answer, Fault):
            return msgspec.structs.replace(
                trace, clause="operations", detail=_outcome(rule, answer), result=f"undecided: {answer.why}"
            )
        return trace
    result = f"undecided: {answer.why}" if isinstance(answer, Fault) else str(answer).lower()
    return msgspec.structs.replace(
        trace,
        clause="" if answer is True else "when",
        detail=_outcome(rule, answer),
        condition=rule.when.text,
        inputs=_inputs(rule.when, inputs),
        result=result,
    )


def _outcome(rule: Rule, answer: bool | Fault) -> str:
    if answer is True:
        return "it stands"
    if answer is False:
        return "its condition does not hold"
    stricter = {
        "allow": "an allow rule does not allow then",
        "deny": "a deny rule denies then",
        "ask": "an ask rule asks then, where the call would be allowed",
        "result": "it applies then",
    }
    what = "its condition cannot be decided" if rule.when is not None else answer.why
    return f"{what}; {stricter[rule.effect]}"


def _mismatch(clause: str, rule: Rule, call: Call) -> str:
    who = call.principal
    if clause == "to":
        return f"the caller is anonymous, and `to.subjects` does not name `{ANONYMOUS}`"
    if clause.startswith("chain_"):
        wanted = _fields(getattr(rule, clause))
        have = "; ".join(f"{actor.subject} with roles {listed(actor.roles)}" for actor in actors(who))
        kind = {"chain_any": "a chain with", "chain_all": "chains of", "chain_first": "a chain that begins with"}
        return f"it is for {kind[clause]} {wanted}; the chain is {have}"
    if clause == "virtual_servers":
        door = call.front.door or "/mcp"
        return f"it is for the virtual servers {listed(rule.virtual_servers)}; the call came by {door}"
    if clause == "tenants":
        return f"it is for the tenants {listed(rule.tenants)}; the caller is of {who.tenant}"
    if clause == "to.claims":
        claims = rule.to.claims if rule.to is not None else {}
        wanted = " and ".join(f"{name} {listed(map(str, values))}" for name, values in claims.items())
        have = "; ".join(f"{name} {listed(claimed(who, name))}" for name in claims)
        return f"it is for claims {wanted}; the caller has {have}"
    return _unlike(clause.removeprefix("to."), rule, who)


def _unlike(field: str, rule: Rule, who: Principal) -> str:
    wanted = listed(getattr(rule.to, field, ()))
    have = {
        "subjects": who.subject,
        "agents": actors(who)[-1].subject,
        "issuers": who.issuer or "none",
        "roles": listed(who.roles),
        "groups": listed(who.groups),
    }[field]
    return f"it is for {field} {wanted}; the caller has {have}"


def _fields(part: msgspec.Struct) -> str:
    return " and ".join(f"{field} {listed(names)}" for field, names in msgspec.structs.asdict(part).items() if names)


def _inputs(condition: Condition, inputs: Inputs) -> tuple[tuple[str, str], ...]:
    """Every name that the condition mentions, with its value."""
    paths = dict.fromkeys(re.sub(r"[\s?]", "", path) for path in _PATH.findall(_TEXT.sub("''", condition.text)))
    return tuple((path, _value(path, inputs)) for path in paths if any(_under(path, name) for name in condition.needs))


def _under(path: str, name: str) -> bool:
    return path == name or path.startswith(f"{name}.")


def _value(path: str, inputs: Inputs) -> str:
    variable = next(name for name in VARIABLES if _under(path, name))
    try:
        value: Any = VARIABLES[variable].read(inputs)
    except Unfit as unfit:
        return f"({unfit})"
    for step in path.removeprefix(variable).split(".")[1:]:
        if not isinstance(value, dict) or step not in value:
            return "(missing)"
        value = value[step]
    return shown(value)


def _trace_lines(trace: RuleTrace, width: int) -> list[str]:
    mark = "=>" if trace.decides else "  "
    tried = "in shadow mode: " if trace.shadow else ""
    said = [f"{mark} {printable(trace.rule):<{width}}  {trace.effect:<5}  {tried}{printable(trace.detail)}"]
    if trace.condition:
        said.append(f"     when {' '.join(trace.condition.split())}")
        said += [f"       {name} = {value}" for name, value in trace.inputs]
        said.append(f"       gives {printable(trace.result)}")
    said.append(f"     at {trace.place.file}:{trace.place.line}")
    return said

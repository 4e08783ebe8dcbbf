"""What another policy would change, and for whom: over known callers and tools, or over recorded calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from callgate.types import Actor, Call, Effect, Front, Principal, Tool

from .decide import Policy
from .language import Rule
from .matching import ANONYMOUS
from .patterns import ToolGlobs
from .ruleset import Outlook

#: What audit records do not keep of a caller; a rule that looks at it cannot be replayed for certain.
UNKEPT = ("caller.groups", "caller.claims")
AWAITING = -31428
REDACTED = "[redacted]"


class Difference(msgspec.Struct, frozen=True):
    """One caller and one tool for which two policies say different things. ``rule_before`` and ``rule_after`` are the
    rules that decide a call without arguments. Where both say ``arguments``, their conditions differ.
    """

    subject: str
    roles: tuple[str, ...]
    tool: str
    before: Outlook
    after: Outlook
    rule_before: str
    rule_after: str
    door: str = ""


class Replayed(msgspec.Struct, frozen=True):
    """One recorded call under another policy. ``unsure`` says why the verdict may be another one."""

    id: str
    time: str
    subject: str
    tool: str
    before: Effect
    after: Effect
    rule_before: str
    rule_after: str
    unsure: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        return self.before != self.after


class Covered(msgspec.Struct, frozen=True):
    """One rule: the tests that pass by it, and how many of the known tools it is for (``None``: none are known)."""

    rule: str
    effect: str
    tests: int
    tools: int | None
    place: str
    shadow: bool = False


def differences(
    old: Policy, new: Policy, callers: Sequence[Principal], tools: Sequence[Tool], doors: Iterable[str] = ("",)
) -> Iterator[Difference]:
    """Every caller, tool and door (as ``Front.door`` has it) for which the two policies differ."""
    for door in doors:
        front = Front(door=door)
        for who in callers:
            for tool in tools:
                before, after = old.outlook(who, tool, front), new.outlook(who, tool, front)
                if before == after and (before != "arguments" or _argue_alike(old, new, who, tool, front)):
                    continue
                call = Call(0, who, tool, {}, front, 0)
                rules = old.decide(call).rule, new.decide(call).rule
                yield Difference(who.subject, who.roles, tool.native, before, after, *rules, door)


def _argue_alike(old: Policy, new: Policy, who: Principal, tool: Tool, front: Front) -> bool:
    return _arguable(old, who, tool, front) == _arguable(new, who, tool, front)


def _arguable(policy: Policy, who: Principal, tool: Tool, front: Front) -> set[tuple[str, str]]:
    return {(rule.effect, rule.when.text) for rule in policy.arguable(who, tool, front) if rule.when is not None}


def imagined(policies: Iterable[Policy]) -> list[Principal]:
    """A stranger, somebody without roles, and somebody for every role and group that a rule names."""
    named: dict[tuple[str, str], None] = {}
    for policy in policies:
        for rule in policy.rules:
            for kind in ("roles", "groups"):
                for part in (rule.to, rule.chain_any, rule.chain_all, rule.chain_first):
                    for name in getattr(part, kind, ()):
                        named[kind, name] = None
    some = [Principal(ANONYMOUS, ANONYMOUS, via="anonymous"), Principal("(anybody)", "(anybody)")]
    for kind, name in named:
        if not set(name) & set("*?["):
            made: dict[str, Any] = {kind: (name,)}
            some.append(Principal(f"({kind.removesuffix('s')} {name})", f"{kind}:{name}", **made))
    return some


def recorded_callers(records: Iterable[Mapping[str, Any]]) -> list[Principal]:
    """Everybody who made one of these calls, once for each set of roles and each chain."""
    found = {}
    for record in records:
        if record.get("policy"):
            who = caller_of(record)
            found[who.subject, who.issuer, who.roles, who.chain, who.via] = who
    return list(found.values())


def caller_of(record: Mapping[str, Any]) -> Principal:
    """The caller of a recorded call, as far as the record keeps it: without groups and claims."""
    actors = record.get("chain", ())
    chain = tuple(Actor(each["sub"], each.get("iss", ""), tuple(each.get("roles", ()))) for each in actors)
    asserted = tuple(Actor(each["sub"], each.get("iss", "")) for each in record.get("asserted", ()))
    return Principal(
        subject=record["subject"], key="", tenant=record["tenant"], issuer=record.get("issuer", ""),
        roles=tuple(record.get("roles", ())), chain=chain, via=record.get("via") or "key", asserted=asserted,
    )  # fmt: skip


def replay(policy: Policy, records: Iterable[Mapping[str, Any]], tools: Mapping[str, Tool]) -> Iterator[Replayed]:
    """Every record of a call that was judged, judged again by ``policy`` at the time of the call.

    ``tools`` are the known ones by their native name.
    """
    for record in records:
        if not record.get("policy") or not record["server"]:
            continue
        native = f"{record['server']}/{record['tool']}"
        tool = tools.get(native)
        known = tool is not None
        if tool is None:
            tool = Tool(record["server"], record["tool"], native, b"{}")
        kept = record.get("args")
        front = Front(record.get("door", ""), record.get("version", ""), record.get("era") or "modern",
                      record.get("transport") or "http")  # fmt: skip
        who = caller_of(record)
        call = Call(0, who, tool, kept if isinstance(kept, dict) else {}, front, 0)
        verdict = policy.decide_at(call, datetime.fromisoformat(record["time"]), shadow=True)
        yield Replayed(
            record["id"], record["time"], who.subject, native, _recorded(record), verdict.effect,
            record.get("rule", ""), verdict.rule, tuple(_doubts(policy, call, record, known=known)),
        )  # fmt: skip


def _recorded(record: Mapping[str, Any]) -> Effect:
    if record["outcome"] != "denied":
        return "allow"
    return "ask" if record.get("error_code") == AWAITING else "deny"


def _doubts(policy: Policy, call: Call, record: Mapping[str, Any], *, known: bool) -> Iterator[str]:
    """Why a record cannot be judged exactly: what it does not keep and a rule for this tool looks at."""
    rules = [rule for rule in policy.rules if ToolGlobs(rule.tools).match(call.tool.server, call.tool.name)]
    needs = {name for rule in rules if rule.when is not None for name in rule.when.needs}
    kept = record.get("args")
    if "args" in needs:
        if isinstance(kept, dict):
            if REDACTED in msgspec.json.encode(kept).decode():
                yield "arguments were redacted"
        elif record.get("args_sha256"):
            yield "arguments were not kept whole"
    if any(name in needs for name in UNKEPT) or any(_asks_unkept(rule) for rule in rules):
        yield "groups and claims are not kept"
    if not known and (any(name.startswith("tool.") for name in needs) or any(rule.operations for rule in rules)):
        yield "the tool is not known now"


def _asks_unkept(rule: Rule) -> bool:
    return bool(rule.scopes) or (rule.to is not None and bool(rule.to.groups or rule.to.claims))


def coverage(policy: Policy, tools: Sequence[Tool]) -> list[Covered]:
    """Every rule with the tests that it decides and the known tools that it is for."""
    deciding = [result.by for result in policy.run_tests() if result.passed]
    return [
        Covered(
            rule.id,
            rule.effect,
            deciding.count(rule.id),
            sum(ToolGlobs(rule.tools).match(tool.server, tool.name) for tool in tools) if tools else None,
            f"{rule.place.file}:{rule.place.line}",
            rule.shadow,
        )
        for rule in (*policy.rules, *policy.results)
    ]

"""`callgate policy diff`, `callgate policy replay` and `callgate policy coverage`: before a policy is taken over."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from callgate.cli.options import HERE, Config, Output, Where
from callgate.cli.output import Column, emit, field, say
from callgate.cli.policy import policy_of
from callgate.cli.policy_known import Known, known

Since = Annotated[str, Parameter(help="Calls since then: an age such as 10m, 2h or 7d, or a time.")]

DIFFERENCES = (
    Column("SUBJECT", field("subject")),
    Column("TOOL", field("tool")),
    Column("BEFORE", field("before"), keep=True),
    Column("AFTER", field("after"), keep=True),
    Column("RULE BEFORE", field("rule_before")),
    Column("RULE AFTER", field("rule_after")),
    Column("AT", field("door")),
)
REPLAYED = (
    Column("TIME", field("time"), keep=True),
    Column("SUBJECT", field("subject"), cut=True),
    Column("TOOL", field("tool"), cut=True),
    Column("WAS", field("before"), keep=True),
    Column("WOULD BE", field("after"), keep=True),
    Column("RULE", field("rule_after")),
    Column("CALL", field("id"), keep=True),
    Column("UNSURE", field("unsure")),
)
COVERED = (
    Column("RULE", field("rule")),
    Column("EFFECT", field("effect"), keep=True),
    Column("TESTS", field("tests"), keep=True, right=True),
    Column("TOOLS", lambda row: "-" if row["tools"] is None else row["tools"], keep=True, right=True),
    Column("AT", field("place"), keep=True),
)


def diff(
    old: Path,
    new: Path,
    /,
    *,
    since: Since = "7d",
    config: Config = None,
    output: Output = None,
    where: Where = HERE,
) -> int:
    """Show what would change for whom if one policy took the place of another; exit status 1 when anything would.

    Callers are those of the configuration (keys, agents), somebody for every role and group in the rules, and whoever
    called lately; tools are those that the servers listed last.

    Parameters
    ----------
    old
        The policy file of now.
    new
        The one that would take its place.
    """
    from callgate.policy import differences, imagined, recorded_callers

    before, after = policy_of([old], None), policy_of([new], None)
    there = known(config, where, since)
    callers = [*there.callers, *imagined([before, after]), *recorded_callers(there.records)]
    doors = ["", *there.doors] if any(rule.virtual_servers for p in (before, after) for rule in p.rules) else [""]
    found = list(differences(before, after, callers, list(there.tools.values()), doors))
    emit([msgspec.to_builtins(each) for each in found], DIFFERENCES, output)
    _say_known(there)
    say(f"{len(found)} differences for {len(callers)} callers and {len(there.tools)} tools")
    return 1 if found else 0


def replay(
    *files: Path,
    since: Since = "7d",
    all_: Annotated[bool, Parameter(name="--all", negative="", help="Show also what would stay as it was.")] = False,
    config: Config = None,
    output: Output = None,
    where: Where = HERE,
) -> int:
    """Judge recorded calls by another policy, its shadow rules included; exit status 1 when one would end differently.

    Parameters
    ----------
    files
        Policy files, together one policy. Default: the policy of the configuration.
    """
    from callgate.policy import replay as judged

    policy = policy_of(files, config)
    there = known(config, where, since)
    calls = list(judged(policy, there.records, there.tools))
    shown = [each for each in calls if all_ or each.changed or each.unsure]
    emit([msgspec.to_builtins(each) for each in shown], REPLAYED, output)
    changed = Counter(f"{each.before} → {each.after}" for each in calls if each.changed)
    unsure = sum(bool(each.unsure) for each in calls)
    _say_known(there)
    told = ", ".join(f"{count} {what}" for what, count in sorted(changed.items())) or "none would change"
    say(f"{len(calls)} calls: {told}; {unsure} cannot be judged exactly")
    return 1 if changed else 0


def coverage(*files: Path, config: Config = None, output: Output = None, where: Where = HERE) -> int:
    """Show which rules a test decides by, and for how many known tools each rule is; exit status 1 for untested rules.

    Parameters
    ----------
    files
        Policy files, together one policy. Default: the policy of the configuration.
    """
    from callgate.policy import believing
    from callgate.policy import coverage as covered

    policy = policy_of(files, config)
    there = known(config, where, None)
    rows = covered(policy, list(there.tools.values()))
    emit([msgspec.to_builtins(each) for each in rows], COVERED, output)
    untested = [each.rule for each in rows if not each.tests and each.effect != "result"]
    if untested:
        say(f"no test decides by: {', '.join(untested)}")
    if idle := [each.rule for each in rows if each.tools == 0]:
        say(f"for no known tool: {', '.join(idle)}")
    if trusting := believing(policy):
        say(f"allow by what is known of a tool (see `servers.NAME.classify`): {', '.join(trusting)}")
    return 1 if untested else 0


def _say_known(there: Known) -> None:
    if not there.tools:
        say("No tools are known: name a configuration with `-c` whose gateway has run, or a gateway with `--url`.")
    if there.cut:
        say("There are more records than were read; narrow `--since`.")

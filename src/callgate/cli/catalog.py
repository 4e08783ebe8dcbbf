"""`callgate catalog pending|diff|approve|reject`: what the guard holds back, and what an operator says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

from cyclopts import Parameter

from callgate.cli.options import HERE, Output, Where
from callgate.cli.output import Column, colours, emit, emit_value, field, plain, say
from callgate.cli.remote import Remote

Digest = Annotated[str, Parameter(help="How the digest of the definition begins that you have looked at.")]
Reason = Annotated[str, Parameter(help="Why, for the audit log.")]
All = Annotated[bool, Parameter(name="--all", negative="", help="Everything of the server that waits.")]
Also = Annotated[
    bool, Parameter(negative="", help="Keep what was approved before, for servers that show users different ones.")
]


def _held(row: Mapping[str, Any]) -> str:
    return str(row["held"]) or "no"


def _kind(row: Mapping[str, Any]) -> str:
    return "changed" if row["change"] else "new"


def _found(row: Mapping[str, Any]) -> str:
    return " ".join(str(each["says"]) for each in row["findings"])


PENDING = (
    Column("DEFINITION", field("name"), keep=True),
    Column("IS", _kind, keep=True),
    Column("HELD BACK", _held),
    Column("DIGEST", lambda row: str(row["digest"])[:12], keep=True),
    Column("FIRST SEEN", field("first_seen")),
    Column("FOUND", _found),
)
_SIGNS = {"added": ("+", "32"), "removed": ("-", "31"), "changed": ("~", "33")}


def pending(server: str | None = None, /, *, output: Output = None, where: Where = HERE) -> int:
    """List the definitions that wait for an operator.

    Parameters
    ----------
    server
        Only those of this server.
    """
    told = asyncio.run(_ask("catalog/pending", where, {"server": server}))
    if output in ("json", "yaml"):
        emit_value(told, output)
        return 0
    emit(told["pending"], PENDING, output)
    waiting = {each["name"] for each in told["pending"]}
    for name, findings in told["findings"].items():
        for each in findings if name not in waiting else ():
            say(f"{name}: {each['says']} ({each['severity']})")
    return 0


def diff(name: str, /, *, digest: Digest = "", output: Output = None, where: Where = HERE) -> int:
    """Show how a definition differs from the approved one.

    Parameters
    ----------
    name
        SERVER/TOOL, SERVER/prompt:NAME or SERVER/resource:TEMPLATE.
    """
    told = asyncio.run(_ask("catalog/diff", where, {"name": name, "digest": digest or None}))
    if output not in (None, "table"):
        emit_value(told, output)
        return 0
    approved = (
        f"approved {told['approved'][:12]} by {plain(told['approved_by'])}" if told["approved"] else "nothing approved"
    )
    say(f"{told['name']}: {told['state']} {told['digest'][:12]}, {approved}")
    for each in told["differences"]:
        for line in _lines(each):
            print(line)
    return 0


def approve(
    name: str, /, *, digest: Digest = "", all_: All = False, also: Also = False, reason: Reason = "",
    output: Output = None, where: Where = HERE,
) -> int:  # fmt: skip
    """Approve a definition as it is now, or with `--all` everything of a server that waits.

    Parameters
    ----------
    name
        SERVER/TOOL, or SERVER with `--all`.
    """
    body = {"name": name, "digest": digest, "all": all_, "also": also, "reason": reason}
    return _decided("approved", asyncio.run(_ask("catalog/approve", where, body=body)), output)


def reject(
    name: str, /, *, digest: Digest = "", all_: All = False, reason: Reason = "", output: Output = None,
    where: Where = HERE,
) -> int:  # fmt: skip
    """Reject a definition: it stays hidden, and waits no more.

    Parameters
    ----------
    name
        SERVER/TOOL, or SERVER with `--all`.
    """
    body = {"name": name, "digest": digest, "all": all_, "reason": reason}
    return _decided("rejected", asyncio.run(_ask("catalog/reject", where, body=body)), output)


async def _ask(path: str, where: Where, query: Mapping[str, Any] | None = None, body: Any = None) -> Any:
    async with Remote(where) as gateway:
        return await gateway.admin(path, query, body)


def _decided(how: str, told: dict[str, Any], output: Output) -> int:
    if output not in (None, "table"):
        emit_value(told, output)
        return 0
    for name in told["decided"]:
        say(f"{how}: {name}")
    return 0


def _lines(each: Mapping[str, Any]) -> list[str]:
    """One difference, as a person reads it; what a server wrote never reaches the terminal with controls in it."""
    sign, colour = _SIGNS[each["kind"]]
    start, end = (f"\x1b[{colour}m", "\x1b[0m") if colours() else ("", "")
    path, before, after = (plain(each[key]) for key in ("path", "before", "after"))
    if each["kind"] != "changed":
        return [f"{start}{sign} {path}: {after if each['kind'] == 'added' else before}{end}"]
    return [f"{start}{sign} {path}{end}", f"    - {before}", f"    + {after}"]

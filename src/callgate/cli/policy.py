"""`callgate policy test` and `callgate policy explain`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from callgate.cli.call import typed
from callgate.cli.options import HERE, Config, Output, Where
from callgate.cli.output import Column, emit, emit_value, field, on_terminal, plain, say
from callgate.config import Document, load, read_document
from callgate.errors import ConfigError, UpstreamUnavailable, UsageError

if TYPE_CHECKING:
    from callgate.policy import Policy

COLUMNS = (
    Column("RESULT", field("result"), keep=True),
    Column("TEST", field("name")),
    Column("EXPECTED", field("expected")),
    Column("GOT", field("got")),
    Column("RULE", field("by")),
    Column("AT", field("place"), keep=True),
    Column("REASON", lambda row: row["reason"] if row["result"] == "FAIL" else row["note"]),
)


def run_tests(*files: Path, config: Config = None, output: Output = None) -> int:
    """Run the tests that stand in the policy files; exit status 1 when one fails.

    Parameters
    ----------
    files
        Policy files, together one policy. Default: the policy of the configuration.
    """
    from callgate.policy import believing

    policy = policy_of(files, config)
    results = policy.run_tests()
    rows = [
        {
            "result": "pass" if each.passed else "FAIL",
            "name": each.name,
            "expected": f"{each.expected} by {each.expected_by}" if each.expected_by else each.expected,
            "got": each.got,
            "by": each.by,
            "place": f"{each.place.file}:{each.place.line}",
            "reason": each.reason,
            "note": each.note,
        }
        for each in results
    ]
    emit(rows, COLUMNS, output)
    failed = sum(not each.passed for each in results)
    say(
        f"{len(results)} test{'s' * (len(results) != 1)}, {failed} failed"
        if results
        else "There are no tests in the policy."
    )
    if trusting := believing(policy):
        say(f"Allow by what is known of a tool, which may be a claim of its server: {', '.join(trusting)}.")
    return 1 if failed else 0


@Parameter(name="*")
@dataclass(frozen=True)
class Imagined:
    """Who would call, and what the tool would claim."""

    as_: Annotated[str, Parameter(name="--as", help="The subject of the caller.")] = "anonymous"
    role: Annotated[tuple[str, ...], Parameter(negative="", help="A role of the caller; may be repeated.")] = ()
    group: Annotated[tuple[str, ...], Parameter(negative="", help="A group of the caller; may be repeated.")] = ()
    issuer: Annotated[str, Parameter(help="The identity provider of the caller.")] = ""
    read_only: Annotated[bool, Parameter(negative="", help="Take the tool as one that claims to be read-only.")] = False

    @property
    def caller(self) -> dict[str, Any]:
        return {"subject": self.as_, "roles": self.role, "groups": self.group, "issuer": self.issuer}


NOBODY = Imagined()


def explain(
    tool: str,
    /,
    *arguments: str,
    imagined: Imagined = NOBODY,
    config: Config = None,
    output: Output = None,
    where: Where = HERE,
) -> int:
    """Show what every rule says of a call that nobody has made.

    With `--url` (or CALLGATE_URL) the running gateway answers, which knows what the server claims of the tool;
    else the policy files do.

    Parameters
    ----------
    tool
        The tool as `server/tool`.
    arguments
        Arguments as `key=value`, and at most one policy file. Default: the policy of the configuration.
    """
    files = [Path(text) for text in arguments if "=" not in text]
    given = {key: typed(value) for key, _, value in (text.partition("=") for text in arguments if "=" in text)}
    if len(files) > 1:
        raise UsageError(f"`{files[1]}` is not of the form `key=value`, and {files[0]} is the policy file already.")
    if "/" not in tool.strip("/"):
        raise UsageError(f"`{tool}` is not of the form `server/tool`.", hint="`callgate ls SERVER` lists the tools.")
    if not files and config is None and (where.url != HERE.url or os.environ.get("CALLGATE_URL")):
        told = asyncio.run(_ask(where, {"as": imagined.caller, "call": tool, "args": given}))
    else:
        told = _told(policy_of(files, config), imagined, tool, given)
    if output in (None, "table"):
        print(plain(told["text"], lines=True) if on_terminal() else told["text"], end="")
    else:
        emit_value(told["explanation"], output)
    return 0


async def _ask(where: Where, question: dict[str, Any]) -> Any:
    from callgate.cli.remote import Remote

    try:
        async with Remote(where) as gateway:
            return await gateway.admin("policy/explain", body=question)
    except UpstreamUnavailable as error:
        hint = "Start it with `callgate up`. To ask the files: name one, or `-c FILE`, or unset CALLGATE_URL."
        raise UpstreamUnavailable(error.message, hint=hint) from None


def _told(policy: Policy, imagined: Imagined, name: str, given: dict[str, Any]) -> dict[str, Any]:
    from callgate.policy import render_explanation
    from callgate.types import Call, Front, Principal, Tool

    stranger = imagined.as_ == "anonymous" and not imagined.issuer
    via: Literal["anonymous", "key", "jwt"] = "anonymous" if stranger else "jwt" if imagined.issuer else "key"
    who = Principal(key="", via=via, **imagined.caller)
    server, _, own = name.partition("/")
    tool = Tool(server, own, name, b"{}", read_only=imagined.read_only, destructive=not imagined.read_only,
                operation="read" if imagined.read_only else "")  # fmt: skip
    explanation = policy.explain(Call(0, who, tool, given, Front(), 0))
    return {"explanation": explanation, "text": render_explanation(explanation)}


def policy_of(files: Sequence[Path], config: Path | None) -> Policy:
    """The policy in these files, or the configured one; raises ``ConfigError``."""
    from callgate.policy import load_policy

    documents: Sequence[Document] = [_policy_file(file) for file in files] if files else load(config).policy
    if not documents:
        raise ConfigError("No policy is configured.", hint="Set `policy:` in callgate.yaml, or name a policy file.")
    return load_policy(documents)


def _policy_file(file: Path) -> Document:
    document = read_document(file)
    if isinstance(document.data, dict) and not document.data.keys().isdisjoint({"policy", "servers", "mcpServers"}):
        message = f"`{file}` is a configuration, not a policy file."
        raise ConfigError(message, hint=f"Write `-c {file}` to take the policy that it configures.")
    return document

"""`callgate agent ls|show|secret|revoke` and `callgate people revoke`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from cyclopts import Parameter

from callgate.cli.options import HERE, Config, Output, Where
from callgate.cli.output import Column, emit, emit_value, field, say
from callgate.cli.remote import Remote
from callgate.config import Agent, load
from callgate.errors import NotFound, nearest
from callgate.identity import new_key, proofs

Reason = Annotated[str, Parameter(help="Why, for the audit log.")]

COLUMNS = (
    Column("NAME", field("name"), keep=True),
    Column("STATUS", field("status")),
    Column("OWNER", field("owner")),
    Column("ROLES", field("roles")),
    Column("PROOF", field("proofs")),
    Column("DELEGATES TO", field("may_delegate_to")),
    Column("LAST TOKEN", field("last_token")),
)


def ls(*, config: Config = None, output: Output = None, where: Where = HERE) -> int:
    """List the agents of the gateway; with a configuration, those that stand there."""
    rows = _configured(config) if config is not None else asyncio.run(_ask("agents", where))["agents"]
    emit(rows, COLUMNS, output)
    return 0


def show(name: str, /, *, config: Config = None, output: Output = None, where: Where = HERE) -> int:
    """Show one agent.

    Parameters
    ----------
    name
        Its name in the configuration.
    """
    if config is None:
        emit_value(asyncio.run(_ask(f"agents/{quote(name, safe='')}", where)), output or "yaml")
        return 0
    rows = {row["name"]: row for row in _configured(config)}
    if name not in rows:
        near = nearest(name, rows)
        raise NotFound(f"There is no agent `{name}`.", hint=f"Did you mean `{near}`?" if near else "")
    emit_value(rows[name], output or "yaml")
    return 0


def revoke(name: str, /, *, reason: Reason = "", output: Output = None, where: Where = HERE) -> int:
    """End all tokens until now that have the agent in their chain. To keep it out, suspend it in the configuration.

    Parameters
    ----------
    name
        Its name in the configuration.
    """
    told = asyncio.run(_ask(f"agents/{quote(name, safe='')}/revoke", where, {"reason": reason}))
    return _revoked(told, output)


def revoke_person(
    issuer: str, subject: str, /, *, reason: Reason = "", output: Output = None, where: Where = HERE
) -> int:
    """End everything that a person, and agents and applications in the person's name, hold until now.

    Parameters
    ----------
    issuer
        The issuer that vouches for the person, as in the configuration.
    subject
        The subject of the person's calls, as `callgate logs` shows it.
    """
    body = {"issuer": issuer, "subject": subject, "reason": reason}
    return _revoked(asyncio.run(_ask("people/revoke", where, body)), output)


def secret(name: str, *, output: Output = None) -> int:
    """Make a secret for an agent, and its line for the configuration. Neither is kept anywhere.

    Parameters
    ----------
    name
        Its name in the configuration.
    """
    made, digest = new_key()
    if output is None or output == "table":
        print(made)
        say(f"Give the line above to the agent, and this one to `identity.agents.{name}` in callgate.yaml:")
        say(f"secret_sha256: {digest}")
    else:
        emit_value({"name": name, "secret": made, "secret_sha256": digest}, output)
    return 0


async def _ask(path: str, where: Where, body: Any = None) -> Any:
    async with Remote(where) as gateway:
        return await gateway.admin(path, body=body)


def _revoked(told: dict[str, Any], output: Output) -> int:
    if output in (None, "table"):
        say(f"Everything that {told['subject']} held until {told['until']} is revoked.")
    else:
        emit_value(told, output)
    return 0


def _configured(config: Path) -> list[dict[str, Any]]:
    return [_row(name, agent) for name, agent in load(config).settings.identity.agents.items()]


def _row(name: str, agent: Agent) -> dict[str, Any]:
    """What the configuration says of an agent, in the shape of the admin API."""
    settings = msgspec.to_builtins(agent)
    for key in ("secret_sha256", "public_key", "jwks_uri"):
        del settings[key]
    return {"name": name, "subject": f"agent:{name}", "proofs": list(proofs(agent)), **settings, "last_token": ""}

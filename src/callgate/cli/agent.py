"""`callgate agent ls`, `callgate agent show` and `callgate agent secret`."""

from __future__ import annotations

from typing import Any

import msgspec

from callgate.cli.options import Config, Output
from callgate.cli.output import Column, emit, emit_value, field, say
from callgate.config import Agent, load
from callgate.errors import NotFound, nearest
from callgate.identity import new_key

COLUMNS = (
    Column("NAME", field("name"), keep=True),
    Column("STATUS", field("status")),
    Column("OWNER", field("owner")),
    Column("ROLES", field("roles")),
    Column("PROOF", field("proof")),
    Column("DELEGATES TO", field("may_delegate_to")),
)


def ls(*, config: Config = None, output: Output = None) -> int:
    """List the agents of the configuration."""
    emit([_row(name, agent) for name, agent in load(config).settings.identity.agents.items()], COLUMNS, output)
    return 0


def show(name: str, *, config: Config = None, output: Output = None) -> int:
    """Show one agent.

    Parameters
    ----------
    name
        Its name in the configuration.
    """
    agents = load(config).settings.identity.agents
    agent = agents.get(name)
    if agent is None:
        near = nearest(name, agents)
        raise NotFound(f"There is no agent `{name}`.", hint=f"Did you mean `{near}`?" if near else "")
    emit_value(_row(name, agent), output or "yaml")
    return 0


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


def _row(name: str, agent: Agent) -> dict[str, Any]:
    proofs = (("secret", agent.secret_sha256), ("public key", agent.public_key), ("jwks", agent.jwks_uri))
    settings = msgspec.to_builtins(agent)
    del settings["secret_sha256"]
    proof = next((word for word, value in proofs if value is not None), "none")
    return {"name": name, "subject": f"agent:{name}", "proof": proof, **settings}

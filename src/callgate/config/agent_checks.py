"""What must agree about the agents: whom they name is there, and somebody issues their tokens."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from callgate.errors import ConfigError, nearest

from .document import Document
from .model import Settings
from .node import Path_


def check_agents(settings: Settings, document: Document) -> Iterator[ConfigError]:
    """Every name that leads nowhere, and agents that nothing is done with."""
    identity = settings.identity
    issuers = {each.issuer for each in identity.jwt} | {each.issuer for each in identity.providers.values()}
    for name, agent in identity.agents.items():
        at: Path_ = ("identity", "agents", name)
        yield from _named(name, (*at, "may_delegate_to"), agent.may_delegate_to, identity.agents, document)
        yield from _named(name, (*at, "acts_for"), agent.acts_for, issuers, document)
    if identity.agents and identity.oauth is None:
        keys = {each.subject for each in identity.keys}
        if not any(f"agent:{name}" in keys for name in identity.agents):
            hint = "add `oauth: {}` under `identity`, which issues the tokens of the agents, or remove `agents`"
            yield document.wrong("`agents` has no effect without `oauth`", ("identity", "agents"), hint=hint, key=True)


def _named(
    agent: str, path: Path_, wanted: Collection[str], known: Collection[str], document: Document
) -> Iterator[ConfigError]:
    for at, name in enumerate(wanted):
        if name not in known:
            found = nearest(name, known)
            hint = f"did you mean `{found}`?" if found else "name one that is configured, or remove it here too"
            said = f"`{path[-1]}` of the agent `{agent}` names `{name}`, which is not there"
            yield document.wrong(said, (*path, at), hint=hint)

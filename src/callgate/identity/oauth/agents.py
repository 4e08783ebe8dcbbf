"""The registry of agents: who they are, what they may have, and whether they are in good standing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from callgate.config import Agent
from callgate.types import Actor

from .grant_types import OF_AGENTS

PREFIX = "agent:"


class Registered(msgspec.Struct, frozen=True):
    """One agent: ``name`` is its client id, ``subject`` who it is in policy and audit."""

    name: str
    config: Agent

    @property
    def subject(self) -> str:
        return PREFIX + self.name

    @property
    def active(self) -> bool:
        return self.config.status == "active"

    @property
    def grants(self) -> frozenset[str]:
        return OF_AGENTS


class Agents:
    """All agents of the configuration. A change of it makes a new registry, so a role lasts no longer than that."""

    def __init__(self, agents: Mapping[str, Agent]) -> None:
        self._agents = {name: Registered(name, config) for name, config in agents.items()}

    def __iter__(self) -> Iterator[Registered]:
        return iter(self._agents.values())

    def find(self, name: str) -> Registered | None:
        return self._agents.get(name)

    def of(self, subject: str) -> Registered | None:
        """The agent with the subject ``agent:NAME``."""
        return self.find(subject.removeprefix(PREFIX)) if subject.startswith(PREFIX) else None

    @staticmethod
    def claims(subject: str) -> bool:
        """Whether a subject is one that only our own tokens may have: no provider says who is our agent."""
        return subject.startswith(PREFIX)

    def actor(self, subject: str, issuer: str) -> Actor | None:
        """The actor with the roles of now (rule DEL-9); ``None`` for an agent that is gone or suspended."""
        agent = self.of(subject)
        return Actor(subject, issuer, agent.config.roles) if agent is not None and agent.active else None

    @property
    def scopes(self) -> tuple[str, ...]:
        """What tokens may be asked for; never ``offline_access``: there are no refresh tokens (rule RS-6)."""
        found = {scope for agent in self for scope in agent.config.scopes}
        return tuple(sorted(found - {"offline_access"}))


def proofs(config: Agent) -> tuple[str, ...]:
    """How an agent proves itself, in words."""
    ways = (
        ("secret", config.secret_sha256),
        ("public key", config.public_key),
        ("jwks", config.jwks_uri),
        ("workload", config.workloads),
    )
    return tuple(word for word, given in ways if given)

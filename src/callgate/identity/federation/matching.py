"""Which agent a workload is, by the ``workloads`` of the agents."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from callgate.config import Workload
from callgate.identity.claims import claim_at
from callgate.identity.oauth.agents import Registered
from callgate.identity.refusal import Refused


class Attested(msgspec.Struct, frozen=True):
    """What an issuer of workload identities said: ``issuer`` is the name of its entry of the configuration."""

    issuer: str
    subject: str
    claims: Mapping[str, Any] = msgspec.field(default_factory=dict)


class Matcher:
    """The workloads of all agents."""

    def __init__(self, agents: Iterable[Registered]) -> None:
        self._known = [(each, pattern(each.subject), agent) for agent in agents for each in agent.config.workloads]

    def agent(self, workload: Attested) -> Registered:
        """The one agent that the workload is. Raises Refused: also when it is two, and when the one is suspended."""
        found = {
            agent.name: agent
            for each, subjects, agent in self._known
            if each.issuer == workload.issuer and subjects.fullmatch(workload.subject) and _has(workload.claims, each)
        }
        if len(found) != 1:
            raise Refused("not accepted", f"{len(found)} agents are {ascii(workload.subject)[:200]}")
        (agent,) = found.values()
        if not agent.active:
            raise Refused("not accepted", f"{agent.subject} is suspended")
        return agent


def pattern(glob: str) -> re.Pattern[str]:
    """``*`` stands for one or more characters other than ``/`` and ``:``; everything else for itself.

    >>> bool(pattern("system:serviceaccount:team:*").fullmatch("system:serviceaccount:team:planner"))
    True
    >>> bool(pattern("repo:org/*:ref:refs/heads/main").fullmatch("repo:org/app:environment:x:ref:refs/heads/main"))
    False
    """
    return re.compile("[^/:]+".join(re.escape(part) for part in glob.split("*")))


def _has(claims: Mapping[str, Any], wanted: Workload) -> bool:
    return all(_text(claim_at(claims, path)) == value for path, value in wanted.claims.items())


def _text(value: object) -> str | None:
    """A claim as it is written in the configuration; no list or object is equal to a text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else None

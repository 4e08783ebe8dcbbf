"""The people, tools and files of the policy tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from callgate.config import parse_document
from callgate.policy import Policy, load_policy
from callgate.types import Actor, Call, Front, Principal, Tool

NOON = datetime(2026, 7, 28, 12, tzinfo=UTC)


def policy(text: str, *more: str, **options: Any) -> Policy:
    """A policy from YAML; several texts are several files (``policy.yaml``, ``policy2.yaml`` …)."""
    names = ["policy.yaml", *(f"policy{at}.yaml" for at in range(2, len(more) + 2))]
    documents = [parse_document(part, name) for part, name in zip((text, *more), names, strict=True)]
    return load_policy(documents, **{"clock": lambda: NOON, **options})


def of_rules(*rules: Mapping[str, Any], default: str = "deny") -> Policy:
    return policy(json.dumps({"default": default, "rules": rules}))


def someone(subject: str = "alice", *roles: str, **more: Any) -> Principal:
    return Principal(subject, f"key:{subject}", roles=roles, **more)


def stranger() -> Principal:
    return Principal("anonymous", "anonymous", via="anonymous")


def through(*actors: tuple[str, str], roles: tuple[str, ...] = ()) -> Principal:
    """Alice, through a chain of agents given as (subject, role)."""
    return someone("alice", *roles, chain=tuple(Actor(subject, roles=(role,)) for subject, role in actors))


def tool(native: str = "git/status", **claims: Any) -> Tool:
    server, _, name = native.partition("/")
    return Tool(server, name, f"{server}__{name}", b"{}", **claims)


def call(who: Principal, what: Tool | str, front: Front | None = None, **args: Any) -> Call:
    made = tool(what) if isinstance(what, str) else what
    return Call(1, who, made, args, front or Front(), 0)

"""What the admin API takes and gives. The OpenAPI document is made of these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import field

from callgate.policy import Explanation
from callgate.types import Effect, Operation


class Urls(msgspec.Struct, frozen=True):
    mcp: str
    admin: str


class Status(msgspec.Struct, frozen=True):
    """How the gateway is doing. ``uptime`` is seconds; ``problems`` is empty for readers who do not read everything."""

    version: str
    uptime: float
    urls: Urls
    ready: bool
    policy: str
    tools: int
    problems: dict[str, str]
    reader: str
    reads_everything: bool


class ServerShown(msgspec.Struct, frozen=True):
    """One upstream server. ``tools`` counts those that the reader may see, ``quarantined`` those held back."""

    name: str
    state: Literal["starting", "ready", "failed", "stopped"]
    transport: Literal["stdio", "http"]
    reason: str
    era: str | None
    version: str
    tools: int
    pids: tuple[int, ...]
    restarts: int
    in_flight: int
    quarantined: int = 0


class Servers(msgspec.Struct, frozen=True):
    servers: list[ServerShown]


class ToolShown(msgspec.Struct, frozen=True, rename={"read_only": "readOnly"}):
    """One tool: its native name (``server/tool``), and the name that the door exposes."""

    name: str
    server: str
    tool: str
    exposed: str
    description: str
    read_only: bool
    destructive: bool
    operation: Operation


class Tools(msgspec.Struct, frozen=True):
    tools: list[ToolShown]


class CallShown(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One audit record. Members that are empty are left out; durations are microseconds, sizes bytes."""

    id: str
    time: str
    tenant: str
    subject: str
    server: str
    tool: str
    outcome: str
    args: dict[str, Any] | str | None = None
    args_sha256: str = ""
    asserted: tuple[dict[str, Any], ...] = ()
    bytes_in: int = 0
    bytes_out: int = 0
    chain: tuple[dict[str, Any], ...] = ()
    door: str = ""
    dropped: int = 0
    duration_us: int = 0
    era: str = ""
    error_code: int | None = None
    guard: tuple[dict[str, str], ...] = ()
    issuer: str = ""
    method: str = ""
    policy: str = ""
    reason: str = ""
    roles: tuple[str, ...] = ()
    rule: str = ""
    shadow: dict[str, str] | None = None
    trace_id: str = ""
    transport: str = ""
    txn: str = ""
    until: str = ""
    upstream_us: int = 0
    version: str = ""
    via: str = ""


class Calls(msgspec.Struct, frozen=True):
    """Newest first; with ``after_id`` in the order in which they were written.

    ``next`` goes into ``before_id`` for the next page (``null`` on the last one), or into ``after_id`` for what is
    written later. ``latest`` is where following begins.
    """

    calls: list[CallShown]
    next: str | None
    latest: str


class DecidingRule(msgspec.Struct, frozen=True):
    """The rule that decided; ``file`` is empty when the policy no longer has a rule of that name."""

    id: str
    effect: Effect | None = None
    file: str = ""
    line: int = 0
    reason: str = ""


class Why(msgspec.Struct, frozen=True):
    """One record with its deciding rule (``null``: the default decided, or nothing was judged).

    ``explanation`` judges the same call again, by the policy of today, and ``text`` is the same for people;
    ``notes`` say where that may differ.
    """

    call: CallShown
    rule: DecidingRule | None
    explanation: Explanation | None
    text: str
    notes: list[str]


class Caller(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    subject: str
    roles: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    issuer: str = ""
    claims: dict[str, Any] = field(default_factory=dict)


class ExplainQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who (default: the caller of this request) would call what (``server/tool``), with which arguments."""

    call: str
    who: Caller | None = field(default=None, name="as")
    args: dict[str, Any] = field(default_factory=dict)


class Explained(msgspec.Struct, frozen=True):
    explanation: Explanation
    text: str
    known_tool: bool


class SecretShown(msgspec.Struct, frozen=True):
    """One stored secret: times are ISO 8601, ``used_by`` are servers, or other parts of the configuration by key."""

    name: str
    version: int
    created: str
    updated: str
    used_by: list[str]


class Secrets(msgspec.Struct, frozen=True):
    secrets: list[SecretShown]


class WorkloadShown(msgspec.Struct, frozen=True):
    """Who an agent is at an issuer of workload identities: the entry of `identity.federation`, a glob over `sub`."""

    issuer: str
    subject: str
    claims: dict[str, str]


class AgentShown(msgspec.Struct, frozen=True):
    """One agent. ``proofs`` are the ways in which it proves itself (``secret``, ``public key``, ``jwks``,
    ``workload``); ``last_token`` is when it was last given a token, as far as the running gateway knows.
    """

    name: str
    subject: str
    owner: str
    status: Literal["active", "suspended"]
    roles: tuple[str, ...]
    proofs: tuple[str, ...]
    workloads: list[WorkloadShown]
    audiences: tuple[str, ...]
    scopes: tuple[str, ...]
    acts_for: tuple[str, ...]
    may_delegate_to: tuple[str, ...]
    last_token: str


class Agents(msgspec.Struct, frozen=True):
    agents: list[AgentShown]


class AgentRevoked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why an agent's tokens are revoked, for the record."""

    reason: Annotated[str, msgspec.Meta(max_length=1000)] = ""


class PersonRevoked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose access ends: the issuer that vouches for the person, and the person's subject there."""

    issuer: Annotated[str, msgspec.Meta(max_length=2000)]
    subject: Annotated[str, msgspec.Meta(max_length=2000)]
    reason: Annotated[str, msgspec.Meta(max_length=1000)] = ""


class Revoked(msgspec.Struct, frozen=True):
    """What was revoked: everything that was issued until then."""

    subject: str
    issuer: str
    until: str


class FindingShown(msgspec.Struct, frozen=True):
    """Something that the guard found about a definition."""

    kind: str
    says: str
    severity: Literal["info", "low", "medium", "high"]


class DefinitionShown(msgspec.Struct, frozen=True):
    """A definition that waits for an operator. ``change``: another one was approved; ``held``: why it is held back
    (empty: it is served, with a warning, or the approved one is served instead).
    """

    name: str
    server: str
    digest: str
    change: bool
    held: str
    first_seen: str
    findings: list[FindingShown]


class CatalogPending(msgspec.Struct, frozen=True):
    """``findings`` are those about everything that is listed now, by `server/name`."""

    pending: list[DefinitionShown]
    findings: dict[str, list[FindingShown]]


class DifferenceShown(msgspec.Struct, frozen=True):
    """One difference: the path in the definition, and both values (texts as they are, else JSON)."""

    path: str
    kind: Literal["added", "removed", "changed"]
    before: str
    after: str


class CatalogDiff(msgspec.Struct, frozen=True):
    """A definition compared with the approved one (``approved`` empty: there is none, and everything is new)."""

    name: str
    digest: str
    state: Literal["approved", "pending", "rejected", "past"]
    approved: str
    approved_by: str
    differences: list[DifferenceShown]


class CatalogDecision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is approved or rejected: `server/tool`, or a server with `all`. ``digest`` (or how it begins) says which
    definition was looked at; ``also``: what was approved before stays approved.
    """

    name: Annotated[str, msgspec.Meta(max_length=2000)]
    digest: Annotated[str, msgspec.Meta(max_length=64)] = ""
    all: bool = False
    also: bool = False
    reason: Annotated[str, msgspec.Meta(max_length=1000)] = ""


class CatalogDecided(msgspec.Struct, frozen=True):
    """The entries about which something was decided."""

    decided: list[str]


class Problem(msgspec.Struct, frozen=True):
    code: str
    message: str
    hint: str = ""


class Failure(msgspec.Struct, frozen=True):
    """What every answer but 200 holds."""

    error: Problem

"""What the admin API takes and gives. The OpenAPI document is made of these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import field

from callgate.policy import Explanation
from callgate.types import Effect


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
    """One upstream server. ``tools`` counts those that the reader may see."""

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
    issuer: str = ""
    method: str = ""
    policy: str = ""
    reason: str = ""
    roles: tuple[str, ...] = ()
    rule: str = ""
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


class Problem(msgspec.Struct, frozen=True):
    code: str
    message: str
    hint: str = ""


class Failure(msgspec.Struct, frozen=True):
    """What every answer but 200 holds."""

    error: Problem

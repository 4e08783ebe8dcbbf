"""The nouns that every room shares.

A call walks through the house as ``Call`` → ``Permitted`` → ``Answer``. All of them are frozen: what was
judged is what is sent. Every record carries its tenant, so that nothing has to be added when there is a
second one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import msgspec

DEFAULT_TENANT = "default"

Era = Literal["modern", "legacy"]
Effect = Literal["allow", "deny", "ask"]
#: What a tool does to the world behind its server; ``""``: nobody whom we believe has said.
Operation = Literal["", "read", "write", "delete", "execute"]
Outcome = Literal["ok", "tool_error", "denied", "refused", "failed", "timeout", "cancelled"]
JSON = dict[str, Any]


class Actor(msgspec.Struct, frozen=True, gc=False):
    """One agent of a verified delegation chain, oldest first."""

    subject: str
    issuer: str = ""
    roles: tuple[str, ...] = ()


class Principal(msgspec.Struct, frozen=True):
    """Who asks. ``key`` names the principal in caches, sessions and cursors and is never shown to a client.

    ``expires`` is seconds since the epoch (infinity for credentials that do not expire);
    ``via`` says how the principal was recognised. ``chain`` are the agents through whom the subject calls, attested by
    our own token service; ``asserted`` are those that somebody else's token names, which may only add denials
    (rule DEL-10). ``audience`` is the one endpoint that the credential is for (its URI; empty: all). ``proof`` is the
    SHA-256 of the credential where that is kept for an exchange; the credential itself is never here.
    ``confirmation`` is what the credential is bound to (the ``cnf`` of RFC 7800: ``jkt``, ``x5t#S256``).
    """

    subject: str
    key: str
    tenant: str = DEFAULT_TENANT
    issuer: str = ""
    roles: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    claims: Mapping[str, Any] = msgspec.field(default_factory=dict)
    chain: tuple[Actor, ...] = ()
    via: Literal["anonymous", "key", "jwt", "operator"] = "key"
    expires: float = float("inf")
    asserted: tuple[Actor, ...] = ()
    audience: str = ""
    proof: bytes = b""
    confirmation: Mapping[str, str] = msgspec.field(default_factory=dict)


#: Policy and audit name a server's prompts and resources like tools, behind these prefixes: ``notes/prompt:review``.
PROMPT = "prompt:"
RESOURCE = "resource:"
#: Methods that only the server knows (extensions): ``notes/method:notes/archive``.
METHOD = "method:"


class Tool(msgspec.Struct, frozen=True):
    """One tool of one server, as the server described it and as callgate exposes it.

    Prompts and resources are judged and recorded as tools whose names begin with ``PROMPT`` or ``RESOURCE``.

    ``definition`` is the server's own JSON object (untouched fields and all); ``exposed`` is the name on
    aggregates. ``read_only`` and its companions are the operator's classification or, where the operator believes the
    server, its claims (``annotations``), with the defaults of the specification (not read-only, destructive);
    ``operation`` follows from them (``catalog/classes.py``). ``header_arguments`` maps the header
    suffix of every ``x-mcp-header`` annotation to the path of the argument it mirrors. ``task_support`` says that
    a legacy server can run the tool as a task, or runs it in no other way. ``withheld`` says why the guard neither
    lists it nor lets it be called (empty: it does).
    """

    server: str
    name: str
    exposed: str
    definition: bytes
    tenant: str = DEFAULT_TENANT
    description: str = ""
    read_only: bool = False
    destructive: bool = True
    idempotent: bool = False
    open_world: bool = True
    header_arguments: tuple[tuple[str, tuple[str, ...]], ...] = ()
    task_support: Literal["", "optional", "required"] = ""
    operation: Operation = ""
    withheld: str = ""

    @property
    def native(self) -> str:
        """``server/tool``: the name that policy, audit and limits use."""
        return f"{self.server}/{self.name}"


class Front(msgspec.Struct, frozen=True, gc=False):
    """How a call came in: the door, the protocol version, and what the client said that it can do.

    ``door`` is ``""`` for everything, ``virtual:NAME`` or ``server:NAME``. ``log_level`` is the level the
    client asked for (``None``: the client did not ask, so a modern request gets no log messages).
    """

    door: str = ""
    version: str = "2026-07-28"
    era: Era = "modern"
    transport: Literal["http", "stdio"] = "http"
    capabilities: Mapping[str, Any] = msgspec.field(default_factory=dict)
    log_level: str | None = None
    session: str | None = None


class Call(msgspec.Struct, frozen=True):
    """One tool call before it is judged. ``received`` is ``time.perf_counter_ns()`` on arrival, ``id`` the
    call id (see ``callgate.audit.ids``), ``meta`` the client's ``_meta``, ``size`` the bytes of its message.
    ``params`` is what goes to the server, without ``_meta``, for every ``method`` but ``tools/call``.
    """

    id: int
    principal: Principal
    tool: Tool
    arguments: Mapping[str, Any]
    front: Front
    received: int
    meta: Mapping[str, Any] = msgspec.field(default_factory=dict)
    trace_id: str = ""
    parent_span: str = ""
    size: int = 0
    method: str = "tools/call"
    params: Mapping[str, Any] = msgspec.field(default_factory=dict)


class Occasion(msgspec.Struct, frozen=True):
    """One request to a server by HTTP, for which it is shown who calls: ``who`` (``None``: callgate itself), in which
    ``call`` (its id; 0: none), and how long it may take (``deadline``, on the loop's clock).
    """

    who: Principal | None
    call: int = 0
    method: str = "POST"
    url: str = ""
    deadline: float = float("inf")


class Shadow(msgspec.Struct, frozen=True, gc=False):
    """What rules that are only tried out would have done: ``effect`` and the rule (``""``: the default)."""

    effect: str
    rule: str = ""


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What policy says: the effect, the id of the deciding rule (``""`` for the default), one sentence for
    the audit log, and the version of the policy that said so.

    ``scopes`` are those that the caller's token must have for a denied call to be allowed; ``shadow`` is what the
    policy would say if its shadow rules counted, where that is something else.
    """

    effect: Effect
    rule: str = ""
    reason: str = ""
    policy: str = ""
    scopes: tuple[str, ...] = ()
    shadow: Shadow | None = None


class Permitted(msgspec.Struct, frozen=True):
    """A call that policy allowed. Only ``callgate.policy.settle`` makes one; only this can leave the house."""

    call: Call
    verdict: Verdict


class RpcError(msgspec.Struct, frozen=True, omit_defaults=True):
    """A JSON-RPC error object."""

    code: int
    message: str
    data: Any = None


class Answer(msgspec.Struct, frozen=True):
    """What the server said: the raw JSON of ``result``, or a JSON-RPC error. ``era`` is the server's era.

    ``is_error`` repeats ``result.isError``; ``result_type`` is ``result.resultType`` (``None`` when absent).
    """

    result: bytes = b""
    error: RpcError | None = None
    era: Era = "modern"
    is_error: bool = False
    result_type: str | None = None


class Question(msgspec.Struct, frozen=True):
    """What a server asks the client while (or outside) a call: ``elicitation/create``, ``sampling/createMessage`` or
    ``roots/list``. ``params`` holds everything but the JSON-RPC id, ``_meta`` included, as the server sent it.
    """

    method: str
    params: Mapping[str, Any] = msgspec.field(default_factory=dict)


#: Takes one JSON-RPC notification for the client, encoded. ``False``: its reader is too far behind, it was not sent.
Emit = Callable[[bytes], bool | None]
#: Asks the client something and waits for its answer. The client's refusal is an ``Answer`` with an error.
Ask = Callable[[Question], Awaitable[Answer]]


class Conduct(msgspec.Struct, frozen=True):
    """The client's end of one running call: where notifications about it go, and how the client is asked something.

    ``emit`` is ``None`` when the client reads no event streams, ``ask`` when it cannot be asked during this call.
    """

    emit: Emit | None = None
    ask: Ask | None = None


class News(msgspec.Struct, frozen=True):
    """A notification of a server that belongs to no call: ``list_changed``, ``resources/updated``, a task's status …

    ``principal`` and ``session`` name whose link it came over; both are empty for a link that everybody shares.
    """

    server: str
    method: str
    params: Mapping[str, Any] = msgspec.field(default_factory=dict)
    principal: str = ""
    session: str = ""


class Listing(msgspec.Struct, frozen=True):
    """What one server offers right now, as it listed it, and what it said of itself.

    ``hints`` are the lifetime in milliseconds and the cache scope of every list, by its method; ``ttl_ms`` and
    ``scope`` repeat those of the tools.
    """

    server: str
    tools: tuple[JSON, ...]
    era: Era
    version: str
    capabilities: Mapping[str, Any] = msgspec.field(default_factory=dict)
    server_info: Mapping[str, Any] = msgspec.field(default_factory=dict)
    instructions: str = ""
    prompts: tuple[JSON, ...] = ()
    resources: tuple[JSON, ...] = ()
    templates: tuple[JSON, ...] = ()
    ttl_ms: int = 0
    scope: Literal["public", "private"] = "private"
    hints: Mapping[str, tuple[int, Literal["public", "private"]]] = msgspec.field(default_factory=dict)


class ServerStatus(msgspec.Struct, frozen=True):
    """How one server is doing: ``starting`` (first attempt), ``ready``, ``failed`` (retrying with backoff)."""

    name: str
    state: Literal["starting", "ready", "failed", "stopped"]
    transport: Literal["stdio", "http"]
    reason: str = ""
    era: Era | None = None
    version: str = ""
    pids: tuple[int, ...] = ()
    in_flight: int = 0
    restarts: int = 0
    tools: int = 0

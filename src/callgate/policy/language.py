"""The policy language: what a file may say, and every mistake in it with its place.

Shapes follow ``docs/policy.md``. A rule names exactly one effect; nothing in it may be empty, because an emptied
``to`` or ``when`` would silently widen a rule.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta, field

from callgate.config import Bytes, Seconds, Text
from callgate.errors import Place
from callgate.types import DEFAULT_TENANT, Effect

from .conditions import Condition, Fault, Inputs
from .paths import JsonPath

EFFECTS: tuple[Effect, ...] = ("deny", "ask", "allow")
Kind = Literal["allow", "deny", "ask", "result"]
#: What a rule can be about: a decision, or what becomes of the answer.
KINDS: tuple[Kind, ...] = (*EFFECTS, "result")
Patterns = Annotated[tuple[Text, ...], Meta(min_length=1)]
Scalars = Annotated[tuple[str | bool | int, ...], Meta(min_length=1)]
Operations = Annotated[tuple[Literal["read", "write", "delete", "execute"], ...], Meta(min_length=1)]
UNKNOWN = Fault("nobody has said what the tool does")


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class To(_Part, frozen=True, kw_only=True):
    """Whom a rule is for: within one field any pattern, between fields all."""

    subjects: Patterns = ()
    roles: Patterns = ()
    groups: Patterns = ()
    agents: Patterns = ()
    issuers: Patterns = ()
    claims: dict[str, Scalars] = field(default_factory=dict)


class ChainAny(_Part, frozen=True, kw_only=True):
    """One actor of the delegation chain who fits all fields."""

    roles: Patterns = ()
    subjects: Patterns = ()


class Approvers(_Part, frozen=True, kw_only=True):
    """Who may answer an ``ask``."""

    subjects: Patterns = ()
    roles: Patterns = ()
    groups: Patterns = ()


class Needs(_Part, frozen=True, kw_only=True):
    """What the caller's token must say besides."""

    scopes: Patterns = ()


class RuleText(_Part, frozen=True, kw_only=True):
    id: Text
    allow: Patterns = ()
    deny: Patterns = ()
    ask: Patterns = ()
    result: Patterns = ()
    operations: Operations = ()
    virtual_servers: Patterns = ()
    tenants: Patterns = ()
    to: To | None = None
    chain_any: ChainAny | None = None
    chain_all: ChainAny | None = None
    chain_first: ChainAny | None = None
    when: Text | None = None
    needs: Needs | None = None
    redact: Patterns = ()
    truncate: Bytes | None = None
    block: bool = False
    shadow: bool = False
    approvers: Approvers | None = None
    ttl: Seconds | None = None
    reason: str = ""


class ActorText(_Part, frozen=True, kw_only=True):
    subject: Text
    issuer: str = ""
    roles: tuple[Text, ...] = ()


class CallerText(_Part, frozen=True, kw_only=True):
    subject: Text
    issuer: str = ""
    tenant: Text = DEFAULT_TENANT
    roles: tuple[Text, ...] = ()
    groups: tuple[Text, ...] = ()
    claims: dict[str, Any] = field(default_factory=dict)
    chain: tuple[ActorText, ...] = ()
    via: Literal["anonymous", "key", "jwt", "operator"] | None = None


class ToolText(_Part, frozen=True, kw_only=True):
    """What the server claims of its tool; ``None``: the test does not say."""

    read_only: bool | None = field(default=None, name="readOnly")
    destructive: bool | None = None
    idempotent: bool | None = None
    open_world: bool | None = field(default=None, name="openWorld")
    operation: Literal["read", "write", "delete", "execute"] | None = None
    description: str = ""


class RequestText(_Part, frozen=True, kw_only=True):
    door: str = ""
    version: Text = "2026-07-28"
    era: Literal["modern", "legacy"] = "modern"
    transport: Literal["http", "stdio"] = "http"


class TestText(_Part, frozen=True, kw_only=True):
    __test__ = False  # not a test for pytest

    name: str = ""
    who: CallerText | None = field(default=None, name="as")
    call: Text
    args: dict[str, Any] = field(default_factory=dict)
    tool: ToolText = ToolText()
    request: RequestText = RequestText()
    now: Text | None = None
    expect: Effect
    by: Text | None = None


class PolicyText(_Part, frozen=True, kw_only=True):
    """The whole of a policy file."""

    version: Literal[1] = 1
    mode: Literal["enforce", "shadow"] = "enforce"
    default: Literal["allow", "deny"] | None = None
    rules: tuple[RuleText, ...] = ()
    tests: tuple[TestText, ...] = ()


class Rule(msgspec.Struct, frozen=True):
    """One rule, checked and ready to use. ``ttl`` is how long an approval holds, in seconds.

    ``barrier``: a denial of anonymous callers that stands beside an ask rule (see ``matching.with_barriers``).
    ``scopes`` are those that the caller's token must have. Of a ``result`` rule ``redact``, ``truncate`` (bytes) and
    ``block`` say what becomes of the answer. ``shadow``: the rule is only tried out. ``file`` is where it stands.
    """

    id: str
    effect: Kind
    tools: tuple[str, ...]
    place: Place
    to: To | None = None
    chain_any: ChainAny | None = None
    when: Condition | None = None
    approvers: Approvers | None = None
    ttl: float | None = None
    reason: str = ""
    barrier: bool = False
    chain_all: ChainAny | None = None
    chain_first: ChainAny | None = None
    operations: tuple[str, ...] = ()
    virtual_servers: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    redact: tuple[JsonPath, ...] = ()
    truncate: int | None = None
    block: bool = False
    shadow: bool = False

    @property
    def restricts(self) -> bool:
        """Whether the rule can only take away: then doubt makes it apply."""
        return self.effect in ("deny", "result")

    def answer(self, inputs: Inputs) -> bool | Fault:
        """Whether the rule's condition holds and the tool does what the rule is about; a fault when that is open."""
        doubt = UNKNOWN if self.operations and not inputs.tool.operation else None
        if self.operations and doubt is None and inputs.tool.operation not in self.operations:
            return False
        held = self.when.holds(inputs) if self.when is not None else True
        return doubt if doubt is not None and held is not False else held


class Test(msgspec.Struct, frozen=True):
    """One test of a policy file. ``server`` and ``tool`` are native names, ``now`` the moment of the call. ``shadow``:
    it is about what is only tried out.
    """

    __test__ = False

    text: TestText
    server: str
    tool: str
    now: datetime | None
    place: Place
    shadow: bool = False

    @property
    def name(self) -> str:
        who = self.text.who.subject if self.text.who else "anonymous"
        return self.text.name or f"{who} calls {self.text.call}"


class Layer(NamedTuple):
    """Rules that are judged together: those of all files that do not narrow, or those of one that does.

    ``name`` is the file of a layer that narrows, ``""`` for the others.
    """

    name: str
    default: Literal["allow", "deny"]
    rules: tuple[Rule, ...]


class Written(NamedTuple):
    """All documents of a policy. ``layers`` are what is in force; ``tried`` the same with the rules and files in shadow
    mode, ``()`` when nothing is in shadow mode. ``rules`` and ``results`` are those of all files, ``tests`` all tests.
    ``enforced``: whether any file is in force.
    """

    layers: tuple[Layer, ...]
    rules: tuple[Rule, ...]
    tests: tuple[Test, ...]
    content: bytes
    results: tuple[Rule, ...] = ()
    tried: tuple[Layer, ...] = ()
    enforced: bool = True

"""The policy language: what a file may say, and every mistake in it with its place.

Shapes follow ``docs/policy.md``. A rule names exactly one effect; nothing in it may be empty, because an emptied
``to`` or ``when`` would silently widen a rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, field

from callgate.config import Document, Seconds, Text, decode
from callgate.errors import ConfigError, Place, nearest
from callgate.types import DEFAULT_TENANT, Effect

from .conditions import Condition, ConditionError, Unavailable, compile_condition
from .patterns import flaw, tool_flaw

EFFECTS: tuple[Effect, ...] = ("deny", "ask", "allow")
Patterns = Annotated[tuple[Text, ...], Meta(min_length=1)]
Step = str | int
T = TypeVar("T")


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class To(_Part, frozen=True, kw_only=True):
    """Whom a rule is for: within one field any pattern, between fields all."""

    subjects: Patterns = ()
    roles: Patterns = ()
    groups: Patterns = ()
    agents: Patterns = ()
    issuers: Patterns = ()


class ChainAny(_Part, frozen=True, kw_only=True):
    """One actor of the delegation chain who fits all fields."""

    roles: Patterns = ()
    subjects: Patterns = ()


class Approvers(_Part, frozen=True, kw_only=True):
    """Who may answer an ``ask``."""

    subjects: Patterns = ()
    roles: Patterns = ()
    groups: Patterns = ()


class RuleText(_Part, frozen=True, kw_only=True):
    id: Text
    allow: Patterns = ()
    deny: Patterns = ()
    ask: Patterns = ()
    to: To | None = None
    chain_any: ChainAny | None = None
    when: Text | None = None
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
    default: Literal["allow", "deny"] | None = None
    rules: tuple[RuleText, ...] = ()
    tests: tuple[TestText, ...] = ()


class Rule(msgspec.Struct, frozen=True):
    """One rule, checked and ready to use. ``ttl`` is how long an approval holds, in seconds.

    ``barrier``: a denial of anonymous callers that stands beside an ask rule (see ``matching.with_barriers``).
    """

    id: str
    effect: Effect
    tools: tuple[str, ...]
    place: Place
    to: To | None = None
    chain_any: ChainAny | None = None
    when: Condition | None = None
    approvers: Approvers | None = None
    ttl: float | None = None
    reason: str = ""
    barrier: bool = False


class Test(msgspec.Struct, frozen=True):
    """One test of a policy file. ``server`` and ``tool`` are native names, ``now`` the moment of the call."""

    __test__ = False

    text: TestText
    server: str
    tool: str
    now: datetime | None
    place: Place

    @property
    def name(self) -> str:
        who = self.text.who.subject if self.text.who else "anonymous"
        return self.text.name or f"{who} calls {self.text.call}"


class Written(NamedTuple):
    """All documents of a policy, united."""

    default: Literal["allow", "deny"]
    rules: tuple[Rule, ...]
    tests: tuple[Test, ...]
    content: bytes


def read_policy(documents: Sequence[Document]) -> Written:
    """Read and check the documents of one policy.

    Raises ``ConfigError`` whose ``problems`` are all mistakes in all documents.
    """
    reader = _Reader()
    texts = [(document, text) for document in documents if (text := reader.decode(document)) is not None]
    readable = len(texts) == len(documents)
    for document, text in texts:
        for at, rule in enumerate(text.rules):
            reader.rule(document, ("rules", at), rule)
    for document, text in texts:
        for at, test in enumerate(text.tests if readable else ()):  # else `by` would seem to name nothing
            reader.test(document, ("tests", at), test)
    if reader.problems:
        raise _together(reader.problems)
    said = {text.default for _, text in texts if text.default}
    default: Literal["allow", "deny"] = "allow" if said == {"allow"} else "deny"
    return Written(default, tuple(reader.rules.values()), tuple(reader.tests), _content(default, texts))


def _content(default: str, texts: Sequence[tuple[Document, PolicyText]]) -> bytes:
    """What decides, in one canonical form: comments, spelling, file names and tests are not in it."""
    rules = [rule for _, text in texts for rule in text.rules]
    return msgspec.json.encode({"default": default, "rules": rules}, order="sorted")


def _together(problems: Sequence[ConfigError]) -> ConfigError:
    first = problems[0]
    if len(problems) == 1:
        return ConfigError(first.message, hint=first.hint, place=first.place, problems=problems)
    return ConfigError(f"the policy has {len(problems)} problems", place=first.place, problems=problems)


class _Reader:
    """Goes through the documents and notes every mistake."""

    def __init__(self) -> None:
        self.problems: list[ConfigError] = []
        self.rules: dict[str, Rule] = {}
        self.tests: list[Test] = []

    def wrong(self, message: str, place: Place, hint: str = "") -> None:
        self.problems.append(ConfigError(message, hint=hint, place=place))

    def decode(self, document: Document) -> PolicyText | None:
        self.empties(document)
        try:
            text: PolicyText = decode(document, PolicyText)
        except ConfigError as error:
            self.problems += error.problems or (error,)
            return None
        return text

    def empties(self, document: Document) -> None:
        """``to:`` with nothing after it would make a rule match everybody, an empty ``when:`` always."""
        for path in _empty(document.data):
            key = path[-1]
            hint = "give it a value, or remove the key; an empty part must not widen a rule"
            self.wrong(f"`{key}` is empty", document.place(path, key=True), hint)

    def rule(self, document: Document, path: tuple[Step, ...], text: RuleText) -> None:
        place = document.place((*path, "id"))
        first = self.rules.get(text.id)
        if first is not None:
            where = f"the first is at {first.place.file}:{first.place.line}"
            self.wrong(f"rule id `{text.id}` is used twice", place, f"{where}; give one of them another id")
        effects = [effect for effect in EFFECTS if getattr(text, effect)]
        if len(effects) != 1:
            said = f"has several effects: {', '.join(effects)}" if effects else "says neither allow, deny nor ask"
            hint = "write one rule for each effect" if effects else "add one of them with a list of `server/tool`"
            self.wrong(f"rule `{text.id}` {said}", place, hint)
            return
        effect = effects[0]
        self.patterns(document, path, text, effect)
        for key in ("approvers", "ttl"):
            if effect != "ask" and getattr(text, key) is not None:
                self.wrong(f"`{key}` belongs to `ask` rules only", document.place((*path, key), key=True), "remove it")
        when = self.condition(document, (*path, "when"), text.when) if text.when is not None else None
        rule = Rule(
            id=text.id, effect=effect, tools=getattr(text, effect), place=place, to=text.to, chain_any=text.chain_any,
            when=when, approvers=text.approvers, ttl=text.ttl, reason=text.reason,
        )  # fmt: skip
        self.rules.setdefault(text.id, rule)

    def patterns(self, document: Document, path: tuple[Step, ...], text: RuleText, effect: Effect) -> None:
        for at, pattern in enumerate(getattr(text, effect)):
            if problem := tool_flaw(pattern):
                self.wrong(f"`{pattern}` is not a pattern over `server/tool`: {problem}",
                           document.place((*path, effect, at)), _tool_hint(pattern))  # fmt: skip
        for key in ("to", "chain_any", "approvers"):
            part = getattr(text, key)
            if part is None:
                continue
            fields = msgspec.structs.asdict(part)
            if not any(fields.values()):
                self.wrong(f"`{key}` names nobody", document.place((*path, key)),
                           "name somebody, or remove the key")  # fmt: skip
            for name, patterns in fields.items():
                for at, pattern in enumerate(patterns):
                    if problem := flaw(pattern):
                        self.wrong(f"`{pattern}` is not a pattern: {problem}", document.place((*path, key, name, at)))

    def condition(self, document: Document, path: tuple[Step, ...], text: str) -> Condition | None:
        try:
            return compile_condition(text)
        except ConditionError as error:
            self.wrong(f"the condition is wrong: {error.message}", _inside(document, path, error), error.hint)
        except Unavailable:
            self.wrong("`when` needs the CEL library, which is not installed", document.place(path, key=True),
                       "install it: pip install cel-expr-python")  # fmt: skip
        return None

    def test(self, document: Document, path: tuple[Step, ...], text: TestText) -> None:
        server, slash, tool = text.call.partition("/")
        if not (server and slash and tool):
            place = document.place((*path, "call"))
            self.wrong(f"`{text.call}` is not a tool", place, _tool_hint(text.call) or "write it as `server/tool`")
        if text.by is not None and text.by not in self.rules:
            found = nearest(text.by, self.rules)
            hint = f"did you mean `{found}`?" if found else "`by` is the id of the rule that decides"
            self.wrong(f"there is no rule `{text.by}`", document.place((*path, "by")), hint)
        now = None
        if text.now is not None:
            now = _moment(text.now)
            if now is None:
                place = document.place((*path, "now"))
                self.wrong(f"`{text.now}` is not a moment", place, "write it as `2026-07-28T12:00:00Z`")
        self.tests.append(Test(text=text, server=server, tool=tool, now=now, place=document.place(path)))


def _tool_hint(text: str) -> str:
    """Exposed names (``git__push``) are what people see in their clients."""
    server, joined, tool = text.partition("__")
    return f"did you mean `{server}/{tool}`?" if joined and "/" not in text else ""


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _empty(data: Any) -> Iterator[tuple[Step, ...]]:
    """Paths of keys without a value, in rules."""
    rules = data.get("rules") if isinstance(data, dict) else None
    for at, rule in enumerate(rules if isinstance(rules, list) else ()):
        for key, value in rule.items() if isinstance(rule, dict) else ():
            if value is None:
                yield ("rules", at, key)
            elif isinstance(value, dict):
                yield from (("rules", at, key, inner) for inner, part in value.items() if part is None)


def _inside(document: Document, path: tuple[Step, ...], error: ConditionError) -> Place:
    """The place of a mistake inside a condition, as well as the way it is written in the file allows."""
    whole = document.place(path)
    mark = whole.text[whole.column - 1 : whole.column]
    if mark == "|":
        lines = document.text.splitlines()
        line = whole.line + error.line
        text = lines[line - 1] if line <= len(lines) else ""
        indent = len(text) - len(text.lstrip())
        return Place(whole.file, line, indent + error.column, error.length, text) if text.strip() else whole
    column = whole.column + error.column - (0 if mark in "'\"" else 1)
    if mark == ">" or error.line > 1 or column > len(whole.text):
        return whole
    return Place(whole.file, whole.line, column, min(error.length, len(whole.text) - column + 1), whole.text)

"""Reading policy files: every mistake in them, with its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from callgate.config import Document, decode
from callgate.errors import ConfigError, Place, nearest

from .conditions import Condition, ConditionError, Unavailable, compile_condition
from .language import KINDS, Kind, Layer, PolicyText, Rule, RuleText, Test, TestText, Written
from .paths import JsonPath
from .patterns import flaw, tool_flaw

Step = str | int
Text = tuple[Document, PolicyText]
#: Keys that belong to rules of some kinds only.
BELONGS: dict[str, tuple[Kind, ...]] = {
    "approvers": ("ask",), "ttl": ("ask",), "needs": ("allow",),
    "redact": ("result",), "truncate": ("result",), "block": ("result",),
}  # fmt: skip
SCOPE = frozenset(map(chr, range(0x21, 0x7F))) - {'"', "\\"}


def read_policy(documents: Sequence[Document]) -> Written:
    """Read and check the documents of one policy.

    Raises ``ConfigError`` whose ``problems`` are all mistakes in all documents.
    """
    reader = _Reader()
    texts = [(document, text) for document in documents if (text := reader.decode(document)) is not None]
    readable = len(texts) == len(documents)
    for document, text in texts:
        reader.shadow = text.mode == "shadow"
        for at, rule in enumerate(text.rules):
            reader.rule(document, ("rules", at), rule)
    for document, text in texts:
        reader.shadow = text.mode == "shadow"
        for at, test in enumerate(text.tests if readable else ()):  # else `by` would seem to name nothing
            reader.test(document, ("tests", at), test)
    if texts and all(document.narrows for document, _ in texts):
        place = texts[0][0].place(())
        reader.wrong("there is nothing that this file could narrow", place, "name a file without `narrows`, too")
    if reader.problems:
        raise _together(reader.problems)
    return _united(texts, reader)


def _united(texts: Sequence[Text], reader: _Reader) -> Written:
    """The rules of all files, sorted into layers. Where all files that do not narrow are in shadow mode, they are as if
    they were not there: nothing but what narrows is in force.
    """
    rules, results = (
        tuple(rule for rule in reader.rules.values() if (rule.effect == "result") == of_results)
        for of_results in (False, True)
    )
    of = {rule.id: document for document, text in texts for rule in text.rules}
    placed = [(of[rule.id], rule) for rule in rules]
    forced = [each for each in texts if each[1].mode == "enforce"]
    trying = len(forced) < len(texts) or any(rule.shadow for rule in rules)
    layers = _layers(forced, [each for each in placed if not each[1].shadow])
    enforced = any(not document.narrows for document, _ in forced)
    if texts and not enforced:
        layers = (layers[0]._replace(default="allow"), *layers[1:])
    tried = _layers(texts, placed) if trying else ()
    return Written(layers, rules, tuple(reader.tests), _content(texts), results, tried, enforced)


def _layers(texts: Sequence[Text], placed: Sequence[tuple[Document, Rule]]) -> tuple[Layer, ...]:
    """The files that do not narrow together, then each one that does."""
    wide = [(document, text) for document, text in texts if not document.narrows]
    said = {text.default for _, text in wide if text.default}
    default: Literal["allow", "deny"] = "allow" if said == {"allow"} else "deny"
    names = {id(document) for document, _ in wide}
    first = Layer("", default, tuple(rule for document, rule in placed if id(document) in names))
    narrow = (
        Layer(document.file, text.default or "deny", tuple(rule for owner, rule in placed if owner is document))
        for document, text in texts
        if document.narrows
    )
    return (first, *narrow)


def _content(texts: Sequence[Text]) -> bytes:
    """What decides, in one canonical form: comments, spelling, file names and tests are not in it."""
    wide = [text for document, text in texts if not document.narrows]
    said = {text.default for text in wide if text.default}
    found: dict[str, Any] = {
        "default": "allow" if said == {"allow"} else "deny", "rules": [rule for text in wide for rule in text.rules],
    }  # fmt: skip
    if narrow := [[text.default, text.mode, text.rules] for document, text in texts if document.narrows]:
        found["narrows"] = narrow
    if any(text.mode == "shadow" for text in wide):
        found["shadow"] = [[text.default, text.mode, len(text.rules)] for text in wide]
    return msgspec.json.encode(found, order="sorted")


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
        self.shadow = False

    def wrong(self, message: str, place: Place, hint: str = "") -> None:
        self.problems.append(ConfigError(message, hint=hint, place=place))

    def decode(self, document: Document) -> PolicyText | None:
        self.empties(document)
        try:
            text: PolicyText = decode(document, PolicyText)
        except ConfigError as error:
            self.problems += error.problems or (error,)
            return None
        if document.narrows and text.default is None:
            hint = "`default: deny` if only what its rules allow may pass, `default: allow` if it only denies and asks"
            self.wrong("a file that narrows must say its `default`", document.place(()), hint)
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
        effects = [effect for effect in KINDS if getattr(text, effect)]
        if len(effects) != 1:
            said = f"has several effects: {', '.join(effects)}" if effects else "says neither allow, deny nor ask"
            hint = "write one rule for each effect" if effects else "add one of them with a list of `server/tool`"
            self.wrong(f"rule `{text.id}` {said}", place, hint)
            return
        effect = effects[0]
        self.patterns(document, path, text, effect)
        for key, kinds in BELONGS.items():
            if effect not in kinds and getattr(text, key) not in (None, (), False):
                self.wrong(
                    f"`{key}` belongs to `{kinds[0]}` rules only", document.place((*path, key), key=True), "remove it"
                )
        if effect == "result" and not (text.redact or text.block or text.truncate):
            self.wrong(
                f"rule `{text.id}` does nothing with results", place, "add `redact`, `truncate` or `block: true`"
            )
        when = self.condition(document, (*path, "when"), text.when) if text.when is not None else None
        rule = Rule(
            id=text.id, effect=effect, tools=getattr(text, effect), place=place, to=text.to, chain_any=text.chain_any,
            when=when, approvers=text.approvers, ttl=text.ttl, reason=text.reason, chain_all=text.chain_all,
            chain_first=text.chain_first, operations=text.operations, virtual_servers=text.virtual_servers,
            tenants=text.tenants, scopes=text.needs.scopes if text.needs else (),
            redact=tuple(self.json_paths(document, path, text.redact)), truncate=text.truncate, block=text.block,
            shadow=text.shadow or self.shadow,
        )  # fmt: skip
        self.rules.setdefault(text.id, rule)

    def json_paths(self, document: Document, path: tuple[Step, ...], texts: Iterable[str]) -> Iterator[JsonPath]:
        for at, text in enumerate(texts):
            try:
                yield JsonPath(text)
            except ValueError as error:
                self.wrong(f"`{text}` is not a path into JSON: {error}", document.place((*path, "redact", at)))

    def patterns(self, document: Document, path: tuple[Step, ...], text: RuleText, effect: Kind) -> None:
        for at, pattern in enumerate(getattr(text, effect)):
            if problem := tool_flaw(pattern):
                self.wrong(f"`{pattern}` is not a pattern over `server/tool`: {problem}",
                           document.place((*path, effect, at)), _tool_hint(pattern))  # fmt: skip
        for key in ("virtual_servers", "tenants"):
            self.names(document, (*path, key), getattr(text, key))
        for key in ("to", "chain_any", "chain_all", "chain_first", "approvers", "needs"):
            part = getattr(text, key)
            if part is not None:
                self.part(document, (*path, key), part)

    def part(self, document: Document, path: tuple[Step, ...], part: msgspec.Struct) -> None:
        fields = msgspec.structs.asdict(part)
        claims = fields.pop("claims", {})
        if not any(fields.values()) and not claims:
            self.wrong(f"`{path[-1]}` names nobody", document.place(path), "name somebody, or remove the key")
        for name, patterns in fields.items():
            self.names(document, (*path, name), patterns)
        for claim, values in claims.items():
            texts = [value if isinstance(value, str) else "-" for value in values]
            self.names(document, (*path, "claims", claim), texts)
        if path[-1] == "needs":
            for at, scope in enumerate(fields["scopes"]):
                if not SCOPE.issuperset(scope):
                    place = document.place((*path, "scopes", at))
                    self.wrong(f"`{scope}` is not a scope", place, "a scope has no spaces, quotes or backslashes")

    def names(self, document: Document, path: tuple[Step, ...], patterns: Iterable[str]) -> None:
        for at, pattern in enumerate(patterns):
            if problem := flaw(pattern):
                self.wrong(f"`{pattern}` is not a pattern: {problem}", document.place((*path, at)))

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
        shadow = self.shadow or (text.by in self.rules and self.rules[text.by].shadow)
        self.tests.append(Test(text=text, server=server, tool=tool, now=now, place=document.place(path), shadow=shadow))


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

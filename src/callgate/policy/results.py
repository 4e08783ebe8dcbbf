"""What becomes of an answer: rules that redact, cut or block results.

``treat`` is the one function through which every answer of a server passes when a policy has such rules. What it
cannot look into it does not let through.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from callgate.errors import Denied
from callgate.types import Answer, RpcError, Verdict

from .language import Rule
from .paths import JsonPath

REDACTED = "[redacted]"
#: Values that are shorter are too common to be looked for in texts.
TELLING = 4
#: Values that are looked for in texts; where more were redacted, texts that are not JSON are redacted whole.
MOST = 1_000
#: Bytes that may be added by what says that something was cut.
MARGIN = 1024
TRUNCATED = "callgate/truncated"
#: Members of results that hold content blocks, and members of those: words, and what the protocol works by.
BLOCKS = ("content", "contents", "messages")
WORDS = ("text", "title", "description")
BLOCK = frozenset({
    "type", "data", "blob", "uri", "name", "mimeType", "size", "annotations", "icons", "_meta", "role", "id",
    "content", "resource", *WORDS,
})  # fmt: skip
#: Members of results by which the protocol works, and those that are looked into in ways of their own.
PROTOCOL = frozenset({
    *BLOCKS, "completion", "structuredContent", "result", "error", "isError", "_meta", "resultType", "inputRequests",
    "requestState", "ttlMs", "cacheScope", "nextCursor", "task", "taskId", "status", "createdAt", "lastUpdatedAt",
    "ttl", "pollInterval", "pollIntervalMs",
})  # fmt: skip
#: Which types of their values are looked into as documents, where not objects and arrays are.
LOOKED: Mapping[str, tuple[type, ...]] = {"_meta": (), "inputRequests": (), "result": (list, str)}

Members = dict[str, Any]


class Treatment(msgspec.Struct, frozen=True):
    """What the rules that apply to one call do with its answer. ``rules`` are their ids."""

    rules: tuple[str, ...]
    redact: tuple[JsonPath, ...] = ()
    truncate: int | None = None
    block: str = ""
    reason: str = ""

    @property
    def effect(self) -> str:
        said = ("block" * bool(self.block), "redact" * bool(self.redact), "truncate" * (self.truncate is not None))
        return ", ".join(each for each in said if each)


def treatment_of(rules: Sequence[Rule]) -> Treatment | None:
    """All of them together: the shortest length counts, and one that blocks blocks."""
    if not rules:
        return None
    lengths = [rule.truncate for rule in rules if rule.truncate is not None]
    blocking = next((rule for rule in rules if rule.block), None)
    return Treatment(
        tuple(rule.id for rule in rules),
        tuple(path for rule in rules for path in rule.redact),
        min(lengths, default=None),
        blocking.id if blocking else "",
        blocking.reason if blocking else "",
    )


def treat(treatment: Treatment, answer: Answer, version: str) -> Answer:
    """The answer as the caller may read it; raises ``Denied`` for one that is blocked. May take a while: for a thread
    when the answer is large.
    """
    if treatment.block:
        raise _blocked(treatment.block, treatment.reason, version)
    if answer.error is not None:
        try:
            return msgspec.structs.replace(answer, error=_error(answer.error, treatment))
        except (msgspec.MsgspecError, RecursionError):
            raise _blocked(treatment.rules[0], "the error cannot be read", version) from None
    if not treatment.redact and (treatment.truncate is None or len(answer.result) <= treatment.truncate):
        return answer
    try:
        result = msgspec.json.encode(_treated(msgspec.json.decode(answer.result), treatment))
    except (msgspec.MsgspecError, RecursionError):
        raise _blocked(treatment.rules[0], "the result cannot be read", version) from None
    if treatment.truncate is not None and len(result) > treatment.truncate + MARGIN:
        raise _blocked(treatment.rules[0], f"the result is longer than {treatment.truncate} bytes", version)
    return msgspec.structs.replace(answer, result=result)


def _error(error: RpcError, treatment: Treatment) -> RpcError:
    if treatment.redact:
        error = _Redaction(treatment.redact).error(error)
    if treatment.truncate is None:
        return error
    short = len(msgspec.json.encode(error.data)) <= treatment.truncate
    message = _cut(error.message, treatment.truncate)
    return msgspec.structs.replace(error, message=message, data=error.data if short else None)


def _blocked(rule: str, reason: str, version: str) -> Denied:
    denied = Denied("The call was made, but the policy does not allow its result.", data={"kind": "result"})
    said = f"result blocked by {rule}"
    denied.verdict = Verdict("deny", rule, f"{said}: {reason}" if reason else said, version)
    return denied


def _treated(whole: Any, treatment: Treatment) -> Any:
    if not isinstance(whole, dict):  # of a method that callgate does not know
        return _treated({"result": whole}, treatment)["result"]
    if treatment.redact:
        whole = _Redaction(treatment.redact).result(whole)
    return whole if treatment.truncate is None else _short(whole, treatment.truncate)


def _short(whole: Members, limit: int) -> Members:
    if isinstance(whole.get("result"), dict):  # a task's
        whole = {**whole, "result": _short(whole["result"], limit)}
    return _Shortened(limit).result(whole)


# Redaction.


def _redacted(value: Any, paths: Sequence[JsonPath]) -> tuple[Any, list[Any]]:
    found: list[Any] = []
    for path in paths:
        value = path.replace(value, REDACTED, found)
    return value, found


class _Redaction:
    """First the paths in everything that is JSON, texts that hold nothing else included; then every other text without
    what was found there: servers repeat their structured content in words, and their words in structured content.
    """

    def __init__(self, paths: Sequence[JsonPath]) -> None:
        self._paths = paths
        self._found: list[Any] = []

    def result(self, whole: Members) -> Members:
        whole = _changed(whole, self._document, self._text)
        if not self._found:
            return whole
        without = _without(self._found)
        known, many = set(_scalars(self._found)), len(self._found) > MOST

        def rest(text: str) -> str:
            if many:  # not worth every text of a large table
                return REDACTED if text in known else text
            return without(text)

        return _changed(whole, lambda value: _mapped(value, rest), without)

    def error(self, error: RpcError) -> RpcError:
        data, message = self._document(error.data), self._text(error.message)
        if self._found:
            without = _without(self._found)
            data, message = _mapped(data, without), without(message)
        return msgspec.structs.replace(error, message=message, data=data)

    def _document(self, value: Any) -> Any:
        value, more = _redacted(value, self._paths)
        self._found.extend(more)
        return _mapped(value, self._text)

    def _text(self, text: str) -> str:
        value, before = _json_of(text), len(self._found)
        if value is None:
            return text
        value = self._document(value)
        return _json_text(value) if len(self._found) > before else text


def _json_of(text: str) -> Any:
    """The object or array that a text is, or ``None``. As lenient as clients are: some servers write ``NaN``, halves of
    surrogates, or a byte order mark.
    """
    text = text.strip().removeprefix("\ufeff").lstrip()
    if text[:1] not in ("{", "["):
        return None
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeEncodeError):
        pass
    try:
        return json.loads(text)
    except ValueError:
        return None


def _json_text(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (msgspec.MsgspecError, ValueError, OverflowError):
        return json.dumps(value)


def _without(values: Sequence[Any]) -> Callable[[str], str]:
    """What takes these values out of a text."""
    if len(values) > MOST:
        return lambda text: REDACTED
    telling = sorted({each for each in _scalars(values) if len(each) >= TELLING}, key=len, reverse=True)

    def without(text: str) -> str:
        for value in telling if len(text) >= TELLING else ():
            text = text.replace(value, REDACTED)
        return text

    return without


def _scalars(values: Any) -> list[str]:
    """The texts and numbers in a value, as they are written."""
    if isinstance(values, dict):
        return [text for each in values.values() for text in _scalars(each)]
    if isinstance(values, list):
        return [text for each in values for text in _scalars(each)]
    if isinstance(values, bool) or values is None or values == REDACTED:
        return []
    return [values if isinstance(values, str) else str(values)]


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """A value with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {name: _mapped(each, change) for name, each in value.items()}
    return [_mapped(each, change) for each in value] if isinstance(value, list) else value


def _changed(whole: Members, document: Callable[[Any], Any], text: Callable[[str], str]) -> Members:
    """A result with its texts changed, and as documents its structured content and all that the protocol does not work
    by: those members of unknown methods, or of kinds of content that are not known, are all there is.
    """

    def block(each: Any) -> Any:
        if isinstance(each, list):
            return [block(one) for one in each]
        if not isinstance(each, dict):
            return document(each)
        changed = {**each, **document({name: value for name, value in each.items() if name not in BLOCK})}
        changed.update({name: text(each[name]) for name in WORDS if isinstance(each.get(name), str)})
        changed.update({name: block(each[name]) for name in ("content", "resource") if name in each})
        return changed

    changed = dict(whole)
    rest = {name: value for name, value in whole.items() if name not in PROTOCOL}
    for name, value in whole.items():
        if name in BLOCKS:
            changed[name] = block(value)
        elif name == "structuredContent":
            changed[name] = document(value)
        elif name in ("task", "result") and isinstance(value, dict):
            changed[name] = _changed(value, document, text)
        elif name == "error" and isinstance(value, dict):
            said = {each: value[each] for each in value.keys() & {"message", "data"}}
            changed[name] = {**value, **{each: document(one) for each, one in said.items()}}
        elif name in PROTOCOL and isinstance(value, LOOKED.get(name, (dict, list))):
            changed[name] = document(value)
    return {**changed, **document(rest)}


# Length.


def _cut(text: str, limit: int) -> str:
    whole = text.encode()
    if len(whole) <= limit:
        return text
    return f"{whole[:limit].decode('utf-8', 'ignore')}… [cut: {len(whole)} bytes]"


class _Shortened:
    """Shortens one result: texts are cut, other content that finds no room is left out."""

    def __init__(self, limit: int) -> None:
        self._room = limit

    def result(self, whole: Members) -> Members:
        size = len(msgspec.json.encode(whole))
        if size <= self._room:
            return whole
        short = dict(whole)
        for key in ("content", "contents", "messages"):
            if isinstance(short.get(key), list):
                short[key] = self._items(short[key])
        if "structuredContent" in short and not self._takes(short["structuredContent"]):
            del short["structuredContent"]
        meta = short.get("_meta")
        kept = meta if isinstance(meta, dict) and self._takes(meta) else {}
        return {**short, "_meta": {**kept, TRUNCATED: {"bytes": size}}}

    def _items(self, items: list[Any]) -> list[Any]:
        kept = [self._item(each) for each in items]
        return [each for each in kept if each is not None]

    def _item(self, item: Any) -> Any:
        if self._takes(item):
            return item
        if isinstance(item, dict) and isinstance(item.get("content"), dict):
            inner = self._item(item["content"])
            return None if inner is None else {**item, "content": inner}
        if isinstance(item, dict) and isinstance(item.get("text"), str) and self._room > 0:
            # An encoded text is never shorter than itself; one full of escapes is cut further.
            room, text = self._room, item["text"]
            while room and len(msgspec.json.encode(_cut(text, room))) > self._room + MARGIN // 4:
                room //= 2
            self._room = 0
            return {**item, "text": _cut(text, room)}
        return None

    def _takes(self, value: Any) -> bool:
        size = len(msgspec.json.encode(value))
        if size > self._room:
            return False
        self._room -= size
        return True

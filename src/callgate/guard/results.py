"""Results within bounds: cut, with a mark where something is missing (rule GRD-7).

Nothing is decoded that need not be: the members of a result are split, and only those that hold text or files are read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from callgate.config import MaxResult
from callgate.guard.findings import Finding

Members = dict[str, msgspec.Raw]

_members = msgspec.json.Decoder(Members).decode
_any = msgspec.json.Decoder().decode
encode = msgspec.json.Encoder().encode

#: Where the content of a result stands, by the method that gives it.
CONTENT = ("content", "contents", "messages")
#: Pictures in the text of a result: Markdown with its address in place or elsewhere, and HTML.
_PICTURES = (
    re.compile(r"!\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(\s*+<?([^)\s>]*+)>?[^)]*+\)"),
    re.compile(r"!\[([^\[\]]*)\]\[[^\[\]]*\]"),
    re.compile(r"<\s*(?:img|image|picture|source|video|audio|iframe|embed|object|input)\b[^>]*(?:>|\Z)", re.IGNORECASE),
)
_ABROAD = re.compile(r"\s*(?:https?:|//|ftp:)", re.IGNORECASE)


class Trimmed(msgspec.Struct, frozen=True):
    """A result within its bounds, and what was done for it. ``whole``: whether nothing was too large."""

    result: bytes
    findings: tuple[Finding, ...] = ()
    whole: bool = True


def trimmed(result: bytes, bounds: MaxResult, *, images: str = "keep") -> Trimmed:
    """The result within ``bounds``. Of one that is still too large without its text only a note is left."""
    fits = bounds.bytes is None or len(result) <= bounds.bytes
    if fits and bounds.items is None and bounds.text is None and bounds.mime is None and images == "keep":
        return Trimmed(result)
    members = _members(result)
    cut = _Cut(bounds, images)
    changed = dict(members)
    for name in CONTENT:
        if name in members:
            changed[name] = cut.content(members[name])
    if images != "keep" and "structuredContent" in members:
        changed["structuredContent"] = cut.structured(members["structuredContent"])
    spare = changed.get("structuredContent")
    if spare is not None and bounds.text is not None and (cut.short or len(bytes(spare)) > bounds.text):
        del changed["structuredContent"]  # it says the same once more, and all of it
        cut.cut_short("the structured content is left out")
    made = encode(changed) if cut.findings else result
    if bounds.bytes is not None and len(made) > bounds.bytes:
        made = cut.smaller(changed, bounds.bytes, len(result))
    return Trimmed(made, tuple(cut.findings), not cut.short)


class _Cut:
    """One result being cut. ``short``: something was left out because there was too much."""

    def __init__(self, bounds: MaxResult, images: str) -> None:
        self.bounds = bounds
        self.images = images
        self.left = bounds.text
        self.short = False
        self.findings: list[Finding] = []

    def content(self, raw: msgspec.Raw) -> msgspec.Raw:
        blocks = _any(raw)
        if not isinstance(blocks, list):
            return raw
        most = self.bounds.items
        kept = blocks if most is None else blocks[:most]
        before = len(self.findings)
        shown = [self._block(block) for block in kept]
        if len(kept) < len(blocks):
            self.cut_short(f"{len(blocks) - len(kept)} of {len(blocks)} parts are left out")
            shown.append(_like(blocks, f"[{len(blocks) - len(kept)} more parts were left out]"))
        return raw if len(self.findings) == before else msgspec.Raw(encode(shown))

    def structured(self, raw: msgspec.Raw) -> msgspec.Raw:
        value = _any(raw)
        before = len(self.findings)
        value = _texts(value, self._without_pictures)
        return raw if len(self.findings) == before else msgspec.Raw(encode(value))

    def smaller(self, members: Members, most: int, size: int) -> bytes:
        """What is too large though its text is short: structured content goes first, then files, then all of it."""
        self.cut_short(f"the result of {size} bytes is larger than {most}")
        note = f"[cut: this result has {size} bytes, and {most} are allowed]"
        lean = {name: value for name, value in members.items() if name != "structuredContent"}
        for name in CONTENT:
            blocks = _any(lean[name]) if name in lean else None
            if not isinstance(blocks, list):
                continue
            room = most - len(encode({key: value for key, value in lean.items() if key != name})) - len(note) - 200
            lean[name] = msgspec.Raw(encode([*_fitting(blocks, room), _like(blocks, note)]))
        made = encode(lean)
        if len(made) > most:
            kept = {name: lean[name] for name in ("resultType", "isError", *CONTENT) if name in lean}
            for name in CONTENT:
                if name in kept:
                    kept[name] = msgspec.Raw(encode([_like(_any(members[name]), note)]))
            made = encode(kept)
        return made

    def _block(self, block: Any) -> Any:
        """A content block, an element of ``contents``, or a prompt's message with one inside."""
        if not isinstance(block, dict):
            return block
        for inner in ("content", "resource"):
            if isinstance(block.get(inner), dict):
                block = {**block, inner: self._block(block[inner])}
        kind = block.get("mimeType")
        holds = block.get("type") in ("image", "audio") or "blob" in block
        if holds and self.bounds.mime is not None and not _passes(kind, self.bounds.mime):
            said = kind[:80] if isinstance(kind, str) else "of no type"
            self.findings.append(Finding("type", f"A part of the type {said} was left out."))
            return _instead(block, f"[left out: a file of the type {said}]")
        if isinstance(block.get("text"), str):
            text = self._text(block["text"])
            return block if text is block["text"] else {**block, "text": text}
        return block

    def _text(self, text: str) -> str:
        if self.images != "keep":
            text = self._without_pictures(text)
        if self.left is None:
            return text
        if len(text) <= self.left:
            self.left -= len(text)
            return text
        kept, self.left = self.left, 0
        self.cut_short(f"a text of {len(text)} characters was cut after {kept}")
        return f"{text[:kept]}\n[cut: {len(text) - kept} of {len(text)} characters are left out]"

    def _without_pictures(self, text: str) -> str:
        if "![" not in text and "<" not in text:
            return text
        made = text
        end = made.rfind(")") + 1  # beyond it no address ends, and each one that begins would be read to the end
        made = _PICTURES[0].sub(_spoken, made[:end]) + made[end:]
        for pattern in _PICTURES[1:]:
            made = pattern.sub(_spoken, made)
        if made == text:
            return text
        self.findings.append(Finding("picture", "Pictures from elsewhere were taken out of a text."))
        return made

    def cut_short(self, says: str) -> None:
        self.short = True
        if not any(each.kind == "size" for each in self.findings):
            self.findings.append(Finding("size", f"Too large: {says}."))


def _spoken(found: re.Match[str]) -> str:
    """What stands for a picture. One that comes with the text (``data:``, a path) sends nothing to anybody."""
    if found.re.groups >= 2 and not _ABROAD.match(found[2]):
        return found[0]
    return f"[picture: {found[1][:200]}]" if found.re.groups and found[1] else "[picture]"


def _passes(kind: Any, globs: tuple[str, ...]) -> bool:
    if not isinstance(kind, str):
        return False
    bare = kind.partition(";")[0].strip().lower()
    return any(fnmatchcase(bare, glob.lower()) for glob in globs)


def _instead(block: dict[str, Any], note: str) -> dict[str, Any]:
    """A note in the place of a block: resources keep their URI, because it says what was read."""
    if "uri" in block:
        return {"uri": block["uri"], "mimeType": "text/plain", "text": note}
    return {"type": "text", "text": note}


def _like(blocks: Any, note: str) -> dict[str, Any]:
    """A note in the form of the blocks that it follows."""
    first = blocks[0] if isinstance(blocks, list) and blocks and isinstance(blocks[0], dict) else {}
    if "role" in first:
        return {"role": first["role"], "content": {"type": "text", "text": note}}
    return _instead(first if "type" not in first else {}, note)


def _fitting(blocks: list[Any], room: int) -> list[Any]:
    """The first blocks that have room together, the last text among them cut."""
    kept: list[Any] = []
    for block in blocks:
        size = len(encode(block)) + 1
        if size <= room:
            kept.append(block)
            room -= size
            continue
        text = block.get("text") if isinstance(block, dict) else None
        if isinstance(text, str):
            frame = len(encode({**block, "text": ""}))
            # A character may take six bytes of JSON.
            part = text[: max(0, room - frame)]
            while part and len(encode(part)) > room - frame:
                part = part[: len(part) * 3 // 4]
            if part:
                kept.append({**block, "text": part})
        break
    return kept


def _texts(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_texts(each, change) for each in value]
    return {name: _texts(each, change) for name, each in value.items()} if isinstance(value, dict) else value

"""Sealed text: it opens for who made it, for what it was made for, and in one spelling."""

from __future__ import annotations

import msgspec
import pytest

from callgate.gateway.sealed import Box


class Note(msgspec.Struct, frozen=True):
    said: str
    key: bytes = b""


def box(key: bytes = b"k" * 32, purpose: bytes = b"note", version: bytes = b"", longest: int = 512) -> Box[Note]:
    return Box(lambda: key, purpose, Note, longest, version)


@pytest.mark.parametrize("version", [b"", b"\x01"])
def test_what_was_sealed_comes_back(version: bytes) -> None:
    note, mine = Note('ä"\\', b"\x00\xff"), box(version=version)
    text = mine.seal(note)
    assert box(version=version).open(text) == note
    assert text != mine.seal(note)


def test_it_opens_for_nothing_else() -> None:
    text = box().seal(Note("a"))
    others = (box(key=b"j" * 32), box(purpose=b"other"), box(version=b"\x01"), box(longest=len(text) - 1))
    assert [other.open(text) for other in others] == [None] * 4
    assert Box(lambda: b"k" * 32, b"note", int, 512).open(text) is None


def test_every_other_spelling_is_refused() -> None:
    text = box().seal(Note("ab"))  # 48 bytes would fill the last character
    others = {text[:-1] + last for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"} - {text}
    for other in (*others, text + "=", text + "A", text + "\n", " " + text, text[:-1], "ä" + text[1:], "", "=" * 60):
        assert box().open(other) is None
    for odd in (None, 7, text.encode(), [text]):
        assert box().open(odd) is None

"""Text in definitions that a model reads and a person does not see (rule GRD-5)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from callgate.guard.findings import Finding
from callgate.types import JSON

#: What is looked for: its kind, what is said of it, and the pattern. Joiners that scripts and emoji need
#: (U+200C, U+200D, variation selectors 15 and 16) count only where no letter of such a script is beside them.
_KINDS: tuple[tuple[str, str, str], ...] = (
    ("tag characters", "hidden letters (Unicode tags)", "[\U000e0000-\U000e007f]+"),
    ("bidi", "characters that turn the direction of text", "[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+"),
    (
        "zero width",
        "characters without width",
        "[\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u2060-\u2065\u206a-\u206f\u3164\ufe00-\ufe0d\ufeff\uffa0"
        "\ufff0-\ufffb\U0001d173-\U0001d17a\U000e0080-\U000e0fff]+|(?<![^\x00-\u02ff])[\u200c\u200d]+"
        "|(?<![\u200c\u200d])[\u200c\u200d]++(?![^\x00-\u02ff])|(?<=[\u200c\u200d\ufe0e\ufe0f])[\ufe0e\ufe0f]+",
    ),
    (
        "escape sequence",
        "control characters or terminal escapes",
        "(?:\x1b(?:\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b]*(?:\x07|\x1b\\\\)?|[@-_])?|\x9b[0-?]*[ -/]*[@-~]?"
        "|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f])+",
    ),
    ("html comment", "an HTML comment", "<!--.*?(?:-->|\\Z)"),
    (
        "data uri",
        "a `data:` URI",
        r"\bdata:(?:[a-z]+/[a-z0-9.+-]+)?(?:;[a-z0-9=.-]+)*(?:;base64)?,[^\s\"'<>)]*",
    ),
)
_PATTERNS = tuple((kind, says, re.compile(text, re.DOTALL | re.IGNORECASE)) for kind, says, text in _KINDS)
#: How often something hidden may come up from under something else.
ROUNDS = 16
#: Pictures are meant to be data: the one place where such a URI stands by the specification.
_PICTURES = "icons"


def hidden(definition: JSON) -> list[Finding]:
    """What is hidden anywhere in a definition, names of members included."""
    found: dict[str, Finding] = {}

    def look(text: str) -> str:
        for kind, says, pattern in _PATTERNS:
            if kind not in found and pattern.search(text):
                found[kind] = Finding("hidden text", f"The definition holds {says}.", "high")
        return text

    through(definition, look)
    return list(found.values())


def strip(definition: JSON) -> JSON:
    """The definition without what is hidden. Names of members stay: they are what arguments are called."""
    return through(definition, clean, names=False)  # type: ignore[no-any-return]


def clean(text: str) -> str:
    """A text without what is hidden, again until nothing is: taking one away may make another.

    >>> clean("sum\\u200b two<!-- <!-- x -->")
    'sum two'
    """
    for _ in range(ROUNDS):
        before = text
        for _, _, pattern in _PATTERNS:
            text = pattern.sub("", text)
        if text == before:
            return text
    return ""  # no text is written like this, and each round reads all of it


def through(value: Any, change: Callable[[str], str], *, names: bool = True) -> Any:
    """A value with every text in it changed; ``names``: ``change`` is shown names of members, too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [through(each, change, names=names) for each in value]
    if not isinstance(value, dict):
        return value
    made = {}
    for name, each in value.items():
        if names:
            change(name)
        made[name] = each if name == _PICTURES else through(each, change, names=names)
    return made

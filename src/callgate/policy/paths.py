"""Paths into JSON: ``$.rows[*].salary``, ``$..password``, ``$['odd name'][0]``. A small part of RFC 9535."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_STEP = re.compile(
    r"(?P<deep>\.\.)?(?:\.?(?P<name>[A-Za-z_][\w-]*)|\.?(?P<star>\*)|\[(?P<all>\*)\]|\[(?P<at>\d{1,9})\]"
    r"|\[(?P<quote>['\"])(?P<quoted>[^'\"]+)(?P=quote)\])"
)
ANY = None
Step = tuple[bool, str | int | None]
MISSING: Any = object()


class JsonPath:
    """A path that was checked. ``replace`` puts something in the place of whatever it leads to."""

    __slots__ = ("_steps", "text")

    def __init__(self, text: str) -> None:
        """Raises ``ValueError`` for what is no path."""
        self.text = text
        self._steps = tuple(_steps(text))

    def __repr__(self) -> str:
        return f"JsonPath({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JsonPath) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def replace(self, value: Any, mark: Any, found: list[Any]) -> Any:
        """``value`` with ``mark`` wherever the path leads; what stood there goes into ``found``.

        >>> taken = []
        >>> JsonPath("$.rows[*].pay").replace({"rows": [{"pay": 7, "who": "ada"}]}, "-", taken), taken
        ({'rows': [{'pay': '-', 'who': 'ada'}]}, [7])
        """
        return _replace(value, self._steps, mark, found)


def _steps(text: str) -> Iterator[Step]:
    if not text.startswith("$") or len(text) == 1:
        raise ValueError("it does not begin with `$` and a step, as in `$.rows[*].salary`")
    if text.count("..") > 1:
        raise ValueError("it says `..` more than once")
    at = 1
    while at < len(text):
        step = _STEP.match(text, at)
        named = step is not None and step["name"] is not None
        if step is None or (named and step["deep"] is None and text[at] != "."):
            raise ValueError(f"`{text[at : at + 20]}` is no step of a path")
        deep = step["deep"] is not None
        if step["name"] is not None or step["quoted"] is not None:
            yield deep, step["name"] or step["quoted"]
        elif step["at"] is not None:
            yield deep, int(step["at"])
        else:
            yield deep, ANY
        at = step.end()


def _replace(value: Any, steps: tuple[Step, ...], mark: Any, found: list[Any]) -> Any:
    if not steps:
        found.append(value)
        return mark
    (deep, key), rest = steps[0], steps[1:]
    if not isinstance(value, (dict, list)):
        return value
    changed: Any = dict(value) if isinstance(value, dict) else list(value)
    for each in list(changed) if isinstance(changed, dict) else range(len(changed)):
        fits = key is ANY or (each == key and type(each) is type(key))
        if fits:
            changed[each] = _replace(changed[each], rest, mark, found)
        if deep:
            changed[each] = _replace(changed[each], steps, mark, found)
    return changed

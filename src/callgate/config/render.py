"""Errors as people read them, in the shape of rustc and uv.

error[CG0300]: unknown key `polcy`
  --> callgate.yaml:3:1
   |
 3 | polcy: policy.yaml
   | ^^^^^
   = help: did you mean `policy`?
"""

from __future__ import annotations

from collections.abc import Iterator

from callgate.errors import CallgateError, ConfigError, Place

_WIDTH = 120
_RED, _BLUE, _CYAN, _BOLD, _END = "\x1b[1;31m", "\x1b[1;34m", "\x1b[1;36m", "\x1b[1m", "\x1b[0m"


def render(error: CallgateError, *, colour: bool = False, excerpt: bool = True) -> str:
    """The text of an error for a terminal or log, without a final newline; all problems of a ``ConfigError``.

    Without ``excerpt`` the lines of the file, which may hold a secret, are left out.
    """
    problems: tuple[CallgateError, ...] = (error,)
    if isinstance(error, ConfigError) and error.problems:
        problems = error.problems
    parts = ["\n".join(_lines(problem, colour, excerpt)) for problem in problems]
    if len(problems) > 1:
        parts.append(f"{_paint('error', _RED, colour)}: {_safe(error.message)}")
    return "\n\n".join(parts)


def _lines(error: CallgateError, colour: bool, excerpt: bool) -> Iterator[str]:
    head = _paint(f"error[{error.code}]", _RED, colour)
    yield f"{head}: {_paint(_safe(error.message), _BOLD, colour)}"
    edge = 1
    if error.place is not None:
        edge = max(2, len(str(error.place.line)))
        yield from _mark(error.place, edge, colour, excerpt)
    if error.hint:
        first, *rest = _safe(error.hint).split("\n")
        yield f"{' ' * (edge + 1)}{_paint('=', _BLUE, colour)} {_paint('help', _CYAN, colour)}: {first}"
        yield from (" " * (edge + 9) + line for line in rest)


def _mark(place: Place, edge: int, colour: bool, excerpt: bool) -> Iterator[str]:
    gap, bar = " " * edge, _paint("|", _BLUE, colour)
    yield f"{gap}{_paint('-->', _BLUE, colour)} {_safe(place.file)}:{place.line}:{place.column}"
    text, before, marked = _window(place)
    if not (excerpt and text.strip()):
        return
    yield f"{gap} {bar}"
    yield f"{_paint(f'{place.line:>{edge}}', _BLUE, colour)} {bar} {text}"
    yield f"{gap} {bar} {' ' * before}{_paint('^' * marked, _RED, colour)}"


def _window(place: Place) -> tuple[str, int, int]:
    """The visible part of the line, the columns before the mark and the columns to mark.

    Columns are those of a terminal: wide characters take two, combining ones none.
    """
    start = place.column - 1
    first = max(0, start - _WIDTH // 2) if len(place.text) > _WIDTH else 0
    text = place.text[first : first + _WIDTH]
    at = start - first
    lead, tail = ("… " if first else ""), (" …" if first + _WIDTH < len(place.text) else "")
    before = _columns(_safe(lead + text[:at]))
    marked = _columns(_safe(text[at : at + place.length].rstrip()))
    return _safe(lead + text + tail).rstrip(), before, max(1, marked)


def _columns(text: str) -> int:
    import unicodedata  # only for a line that is shown

    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(sign) in "WF" for sign in text)
    return len(text) + wide - sum(unicodedata.combining(sign) != 0 for sign in text)


def _safe(text: str) -> str:
    """Tabs become spaces; control characters of a hostile file must not reach the terminal."""
    return "".join(
        " " if sign == "\t" else sign if sign == "\n" or (sign.isprintable() or sign == " ") else "\ufffd"
        for sign in text
    )


def _paint(text: str, style: str, colour: bool) -> str:
    return f"{style}{text}{_END}" if colour else text

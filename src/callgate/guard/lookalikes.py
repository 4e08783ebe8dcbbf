"""Names that look like those of other servers' tools, and descriptions that speak of them (rule GRD-4)."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

import msgspec

from callgate.guard.findings import Finding

#: Letters of other scripts that look like Latin ones or digits (Unicode TR39, the ones that fonts draw alike), and
#: Latin ones that look like each other. What NFKC folds (full width, mathematical letters) is not repeated here.
_DRAWN_ALIKE = {
    "a": "аɑα", "b": "ьƅ", "c": "сϲꮯ", "d": "ԁɗ", "e": "еёҽ℮", "g": "ɡց", "h": "һհ", "i": "іїιı", "j": "јϳ", "k": "кκ",
    "l": "ӏ1|ا", "m": "мᴍ", "n": "пռո", "o": "оοօ0ס", "p": "рρ", "q": "ԛզ", "r": "гᴦ", "s": "ѕꜱ", "t": "тτ", "u": "υսʋ",
    "v": "ѵνᴠ", "w": "ԝωᴡ", "x": "хχ", "y": "уүγ", "z": "ᴢ",
}  # fmt: skip
_ALIKE = {ord(one): plain for plain, drawn in _DRAWN_ALIKE.items() for one in drawn}
_PAIRS = (("rn", "m"), ("vv", "w"), ("cl", "d"))
_WORD = re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.:/-]+)?")
#: A name that is not an ordinary word when it stands in a sentence.
_TELLING = re.compile(r"(?=.*[a-z0-9])(?=.{6,}\Z)(?:.*[A-Za-z0-9][_-][A-Za-z0-9].*|.*[a-z][A-Z].*)")
#: Shorter names are near each other by chance.
LONG = 6
#: Characters of a name that are looked at.
LONGEST = 1000
#: Entries of all servers together that are compared; beyond it nothing is said of near names.
MOST = 5000
#: Names that share a part and are compared.
COMPARED = 32


class Known(msgspec.Struct, frozen=True):
    """An entry as far as it can be mistaken for another: ``older`` ones (seen before) are what is imitated."""

    server: str
    name: str
    description: str = ""
    rank: tuple[int, int] = (0, 0)

    @property
    def native(self) -> str:
        return f"{self.server}/{self.name}"


def skeleton(name: str) -> str:
    """What a name looks like.

    >>> skeleton("send_rnail") == skeleton("Send-Mail") == skeleton("sеnd_mаil")
    True
    """
    folded = "".join(
        one
        for one in unicodedata.normalize("NFKD", name[:LONGEST])
        if unicodedata.category(one) not in ("Mn", "Cf", "Me")
    )
    text = re.sub(r"[\W_]+", "", folded.casefold().translate(_ALIKE))
    for pair, one in _PAIRS:
        text = text.replace(pair, one)
    return text


def shadows(entries: Iterable[Known]) -> dict[str, list[Finding]]:
    """Findings by ``server/name``: about the entry that imitates, not the one that is imitated.

    Of two, the one that was seen first (``rank``) is the original. The same plain name at two servers is ordinary,
    and exposed names tell them apart: nothing is said of it.
    """
    listed = sorted(entries, key=lambda each: (each.rank, each.native))
    found: dict[str, list[Finding]] = defaultdict(list)
    _alike(listed, found)
    if len(listed) <= MOST:
        _near(listed, found)
    _speaking(listed, found)
    return dict(found)


def _alike(listed: Sequence[Known], found: dict[str, list[Finding]]) -> None:
    first: dict[str, dict[str, list[Known]]] = defaultdict(dict)
    for each in listed:
        same = first[skeleton(each.name)]
        for other in (other for server, theirs in same.items() if server != each.server for other in theirs):
            if other.name != each.name:
                plain = each.name.isascii() and other.name.isascii()
                says = f"The name looks like that of `{other.native}`."
                found[each.native].append(Finding("look-alike", says, "medium" if plain else "high"))
                break
        mine = same.setdefault(each.server, [])
        if len(mine) < 2:  # of two names one at least is another than that of whoever comes later
            mine.append(each)


def _near(listed: Sequence[Known], found: dict[str, list[Finding]]) -> None:
    """Names with one character more, less or another one: both leave the same text when one is left out."""
    first: dict[str, list[tuple[Known, str]]] = defaultdict(list)
    for each in listed:
        text = skeleton(each.name)
        if not LONG <= len(text) <= 64:
            continue
        parts = {text, *(text[:at] + text[at + 1 :] for at in range(len(text)))}
        near = next((other for part in parts if (other := _beside(each, text, first[part]))), None)
        if near is not None:
            found[each.native].append(Finding("near name", f"The name is nearly that of `{near.native}`.", "low"))
        for part in parts:
            first[part].append((each, text))


def _beside(each: Known, text: str, others: Iterable[tuple[Known, str]]) -> Known | None:
    for other, theirs in islice(others, COMPARED):
        if other.server != each.server and theirs != text and _one_apart(theirs, text):
            return other
    return None


def _one_apart(one: str, other: str) -> bool:
    if abs(len(one) - len(other)) > 1:
        return False
    short, long = sorted((one, other), key=len)
    at = next((index for index, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    return short[at + (len(short) == len(long)) :] == long[at + 1 :]


def _speaking(listed: Sequence[Known], found: dict[str, list[Finding]]) -> None:
    """Descriptions that name tools of other servers, in a form that is no ordinary word."""
    names: Mapping[str, list[Known]] = _spoken_of(listed)
    owned: dict[str, set[str]] = defaultdict(set)
    for each in listed:
        owned[each.server].add(each.name)
    for each in listed:
        said = dict.fromkeys(word.strip("./-") for word in _WORD.findall(each.description[:20_000]))
        own = owned[each.server]
        for word in said:
            others = [other for other in names.get(word, ()) if other.server != each.server]
            if others and word not in own:
                says = f"The description speaks of `{others[0].native}`, a tool of another server."
                found[each.native].append(Finding("shadowing", says, "medium"))
                break


def _spoken_of(listed: Sequence[Known]) -> dict[str, list[Known]]:
    names: dict[str, list[Known]] = defaultdict(list)
    for each in listed:
        for form in {each.native, f"{each.server}__{each.name}"}:
            names[form].append(each)
        if _TELLING.fullmatch(each.name):
            names[each.name].append(each)
    return names

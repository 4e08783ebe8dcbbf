"""Decoding: what msgspec does, with places, nearest names, units, and all mistakes at once."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from callgate.config import Bytes, Document, Seconds, Settings, decode, parse_document
from callgate.errors import ConfigError

RULE = "version: 1\nrules:\n- id: a\n  "
ALLOW = "did you mean `allow`?"


class Rule(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    when: str | None = None
    to: dict[str, tuple[str, ...]] = {}
    ttl: Seconds = 60.0
    weight: Annotated[float, Meta(ge=0, le=1)] = 0.5
    limit: Bytes | None = None
    effect: Literal["allow", "deny"] = "allow"
    name: str = msgspec.field(default="", name="displayName")
    pair: tuple[int, str] = (0, "")


class Rules(msgspec.Struct):
    version: int
    rules: list[Rule] = []
    extra: Any = None


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    tricks: int


class Home(msgspec.Struct):
    pet: Cat | Dog
    even: Even | None = None


class Even(msgspec.Struct):
    number: int

    def __post_init__(self) -> None:
        if self.number % 2:
            raise ValueError("must be even")


def of(text: str, type_: Any = Rules, at: tuple[str | int, ...] = ()) -> Any:
    return decode(parse_document(text, "x.yaml"), type_, at)


def problems(text: str, type_: Any = Rules) -> list[ConfigError]:
    with pytest.raises(ConfigError) as caught:
        of(text, type_)
    return list(caught.value.problems)


def test_a_whole_document() -> None:
    rules = of("version: 1\nrules:\n- {id: a, to: {roles: [dev]}, ttl: 30m, limit: 1MiB, displayName: A, pair: [1, x]}")
    assert rules.rules == [Rule("a", to={"roles": ("dev",)}, ttl=1800.0, limit=2**20, name="A", pair=(1, "x"))]


def test_a_part_of_a_document() -> None:
    assert of("version: 1\nrules: [{id: a}]", Rule, ("rules", 0)) == Rule("a")
    with pytest.raises(ConfigError, match=r"unknown key `x` in `rules\[0\]`"):
        of("version: 1\nrules: [{id: a, x: 1}]", Rule, ("rules", 0))


def test_the_part_of_a_part() -> None:
    part: Document = parse_document("policy:\n  version: one", "x.yaml").at(("policy",))
    with pytest.raises(ConfigError, match="`version` must be a whole number") as caught:
        decode(part, Rules)
    assert caught.value.place is not None
    assert (caught.value.place.line, caught.value.place.column) == (2, 12)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("30s", 30.0), ("5m", 300.0), ("1h", 3600.0), ("250ms", 0.25), ("1h 30m", 5400.0), ("2min", 120.0), ("1.5", 1.5)],
)
def test_durations(written: str, seconds: float) -> None:
    assert of(f"id: a\nttl: {written}", Rule).ttl == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("written", "size"),
    [("1MiB", 2**20), ("64KB", 64_000), ("10MB", 10**7), ("1.5KiB", 1536), ("12B", 12), ("5", 5), ("1gib", 2**30)],
)
def test_sizes(written: str, size: int) -> None:
    assert of(f"id: a\nlimit: {written}", Rule).limit == size


@pytest.mark.parametrize("written", ["0s", "-5", "soon", "5 parsecs", "1h x", "[1]", "true", "''", "0.0000000000ns"])
def test_durations_that_are_none(written: str) -> None:
    assert "`ttl`" in problems(f"id: a\nttl: {written}", Rule)[0].message


@pytest.mark.parametrize("written", ["0", "1.5", "-1MiB", "1XB", "MiB", "0.1B", "true"])
def test_sizes_that_are_none(written: str) -> None:
    assert "`limit`" in problems(f"id: a\nlimit: {written}", Rule)[0].message


def test_a_plain_number_is_taken_as_written_where_text_is_wanted() -> None:
    rule = of("id: 1.10\nto: {roles: [0x10, true, 7]}", Rule)
    assert (rule.id, rule.to) == ("1.10", {"roles": ("0x10", "true", "7")})


def test_empty_sections_count_as_absent() -> None:
    assert of("version: 1\nrules:\nextra:\n") == Rules(1)
    assert of("", Settings) == Settings()


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("rules: []", "the file needs the key `version`", "add `version:` with a whole number"),
        ("version: true", "`version` must be a whole number, not `true`", ""),
        ("version:", "`version` is empty", "it must be a whole number"),
        ("version: 1\nrules: {}", "`rules` must be a list, not a mapping", ""),
        ("version: 1\nsetup: 1", "unknown key `setup`", "known keys: `version`, `rules`, `extra`"),
        ("[1]", "the file must be a mapping, not a list", ""),
        ("version: 1\nrules: [5]", "`rules[0]` must be a mapping, not `5`", ""),
        (RULE + "weight: 2", "`rules[0].weight` must be at most 1, not `2`", ""),
        (RULE + "weight: -2", "`rules[0].weight` must be at least 0, not `-2`", ""),
        (RULE + "when: [a]", "`rules[0].when` must be text, not a list", ""),
        (RULE + "wen: x", "unknown key `wen` in `rules[0]`", "did you mean `when`?"),
        (RULE + "TTL: 5", "unknown key `TTL` in `rules[0]`", "did you mean `ttl`?"),
        (RULE + "display: x", "unknown key `display` in `rules[0]`", "did you mean `displayName`?"),
        (RULE + "effect: alow", "`rules[0].effect` must be one of `allow`, `deny`, not the text `alow`", ALLOW),
        (
            RULE + "to: {roles: dev}",
            "`rules[0].to.roles` must be a list, not the text `dev`",
            "write it as a list: [dev]",
        ),
        (RULE + "pair: [x, y]", "`rules[0].pair[0]`: Expected `int`, got `str`", ""),
    ],
)
def test_mistakes(text: str, message: str, hint: str) -> None:
    found = problems(text)
    assert [(one.message, one.hint) for one in found] == [(message, hint)]
    assert found[0].place is not None


def test_all_mistakes_at_once_in_the_order_of_the_file() -> None:
    found = problems("rules:\n- {id: a, x: 1}\n- {ttl: soon}\nversion: one\n")
    assert [one.place.line for one in found if one.place] == [2, 3, 3, 4]


def test_unions_of_structs_and_post_init_are_left_to_msgspec() -> None:
    assert of("pet: {type: Cat, lives: 9}", Home) == Home(Cat(9))
    assert problems("pet: {type: Cat, lives: x}", Home)[0].message == "`pet.lives`: Expected `int`, got `str`"
    found = problems("pet: {type: Cat, lives: 9}\neven: {number: 3}", Home)[0]
    assert "must be even" in found.message
    assert found.place is not None
    assert found.place.line == 2

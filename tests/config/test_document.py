"""Documents: text in, values and places out, and never anything but a ``ConfigError``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from callgate.config import Document, Settings, decode, parse_document, read_document, render
from callgate.errors import ConfigError

TEXT = """\
servers:
  time: {command: uvx, args: [mcp-server-time, --tz]}
policy:
  rules:
    - id: one
"""


def problem(text: str, file: str = "callgate.yaml") -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_document(text, file)
    return caught.value.problems[0]


def test_places_of_values_and_keys() -> None:
    document = parse_document(TEXT, "callgate.yaml")
    value = document.place(("servers", "time", "args", 1))
    assert (value.file, value.line, value.column, value.length) == ("callgate.yaml", 2, 48, 4)
    assert value.text == "  time: {command: uvx, args: [mcp-server-time, --tz]}"
    key = document.place(("servers", "time", "args"), key=True)
    assert (key.line, key.column, key.length) == (2, 24, 4)


def test_a_path_that_leads_nowhere_gives_the_deepest_part_that_exists() -> None:
    document = parse_document(TEXT, "callgate.yaml")
    place = document.place(("servers", "time", "env", "TZ"))
    assert (place.line, place.column, place.length) == (2, 3, 4)


def test_a_part_of_a_document_points_into_the_whole_file() -> None:
    part = parse_document(TEXT, "callgate.yaml").at(("policy",))
    assert part.data == {"rules": [{"id": "one"}]}
    assert (part.file, part.place(("rules", 0, "id")).line) == ("callgate.yaml", 5)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True), ("False", False), ("on", "on"), ("off", "off"), ("yes", "yes"), ("no", "no"), ("y", "y"),
        ("12", 12), ("-3", -3), ("0x1F", 31), ("0o17", 15), ("010", "010"), ("1_000", "1_000"), ("12:30", "12:30"),
        ("1.5", 1.5), ("1e3", 1000.0), (".inf", ".inf"), (".nan", ".nan"), ("1e999", "1e999"), ("9" * 200, "9" * 200),
        ("null", None), ("~", None), ("", None), ("2026-11-20", "2026-11-20"), ("=", "="), ("'12'", "12"),
        ("!!str 12", "12"), ("7", 7),
    ],
)  # fmt: skip
def test_scalars_mean_what_they_look_like(text: str, value: Any) -> None:
    found = parse_document(f"key: {text}", "x.yaml").data["key"]
    assert found == value
    assert type(found) is type(value)


def test_keys_that_other_parsers_take_for_booleans_are_text() -> None:
    assert parse_document("on: 1\nyes: 2\nNO: 3", "x.yaml").data == {"on": 1, "yes": 2, "NO": 3}


def test_an_alias_bomb_is_refused_before_it_expands() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "after expanding aliases" in problem("\n".join(lines)).message


def test_modest_aliases_are_fine() -> None:
    document = parse_document("a: &a {x: 1}\nb: *a\nc: [*a, *a]", "x.yaml")
    assert document.data == {"a": {"x": 1}, "b": {"x": 1}, "c": [{"x": 1}, {"x": 1}]}


@pytest.mark.parametrize("file", ["x.yaml", "x.json"])
@pytest.mark.parametrize(("opening", "times"), [("[", 70), ("[", 200_000), ('{"a":', 200_000)])
def test_deep_nesting_is_refused(file: str, opening: str, times: int) -> None:
    assert "64 levels" in problem(opening * times, file).message


def test_all_problems_of_a_file_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_document("a: 1\na: 2\n1: x\nb: !thing y\n", "x.yaml")
    lines = [found.place.line for found in caught.value.problems if found.place]
    assert lines == [2, 3, 4]
    assert caught.value.message == "x.yaml has 3 problems"


def test_endless_problems_end() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_document("a: 1\n" * 1000, "x.yaml")
    assert len(caught.value.problems) == 50


def test_json_with_comments_and_trailing_commas() -> None:
    text = '\ufeff{\n// of a client\n"a": [1, 2.5, "\\ud83d\\ude00/*",],\t/* x\n*/ "b": null, "c": {"d": true,},\n}\n'
    document = parse_document(text, "mcp.json")
    assert document.data == {"a": [1, 2.5, "😀/*"], "b": None, "c": {"d": True}}
    assert document.place(("c", "d")).line == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "a": 2}', "given twice"), ('{"a": 01}', "cannot stand here"), ("{'a': 1}", "double quotes"),
        ('{"a": tru}', "not a value"), ('{"a": 1', "the file ends"), ('{"a" 1}', "`:` is expected"),
        ("[1 2]", "`,` is expected"), ('{"a": "\\q"}', "escape"), ('{"a": 1e999}', "too large"),
        ('{"a": "x\n"}', "not closed"), ("{a: 1}", "a key is expected"), ('{"a": 1} x', "after the end"),
        ("", "the file ends"), ('{"a": NaN}', "not a value"), ("[,]", "not a value"), (f"[{'9' * 200}]", "too large"),
        ('{"a": "\ud800"}', "escape"), ('["\\ud800"]', "escape"),
    ],
)  # fmt: skip
def test_broken_json(text: str, words: str) -> None:
    found = problem(text, "mcp.json")
    assert words in found.message
    assert found.hint
    assert found.place is not None


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_bytes(b"a: b\nc: \xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8") as caught:
        read_document(tmp_path / "policy.yaml")
    assert caught.value.place is not None
    assert (caught.value.place.line, caught.value.place.column) == (2, 4)
    with pytest.raises(ConfigError, match="is a folder"):
        read_document(tmp_path)
    with pytest.raises(ConfigError, match="does not exist") as caught:
        read_document(tmp_path / "polcy.yaml")
    assert f"{tmp_path / 'policy.yaml'}" in caught.value.hint
    with pytest.raises(ConfigError, match="does not exist") as caught:
        read_document(tmp_path / "no" / "x.yaml")
    assert "folder" in caught.value.hint


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b" " * (8 * 1024 * 1024 + 1))
    with pytest.raises(ConfigError, match="larger than 8 MiB"):
        read_document(tmp_path / "x.yaml")


def told(text: str, file: str) -> Settings | str:
    """The settings, or the text of the error."""
    try:
        return decode(parse_document(text, file), Settings)
    except ConfigError as error:
        return render(error)


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=[])))
@example("&a [*a]")
@example("? ? ?")
@example("\x00")
@example("%YAML 9.9\n---\n")
@example("a: !!int x\nb: !!bool [1]\nc: !!null {}")
def test_arbitrary_text_parses_or_is_told_why(text: str) -> None:
    for file in ("x.yaml", "x.json"):
        found = told(text, file)
        assert isinstance(found, Settings) or found.startswith("error[CG0300]: ")


WORDS = st.sampled_from(
    [
        "a",
        "b: ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "\n",
        "\n  ",
        "\t",
        "&x ",
        "*x",
        "!!str ",
        "'",
        '"',
        "# ",
        "| ",
        "<<: ",
        "---\n",
        "? ",
        "1",
    ]
)


@settings(deadline=None)
@given(st.lists(WORDS, max_size=30).map("".join))
def test_almost_yaml_parses_or_is_told_where(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_document(text, "x.yaml"), Document)


PLAIN: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**15), 10**15)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(), below, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(PLAIN, st.sampled_from([json.dumps, lambda value: json.dumps(value, ensure_ascii=False, indent=1)]))
def test_json_reads_what_json_writes(value: Any, dumps: Callable[[Any], str]) -> None:
    assert parse_document(dumps(value), "x.json").data == value


def test_pyyaml_without_libyaml_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    with_libyaml = parse_document(TEXT, "callgate.yaml")
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    without = parse_document(TEXT, "callgate.yaml")
    assert without.data == with_libyaml.data
    assert without.place(("servers", "time", "args", 1)) == with_libyaml.place(("servers", "time", "args", 1))
    for text in ("a: [1", "a: 'x", "a:\n\tb: c", "a: @x", "\x00", "a: \ud800", "[" * 70):
        assert problem(text).place is not None

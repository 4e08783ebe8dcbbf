from __future__ import annotations

from typing import Any

import pytest

from callgate.identity.claims import claim_at, names_of, read_object


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("plain", 1),
        ("a.b", 2),
        ("a.b.c", None),
        ("a.x", None),
        ("x.y", None),
        ("plain.y", None),
        ("https://example.org/roles", 3),
        ("clients.my.app.roles", 4),
        ("empty", None),
    ],
)
def test_a_path_finds_its_claim(path: str, found: Any) -> None:
    claims = {
        "plain": 1,
        "a": {"b": 2},
        "https://example.org/roles": 3,
        "clients": {"my.app": {"roles": 4}},
        "empty": None,
    }
    assert claim_at(claims, path) == found


@pytest.mark.parametrize(
    ("value", "names"),
    [(None, ()), ("", ()), ("dev", ("dev",)), ("dev ops", ("dev", "ops")), ([], ()), (["a b", "c", "c"], ("a b", "c"))],
)
def test_names_are_a_list_or_words(value: Any, names: tuple[str, ...]) -> None:
    assert names_of({"roles": value}, "roles") == names
    assert names_of({}, "roles") == ()


def test_a_good_object_is_read_whole() -> None:
    raw = b'{"a": [1, 2.5, {"b": null}], "c": "\xc3\xab", "d": 9223372036854775807}'
    assert read_object(raw) == {"a": [1, 2.5, {"b": None}], "c": "ë", "d": 2**63 - 1}

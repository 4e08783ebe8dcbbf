"""Exposed names: legal for every vendor, the same at every start, never the same for two tools."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.catalog import exposed_name

LEGAL = re.compile(r"[A-Za-z0-9_-]{1,64}")
server_names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", fullmatch=True)
tool_names = st.text(min_size=1, max_size=120)


@given(server_names, tool_names)
def test_every_name_is_legal_for_every_vendor(server: str, tool: str) -> None:
    assert LEGAL.fullmatch(exposed_name(server, tool))


@given(server_names, tool_names, server_names, tool_names)
def test_two_tools_never_share_a_name(server: str, tool: str, other: str, its: str) -> None:
    if (server, tool) != (other, its):
        assert exposed_name(server, tool) != exposed_name(other, its)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (("a", "b__c"), ("a__b", "c")),
        (("a", "_b"), ("a_", "b")),
        (("a.b", "c"), ("a_b", "c")),
        (("a", "x.y"), ("a", "x_y")),
        (("s", "t" * 80), ("s", "t" * 81)),
    ],
)
def test_pairs_that_look_alike_stay_apart(one: tuple[str, str], two: tuple[str, str]) -> None:
    assert exposed_name(*one) != exposed_name(*two)


def test_a_plain_name_reads_as_server_and_tool() -> None:
    assert exposed_name("git", "status") == "git__status"

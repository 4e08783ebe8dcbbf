"""Reading JSON-RPC strictly: every text that two readers could read differently is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.errors import ProtocolError
from callgate.gateway import wire

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":2}',
        b'{"x":{"a":1,"b":{"a":1, "a":1}}}',
        b'{"a":1,"\\u0061":2}',
        b'{"a":1e2,"a":100.0000}',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e999}',
        b"[" * 100_000,
        b"[" * 65 + b"]" * 65,
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\\ud800"}',
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":1} {"b":2}',
        b'{"a":"\x00"}',
        b"{'a':1}",
        b'{"a":1,}',
        b"",
        b"9" * 5000,
        b'{"a":"\xc0\xaf"}',
    ],
)
def test_a_text_that_is_not_plain_json_is_a_parse_error(text: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        wire.read(text, 64)
    assert caught.value.rpc_code == -32700


@given(json_values)
def test_plain_json_is_read_whatever_its_layout(value: object) -> None:
    for text in (json.dumps(value), json.dumps(value, indent=2), json.dumps(value, ensure_ascii=False)):
        assert wire.read(text.encode(), 64) == json.loads(text)


@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=6), st.booleans())
def test_a_key_that_appears_twice_is_found_wherever_it_is(keys: list[str], nested: bool) -> None:
    inner = "{" + ",".join(f'"{key}":1' for key in keys) + "}"
    text = f'{{"x":[{inner}]}}' if nested else inner
    if len(set(keys)) == len(keys):
        wire.read(text.encode(), 64)
    else:
        with pytest.raises(ProtocolError):
            wire.read(text.encode(), 64)


def test_many_brackets_are_not_deep_nesting() -> None:
    wide = {"list": [{"n": [n]} for n in range(200)]}
    assert wire.read(json.dumps(wide).encode(), 5) == wide
    with pytest.raises(ProtocolError):
        wire.read(json.dumps(wide).encode(), 3)


@pytest.mark.parametrize(
    ("before", "after"), [(b"{}", b'{"k":1}'), (b'{ "a" : 2}', b'{"k":1, "a" : 2}'), (b"{ }", b'{"k":1 }')]
)
def test_a_member_is_put_in_front(before: bytes, after: bytes) -> None:
    assert wire.with_member(before, b"k", b"1") == after

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.audit.redact import MAX_VALUES, REPLACEMENT, TOO_MUCH, looks_secret, redact

NAMES = [
    "password", "Passwd", "user_password", "PWD", "passphrase", "secret", "client-secret", "clientSecret", "token",
    "accessToken", "refresh_token", "api_key", "apikey", "API-KEY", "X-Api-Key", "Authorization", "proxy-authorization",
    "credentials", "private_key", "privateKey", "Cookie", "set-cookie", "session_id", "aws_secret_access_key", "jwt",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_values_of_secret_names_are_replaced(name: str) -> None:
    assert redact({name: "hunter2"}) == {name: REPLACEMENT}


@pytest.mark.parametrize("value", ["text", 12345, 1.5, True, None, ["a", "b"], {"a": {"b": "c"}}])
def test_whatever_a_secret_is_it_is_replaced(value: Any) -> None:
    assert redact({"a": [{"password": value}]}) == {"a": [{"password": REPLACEMENT}]}


@pytest.mark.parametrize("name", ["author", "path", "keyboard", "compass", "monkey", "passage", "notes", "pinned"])
def test_other_names_are_left_alone(name: str) -> None:
    assert not looks_secret(name)


def test_a_number_of_tokens_is_no_secret() -> None:
    assert redact({"max_tokens": 100, "tokens": ["t-1"]}) == {"max_tokens": 100, "tokens": REPLACEMENT}


def test_pairs_of_name_and_value_are_understood() -> None:
    headers = [{"name": "Authorization", "value": "Bearer x"}, {"name": "Accept", "value": "text/plain"}]
    assert redact({"headers": headers}) == {"headers": [{"name": "Authorization", "value": REPLACEMENT}, headers[1]]}


def test_names_that_are_not_text_are_left_alone() -> None:
    assert redact({1: {"token": "x"}}) == {1: {"token": REPLACEMENT}}


def test_without_secrets_nothing_is_copied() -> None:
    value = {"a": [1, {"b": "c"}], "d": ()}
    assert redact(value) is value


def test_what_is_too_deep_is_not_kept() -> None:
    value: Any = {"password": "hunter2"}
    for _ in range(200):
        value = [value]
    text = str(redact(value))
    assert "hunter2" not in text
    assert TOO_MUCH in text


def test_what_is_too_much_to_look_through_is_not_kept() -> None:
    value = {"a": [0] * MAX_VALUES, "b": [{"password": "hunter2"}]}
    assert redact(value) == {"a": TOO_MUCH, "b": TOO_MUCH}


def test_many_names_do_not_fill_the_memory() -> None:
    from callgate.audit.redact import _known

    redact({f"name-{number}": 1 for number in range(6000)})
    assert len(_known) <= 4096
    assert redact({"x" * 100 + "token": "t"}) == {"x" * 100 + "token": REPLACEMENT}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "token"]), inner, max_size=3)
    ),
    max_leaves=20,
)


@given(JSON)
def test_no_token_survives_anywhere(value: Any) -> None:
    def tokens(found: Any) -> list[Any]:
        if isinstance(found, dict):
            inner = [token for member in found.values() for token in tokens(member)]
            return inner + ([found["token"]] if "token" in found else [])
        return [token for item in found for token in tokens(item)] if isinstance(found, list) else []

    assert set(map(str, tokens(redact(value)))) <= {REPLACEMENT}

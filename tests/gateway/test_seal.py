"""States that clients carry: only who got one can bring it back, unchanged, for the same request, in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.errors import ProtocolError
from callgate.gateway.seal import CHANGED, EXPIRED, FOREIGN, LARGEST, Seal
from callgate.types import Call, Front, Principal, Tool

KEY = bytes(range(32))
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def call(**changes: Any) -> Call:
    made = Call(
        1, Principal("alice", "key of alice"), Tool("notes", "write", "notes__write", b"{}"),
        {"text": "hello", "to": ["a", "b"]}, Front(), 0,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def seal(key: bytes = KEY, config: str = "c1", clock: Callable[[], float] = lambda: 1000.0) -> Seal:
    return Seal(lambda: key, lambda server: f"{server} {config}", clock)


def refusal(sealer: Seal, state: object, of: Call | None = None) -> str:
    with pytest.raises(ProtocolError) as caught:
        sealer.open(state, of or call())
    assert (caught.value.rpc_code, caught.value.http_status) == (-32602, 400)
    return caught.value.message


@pytest.mark.rule("MRTR-8")
@given(st.one_of(st.none(), st.text()))
def test_what_is_sealed_comes_back_as_it_was(inner: str | None) -> None:
    sealer = seal()
    round = sealer.open(sealer.seal(call(), "pass", 60, inner), call())
    assert (round.kind, round.inner, round.node) == ("pass", inner, sealer.node)


@pytest.mark.rule("MRTR-5", "RS-14")
@given(st.data())
def test_a_state_with_any_character_changed_is_refused(data: st.DataObject) -> None:
    state = seal().seal(call(), "pass", 60, "the server's own state")
    at = data.draw(st.integers(0, len(state) - 1))
    other = data.draw(st.sampled_from(ALPHABET).filter(lambda character: character != state[at]))
    assert refusal(seal(), state[:at] + other + state[at + 1 :]) == FOREIGN


@pytest.mark.rule("MRTR-5")
def test_every_change_of_the_last_characters_is_refused() -> None:
    """The bits that base64 leaves unused are no second spelling."""
    for inner in ("", "a", "ab", "abc"):
        state = seal().seal(call(), "pass", 60, inner)
        for at in (-2, -1):
            for other in set(ALPHABET) - {state[at]}:
                changed = list(state)
                changed[at] = other
                assert refusal(seal(), "".join(changed)) == FOREIGN


@pytest.mark.rule("MRTR-5")
@given(st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=200), st.binary(max_size=99).map(bytes.hex)))
def test_what_callgate_never_made_is_refused(state: object) -> None:
    assert refusal(seal(), state) == FOREIGN
    assert refusal(seal(), "A" * (2 * LARGEST + 1)) == FOREIGN


@pytest.mark.rule("MRTR-5")
@pytest.mark.parametrize(
    "change", [lambda s: s[:-1], lambda s: s + "A", lambda s: s + "=", lambda s: " " + s, lambda s: s + s]
)
def test_a_state_that_is_cut_or_longer_is_refused(change: Callable[[str], str]) -> None:
    assert refusal(seal(), change(seal().seal(call(), "pass", 60, "x"))) == FOREIGN


OTHERS: dict[str, dict[str, Any]] = {
    "principal": {"principal": Principal("alice", "key of somebody else called alice")},
    "door": {"front": Front(door="server:notes")},
    "method": {"method": "prompts/get"},
    "server": {"tool": Tool("mail", "write", "notes__write", b"{}")},
    "tool": {"tool": Tool("notes", "erase", "notes__write", b"{}")},
    "arguments": {"arguments": {"text": "hello", "to": ["b", "a"]}},
    "what stands beside": {"params": {"uri": "file:///b"}},
}


@pytest.mark.rule("MRTR-6", "PARK-1", "RS-14")
@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("kind", ["pass", "parked", "url"])
def test_a_state_is_worth_nothing_with_another_request(other: dict[str, Any], kind: Any) -> None:
    state = seal().seal(call(), kind, 60, handle=b"h")
    assert refusal(seal(), state, call(**other)) == FOREIGN
    assert seal().open(state, call()).handle == b"h"


def test_the_order_of_arguments_and_what_the_client_brings_do_not_matter() -> None:
    state = seal().seal(call(), "pass", 60)
    brought = {"inputResponses": {"a": {}}, "requestState": state}
    assert seal().open(state, call(arguments={"to": ["a", "b"], "text": "hello"}, params=brought)).inner is None


@pytest.mark.rule("MRTR-6")
def test_an_expired_state_is_refused() -> None:
    now = 1000.0
    sealer = seal(clock=lambda: now)
    state = sealer.seal(call(), "pass", 60)
    now = 1060.0
    sealer.open(state, call())
    now = 1061.0
    assert refusal(sealer, state) == EXPIRED


def test_a_state_is_refused_after_the_server_was_configured_anew() -> None:
    state = seal().seal(call(), "pass", 60, "of the server before")
    assert refusal(seal(config="c2"), state) == CHANGED


def test_another_key_opens_nothing_and_another_process_with_the_same_key_does() -> None:
    state = seal().seal(call(), "pass", 60)
    assert refusal(seal(bytes(32)), state) == FOREIGN
    assert seal().open(state, call()).node != seal().node


def test_two_states_of_the_same_question_differ_and_show_nothing() -> None:
    first, second = (seal().seal(call(), "pass", 60, "secret") for _ in range(2))
    assert first != second
    assert "secret" not in first and set(first) <= set(ALPHABET)

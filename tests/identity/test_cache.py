from __future__ import annotations

import hashlib

import pytest

from callgate.identity import Refused
from callgate.identity.cache import ACCEPTED_ENTRIES, Accepted, Refusals, Verified
from callgate.types import Principal

from .provider import Clock, Make, Provider, ec_key


class Trusted:
    trusted = True


ALICE = Principal(subject="alice", key="k")
NOW = 1000.0


def verified(expires: float = NOW + 3600) -> Verified:
    return Verified(ALICE, Trusted(), NOW, expires)


@pytest.mark.rule("TOK-1")
@pytest.mark.anyio
async def test_a_verified_token_is_remembered_by_its_hash_for_a_minute(make: Make, idp: Provider, clock: Clock) -> None:
    who = make()
    bearer = idp.bearer(ec_key("first"))
    principal = await who.recognise(bearer)
    assert list(who._accepted._entries) == [hashlib.sha256(bearer[7:]).digest()]
    clock.now += 59.9
    assert who.known(bearer) is principal
    clock.now += 0.1
    assert who.known(bearer) is None
    assert await who.recognise(bearer) == principal


@pytest.mark.rule("TOK-1")
@pytest.mark.anyio
async def test_a_remembered_token_is_forgotten_when_it_expires(make: Make, idp: Provider, clock: Clock) -> None:
    who = make()
    bearer = idp.bearer(ec_key("first"), exp=int(clock()) + 10)
    await who.recognise(bearer)
    clock.now += 9.9
    assert who.known(bearer) is not None
    clock.now += 0.1
    assert who.known(bearer) is None
    assert (await who.recognise(bearer)).subject == "alice", "the leeway holds"
    assert who.known(bearer) is None and len(who._accepted) == 0, "and is checked anew each time"
    clock.now += 30
    with pytest.raises(Refused) as caught:
        await who.recognise(bearer)
    assert caught.value.kind == "expired"


@pytest.mark.rule("TOK-1")
def test_the_least_recently_used_token_makes_room() -> None:
    cache = Accepted(size=3)
    for name in (b"a", b"b", b"c"):
        cache.put(name, verified(), NOW)
    assert cache.get(b"a", NOW) is ALICE
    cache.put(b"d", verified(), NOW)
    assert [name for name in (b"a", b"b", b"c", b"d") if cache.get(name, NOW)] == [b"a", b"c", b"d"]


@pytest.mark.rule("TOK-1")
def test_there_is_room_for_50_000_tokens_and_not_one_more() -> None:
    cache = Accepted()
    one = verified()
    for n in range(ACCEPTED_ENTRIES + 1):
        cache.put(n.to_bytes(4, "big"), one, NOW)
    assert len(cache) == ACCEPTED_ENTRIES == 50_000
    assert cache.get((0).to_bytes(4, "big"), NOW) is None


def test_expired_entries_leave_as_new_ones_come() -> None:
    cache = Accepted()
    for n in range(10):
        cache.put(bytes([n]), verified(), NOW)
    for n in range(10, 16):
        cache.put(bytes([n]), verified(), NOW + 61)
    assert len(cache) == 6


@pytest.mark.rule("TOK-3")
@pytest.mark.anyio
async def test_a_refusal_is_remembered_for_five_seconds_at_most(make: Make, idp: Provider, clock: Clock) -> None:
    who = make()
    early = idp.bearer(ec_key("first"), nbf=int(clock()) + 31)
    with pytest.raises(Refused) as first:
        await who.recognise(early)
    clock.now += 4
    with pytest.raises(Refused) as again:
        await who.recognise(early)
    assert (again.value.kind, again.value.reason) == (first.value.kind, first.value.reason)
    clock.now += 1
    assert (await who.recognise(early)).subject == "alice"


@pytest.mark.rule("TOK-3")
def test_refusals_are_bounded_and_a_clock_set_back_does_not_keep_them() -> None:
    cache = Refusals(size=2)
    for name in (b"a", b"b", b"c"):
        cache.put(name, Refused("expired", "why"), NOW)
    assert len(cache) == 2 and cache.get(b"a", NOW) is None
    assert cache.get(b"b", NOW - 1) is None
    assert cache.get(b"c", NOW) is not None
    assert cache.get(b"c", NOW + 5) is None
    assert len(cache) == 0

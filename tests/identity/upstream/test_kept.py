"""Tokens that are kept."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from callgate.errors import Denied, UpstreamError
from callgate.identity.upstream.grants import Token
from callgate.identity.upstream.kept import AGAIN, MARGIN, YOUNG, Kept
from callgate.identity.upstream.presented import Presented
from tests.identity.provider import Clock

pytestmark = pytest.mark.anyio
ALICE, BOB = ("alice", ""), ("bob", "")


class Issuer:
    """Gives tokens when its gate is open."""

    def __init__(self, clock: Clock, life: float = 600.0) -> None:
        self.clock = clock
        self.life = life
        self.asked = 0
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> Token:
        self.asked += 1
        number = self.asked
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return Token(f"t{number}", self.clock.now + self.life)


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def get(kept: Kept, issuer: Issuer, key: tuple[str, str] = ALICE) -> str:
    found = kept.get(key) or await kept.fetch(key, issuer)
    return found.value


@pytest.mark.rule("SEC-6")
async def test_an_expired_token_is_renewed_once_for_fifty_calls(clock: Clock) -> None:
    issuer, kept = Issuer(clock), Kept(clock)
    assert await get(kept, issuer) == "t1"
    clock.now += issuer.life - MARGIN - 1
    assert await get(kept, issuer) == "t1"
    clock.now += 1
    assert set(await asyncio.gather(*(get(kept, issuer) for _ in range(50)))) == {"t2"}
    assert issuer.asked == 2


async def test_a_short_life_is_used_for_the_most_part(clock: Clock) -> None:
    issuer, kept = Issuer(clock, life=10.0), Kept(clock)
    await get(kept, issuer)
    clock.now += 8.9
    assert await get(kept, issuer) == "t1"
    clock.now += 0.2
    assert await get(kept, issuer) == "t2"


async def test_each_key_has_its_own(clock: Clock) -> None:
    issuer, kept = Issuer(clock), Kept(clock)
    assert [await get(kept, issuer, key) for key in (ALICE, BOB, ALICE)] == ["t1", "t2", "t1"]


async def test_who_gives_up_takes_nothing_from_the_others(clock: Clock) -> None:
    issuer, kept = Issuer(clock), Kept(clock)
    issuer.gate.clear()
    first, second = (asyncio.create_task(get(kept, issuer)) for _ in range(2))
    while not issuer.asked:
        await asyncio.sleep(0)
    first.cancel()
    issuer.gate.set()
    assert await second == "t1"
    with contextlib.suppress(asyncio.CancelledError):
        await first


async def test_a_refusal_is_remembered_for_a_moment_and_for_one(clock: Clock) -> None:
    issuer, kept = Issuer(clock), Kept(clock)
    said = {"kind": "identity", "error": "invalid_grant"}
    issuer.error = Denied("no", hint="ask", data=said)
    for _ in range(3):
        with pytest.raises(Denied) as found:
            await get(kept, issuer)
        assert (found.value.hint, found.value.data) == ("ask", said)
    assert issuer.asked == 1
    issuer.error = None
    assert await get(kept, issuer, BOB) == "t2"
    clock.now += AGAIN
    assert await get(kept, issuer) == "t3"


async def test_what_no_issuer_said_is_not_remembered(clock: Clock) -> None:
    issuer, kept = Issuer(clock), Kept(clock)
    issuer.error = Denied("sign in first", data={"kind": "identity"})
    with pytest.raises(Denied):
        await get(kept, issuer)
    issuer.error = None
    assert await get(kept, issuer) == "t2"


@pytest.mark.rule("SEC-8")
async def test_what_is_on_its_way_to_a_revoked_principal_is_not_kept(clock: Clock) -> None:
    issuer, kept = Issuer(clock), Kept(clock)
    await get(kept, issuer, BOB)
    issuer.gate.clear()
    waiting = asyncio.create_task(get(kept, issuer))
    while issuer.asked < 2:
        await asyncio.sleep(0)
    kept.forget("alice")
    with pytest.raises(UpstreamError, match="revoked"):
        await waiting
    issuer.gate.set()
    assert len(kept) == 1
    assert await get(kept, issuer) == "t3"
    await kept.aclose()
    assert len(kept) == 0


async def test_a_refused_token_is_replaced_unless_it_is_fresh(clock: Clock) -> None:
    issuer, kept = Issuer(clock), Kept(clock)
    await get(kept, issuer)
    assert not kept.refused(ALICE, "t1")
    clock.now += YOUNG
    assert kept.refused(ALICE, "t1")
    assert kept.refused(ALICE, "t1")  # somebody else has seen to it
    assert await get(kept, issuer) == "t2"
    assert kept.refused(ALICE, "t1")
    assert await get(kept, issuer) == "t2"


async def test_a_clock_that_was_set_back_keeps_nothing_for_longer(clock: Clock) -> None:
    issuer, kept = Issuer(clock), Kept(clock)
    await get(kept, issuer)
    clock.now -= 86400
    assert await get(kept, issuer) == "t2"


async def test_the_memory_is_bounded(clock: Clock) -> None:
    issuer, kept, presented = Issuer(clock), Kept(clock, size=3), Presented(3)
    for number in range(10):
        await get(kept, issuer, (f"p{number}", ""))
        presented.put(b"%d" % number, b"token", clock.now + 60, "p")
    assert (len(kept), len(presented)) == (3, 3)
    assert kept.get(("p9", "")) is not None
    assert presented.get(b"9", clock.now) == b"token"
    assert presented.get(b"0", clock.now) is None


def test_presented_tokens_end_with_their_time(clock: Clock) -> None:
    presented = Presented()
    presented.put(b"1", b"one", clock.now + 60, "alice")
    presented.put(b"2", b"two", clock.now + 90, "bob")
    clock.now += 60
    assert presented.get(b"1", clock.now) is None
    assert presented.get(b"2", clock.now) == b"two"
    clock.now += 60
    presented.sweep(clock.now)
    assert len(presented) == 0

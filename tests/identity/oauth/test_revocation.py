"""How far a revocation reaches: into open streams, other processes, tokens that are exchanged just then."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from callgate.gateway.proving import Proving
from callgate.identity.oauth.marks import Revocations
from tests.fuzz.messages import dump, initialize, modern, post
from tests.identity.oauth.office import Office, error_of, office, token_in
from tests.identity.provider import Clock

pytestmark = pytest.mark.anyio
GRANT = (400, "invalid_grant")


@pytest.mark.rule("RS-9", "TOK-2")
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_an_open_stream_says_nothing_more_to_somebody_of_a_provider_who_is_gone(stand: Office, era: str) -> None:
    auth = ("Authorization", f"Bearer {stand.user(iat=int(time.time()) - 5)}")
    if era == "legacy":
        session = (await stand.ask(post(stand.port, dump(initialize()), [auth]))).headers["mcp-session-id"]
        request = stand.page("/mcp", auth, ("Mcp-Session-Id", session), ("Accept", "text/event-stream"))
    else:
        request = stand.request(modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}}), auth)
    async with await stand.connect() as wire:
        wire.send(request)
        assert (await wire.head())[0] == 200 and await wire.chunk()
        await stand.house.recogniser.offboard(stand.idp.issuer, "alice")
        await stand.reload(policy={"version": 1, "rules": []})
        while said := await wire.chunk():
            assert b"list_changed" not in said


@pytest.mark.rule("TOK-2")
async def test_what_another_process_revoked_is_not_exchanged(stand: Office) -> None:
    """The provider's token was verified a moment ago, so calls with it may go on for a while; but what an exchange
    gives would count as issued after the revocation.
    """
    user = stand.user(iat=int(time.time()) - 5)
    token_in(await stand.exchange("planner", user))
    own = stand.house.recogniser.own
    assert own is not None
    elsewhere = Revocations(own.revocations._folder, time.time)
    elsewhere.add(f"sub:{stand.idp.issuer}#alice", time.time() + 300)
    own.revocations.look()
    assert error_of(await stand.exchange("planner", user)) == GRANT


@pytest.mark.rule("TOK-2")
async def test_a_revocation_lives_longer_than_the_tokens_of_a_provider(tmp_path: Path) -> None:
    """They may live for longer than ours, and than sign-ins last."""
    async with office(tmp_path, {"oauth": {"refresh_ttl": 600}}) as stand:
        day = 86400
        user = stand.user(iat=int(time.time()) - 5, exp=int(time.time()) + 30 * day)
        assert (await stand.call_with(user)).status == 200
        await stand.house.recogniser.offboard(stand.idp.issuer, "alice")
        own = stand.house.recogniser.own
        assert own is not None
        clock = Clock()
        clock.now = time.time() + 20 * day
        later = Revocations(own.revocations._folder, clock)  # a process that starts then
        later.look()
        assert later.covers((), [f"{stand.idp.issuer}#alice"], time.time() - 5)


@pytest.mark.rule("TOK-2")
def test_a_second_revocation_reaches_a_process_that_did_not_look_for_a_while(tmp_path: Path) -> None:
    """Files are replaced; the system gives the number of the one before the last to the next."""
    clock = Clock()
    one, other = Revocations(tmp_path, clock), Revocations(tmp_path, clock)
    one.add("sub:agent:coder", clock.now + 3000)
    other.look()
    for _ in range(3):
        clock.now += 60
        one.add("sub:agent:coder", clock.now + 3000)
        issued = clock.now - 1
        other.look()
        assert other.covers([], ["agent:coder"], issued)
        for _ in range(2):
            clock.now += 60
            one.add("sub:agent:coder", clock.now + 3000)
        other.look()
        assert other.covers([], ["agent:coder"], clock.now - 1)


def pair(cookie: str) -> tuple[str, str]:
    name, _, value = cookie.partition(";")[0].partition("=")
    return name, value


@pytest.mark.rule("TOK-2")
async def test_a_browser_that_showed_a_token_is_nobodys_after_the_revocation(stand: Office) -> None:
    """Or whoever stole the token could connect an account of their own to the person, who is back by then."""
    proving = Proving(stand.house)
    jar = dict([pair(proving.greet({})[1])])
    jar |= [pair(await proving.prove(stand.user(iat=int(time.time()) - 5), jar))]
    assert [who.subject for who in await proving.all(jar)] == ["alice"]
    await stand.house.recogniser.offboard(stand.idp.issuer, "bob")
    assert [who.subject for who in await proving.all(jar)] == ["alice"]
    await stand.house.recogniser.offboard(stand.idp.issuer, "alice")
    assert await proving.all(jar) == []

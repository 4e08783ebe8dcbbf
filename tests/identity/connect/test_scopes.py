"""Which scopes are asked for: what the server wants, all at once, and not again and again (OC-10)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from callgate.errors import ConsentNeeded, Denied
from tests.identity.connect.scene import ALICE, scene
from tests.servers.authority import Authority

pytestmark = pytest.mark.anyio
WITH = 'Bearer scope="a b", resource_metadata="{prm}"'


@pytest.mark.key("servers.auth.scope")
@pytest.mark.parametrize(
    ("authority", "auth", "scope"),
    [
        (Authority(challenge=WITH, prm={"scopes_supported": ["p"]}), {}, "a b"),
        (Authority(prm={"scopes_supported": ["p", "q"]}), {}, "p q"),
        (Authority(), {}, None),
        (Authority(meta={"scopes_supported": ["x"]}), {}, None),
        (Authority(challenge=WITH), {"scope": ("mine",)}, "mine"),
        (Authority(challenge=WITH, meta={"scopes_supported": ["a", "offline_access"]}), {}, "a b offline_access"),
        (Authority(meta={"scopes_supported": ["offline_access"]}), {}, None),
        (Authority(), {"scope": ("a", "offline_access")}, "a offline_access"),
        (Authority(prm={"scopes_supported": "p q"}), {}, None),
    ],
)
async def test_challenge_then_metadata_then_none(
    tmp_path: Path, authority: Authority, auth: dict[str, Any], scope: str | None
) -> None:
    async with scene(tmp_path, authority, **auth) as at:
        await at.connect()
        asked = authority.asked[-1]
        assert asked.get("scope") == scope
        # Issuers leave out the refresh token otherwise; operators who ask for it themselves know how to.
        offline = "offline_access" in (scope or "") and "scope" not in auth
        assert asked.get("prompt") == ("consent" if offline else None)


async def test_the_challenge_of_the_servers_own_answer_counts(tmp_path: Path) -> None:
    """The link that lists was refused: nothing else is asked to learn what the server wants."""
    async with scene(tmp_path, Authority(challenge=WITH)) as at:
        with pytest.raises(ConsentNeeded) as found:
            await at.call(None)
        assert not found.value.ticket  # callgate itself has no user
        before = len(at.authority.mcp.requests)
        pending = await at.connections.describe(await at.needs())
        assert pending.scopes == ("a", "b")
        assert [request.target for request in at.authority.mcp.requests[before:]] == [at.authority.prm_at]


@pytest.mark.rule("OC-10")
async def test_more_scopes_are_asked_for_together_with_all_before(tmp_path: Path) -> None:
    authority = Authority(challenge=WITH, scopes={"tools/call": ("c", "d")})
    async with scene(tmp_path, authority) as at:
        await at.connect()
        ticket = await at.needs()
        assert (await at.connections.describe(ticket)).scopes == ("a", "b", "c", "d")
        started = await at.connections.begin(ticket, ALICE.key)
        await at.connections.finish(authority.browse(started.url), started.cookie)
        assert authority.asked[-1]["scope"] == "a b c d"
        assert (await at.call()).status == 200
        (grant,) = await at.connections.connections(ALICE.key)
        assert grant.scopes == ("a", "b", "c", "d")  # the union stands in the grant (SEC-8)


@pytest.mark.rule("OC-10")
async def test_a_server_that_is_never_content_does_not_keep_its_users_busy(tmp_path: Path) -> None:
    authority = Authority(challenge='Bearer scope="admin"', scopes={"tools/call": ("admin",)}, given_scopes="less")
    async with scene(tmp_path, authority) as at:
        await at.connect()
        for _ in range(4):
            with pytest.raises(Denied, match="did not give") as found:
                await at.call()
            assert not isinstance(found.value, ConsentNeeded)
        assert len(authority.asked) == 1


async def test_a_403_of_another_kind_is_the_servers_own_business(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.connect()
        at.authority.scopes = {"tools/call": ("x",)}
        at.authority.challenge = None
        at.authority._refuse = lambda peer, status, challenge, nonce="": peer.body(b"", 403)  # type: ignore[method-assign]
        assert (await at.call()).status == 403


@pytest.mark.rule("OC-10")
async def test_the_wish_of_one_call_changes_nothing_for_another_user(tmp_path: Path) -> None:
    authority = Authority(challenge=WITH)
    async with scene(tmp_path, authority) as at:
        await at.connect()
        authority.scopes = {"tools/call": ("c",)}
        await at.needs()
        authority.scopes = {}
        assert (await at.call()).status == 200  # what was given stays good for what it was given for
        from tests.identity.connect.scene import BOB

        assert (await at.connections.describe(await at.needs(BOB))).scopes == ("a", "b")

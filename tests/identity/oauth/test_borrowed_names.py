"""Names that are ours to give, in the mouth of somebody else: those of applications, of agents, of the house."""

from __future__ import annotations

from pathlib import Path

import pytest

from callgate.errors import Unauthenticated
from callgate.gateway.proving import Proving
from tests.identity.oauth.office import Office, error_of
from tests.identity.oauth.reception import SITE, reception
from tests.identity.signin.idp import SECRET

pytestmark = pytest.mark.anyio
GRANT = (400, "invalid_grant")


@pytest.mark.parametrize("name", ["client:site", "client:https://site.example/client.json", "anonymous", "operator"])
async def test_nobody_at_a_provider_is_an_application_or_somebody_of_the_house(stand: Office, name: str) -> None:
    """A rule for an application alone (``to.agents``, ``chain_any``) looks at the caller where there is no chain."""
    rules = [
        {"id": "site", "allow": ["*/hello"], "to": {"agents": ["client:*", "anonymous", "operator"]}},
        {"id": "chain", "allow": ["*/delete_all"], "chain_any": {"subjects": ["client:*"]}, "to": {"roles": ["dev"]}},
    ]
    await stand.reload(policy={"version": 1, "default": "deny", "rules": rules})
    user = stand.user(sub=name)
    for tool in ("u__hello", "u__delete_all"):
        assert (await stand.call_with(user, tool)).status == 401
    assert error_of(await stand.exchange("planner", user)) == GRANT


async def test_an_application_with_a_token_of_a_person_is_not_that_person_in_a_browser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could connect an account of its own to the person. The person signs in."""
    monkeypatch.setenv("IDP_SECRET", SECRET)
    async with reception(tmp_path) as stand:
        token = (await stand.tokens(SITE))["access_token"]
        with pytest.raises(Unauthenticated, match="not its user's"):
            await Proving(stand.house).prove(token, {})


async def test_somebody_who_acts_for_a_person_of_a_provider_is_not_that_person_in_a_browser(stand: Office) -> None:
    assert await Proving(stand.house).prove(stand.user(), {})
    for name in ("agent:x", "client:x", "x"):
        with pytest.raises(Unauthenticated, match="not its user's"):
            await Proving(stand.house).prove(stand.user(act={"sub": name}), {})


@pytest.mark.parametrize(
    "path", ["/oauth/token/", "/oauth/revoke/", "/oauth/jwks/", "/mcp/", "/servers/u/mcp/", "/sse/"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_nobody_is_sent_to_where_the_host_header_says(stand: Office, path: str, method: str) -> None:
    """A client that follows sends its secret once more. Behind a proxy that ends TLS it would do so in the clear."""
    reply = await stand.get(path, ("Content-Length", "0"), method=method)
    assert reply.status in (401, 404) and "location" not in reply.headers

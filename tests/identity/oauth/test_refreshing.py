"""Refresh tokens: one use each, one family, one end. Attacks on them, on revocation and on introspection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from callgate.config import App, Identity, OAuth, Provider
from callgate.identity import Held, Resources
from callgate.identity.oauth.agents import Agents
from callgate.identity.oauth.apps import Application, of_configuration
from callgate.identity.oauth.grants import Rules
from callgate.identity.oauth.marks import Revocations
from callgate.identity.oauth.problem import TokenError
from callgate.identity.oauth.refreshing import GRACE, Refreshing
from callgate.identity.oauth.sessions import Session, Standing, Who, family_of
from callgate.identity.secrets import Keys
from callgate.identity.signin.fingerprint import fingerprint
from callgate.store import SqliteHeld, open_database
from tests.identity.oauth.office import claims_of, error_of
from tests.identity.oauth.reception import DESK, PROGRAM, SITE, Reception, reception
from tests.identity.provider import Clock
from tests.identity.signin.idp import SECRET

pytestmark = pytest.mark.anyio
GRANT, SCOPE, TARGET = (400, "invalid_grant"), (400, "invalid_scope"), (400, "invalid_target")
CLIENT = (401, "invalid_client")


@pytest.fixture
async def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reception]:
    monkeypatch.setenv("IDP_SECRET", SECRET)
    async with reception(tmp_path) as stand:
        yield stand


@pytest.mark.rule("AS-2", "AST-3")
async def test_a_token_that_comes_twice_ends_everything(stand: Reception) -> None:
    first = await stand.tokens(SITE)
    assert 0 < first["expires_in"] <= 300
    second = (await stand.refresh(first["refresh_token"])).json
    assert second["refresh_token"] != first["refresh_token"]
    delegated = await stand.through("planner", subject=second["access_token"])
    for token in (first["access_token"], second["access_token"], delegated):
        assert (await stand.call_with(token)).status == 200
    assert error_of(await stand.refresh(first["refresh_token"])) == GRANT
    for token in (first["access_token"], second["access_token"], delegated):
        assert (await stand.call_with(token)).status == 401
    assert error_of(await stand.refresh(second["refresh_token"])) == GRANT
    record = next(each for each in await stand.records() if "used before" in each.get("reason", ""))
    assert record["args"]["event"] == "refresh token reused" and record["outcome"] == "refused"


@pytest.mark.rule("AST-3")
async def test_an_old_token_of_the_family_ends_it_however_old(stand: Reception) -> None:
    tokens = [(await stand.tokens(SITE))["refresh_token"]]
    for _ in range(4):
        tokens.append((await stand.refresh(tokens[-1])).json["refresh_token"])
    assert error_of(await stand.refresh(tokens[0], scope="admin")) == GRANT  # found before anything else is
    assert error_of(await stand.refresh(tokens[-1])) == GRANT


@pytest.mark.rule("AST-3")
async def test_of_two_who_come_at_once_none_goes_on(stand: Reception) -> None:
    token = (await stand.tokens(SITE))["refresh_token"]
    replies = await asyncio.gather(*(stand.refresh(token) for _ in range(4)))
    given = [each.json for each in replies if each.status == 200]
    assert len(given) <= 1
    for each in given:
        assert error_of(await stand.refresh(each["refresh_token"])) == GRANT


async def test_a_family_does_not_end_another(stand: Reception) -> None:
    one, other = await stand.tokens(SITE), await stand.tokens(SITE)
    await stand.refresh(one["refresh_token"])
    assert error_of(await stand.refresh(one["refresh_token"])) == GRANT
    assert (await stand.refresh(other["refresh_token"])).status == 200
    assert (await stand.call_with(other["access_token"])).status == 200


async def test_made_up_tokens_end_nothing(stand: Reception) -> None:
    """Whoever sees an access token knows the id of its family. That is not enough to end it, let alone to use it."""
    tokens = await stand.tokens(SITE)
    good = tokens["refresh_token"]
    family, number, code = good.split(".")
    seen = claims_of(tokens["access_token"])["parents"][0]
    assert family.removeprefix("cgr_") not in seen
    for made_up in (
        f"{family}.0.{code}", f"{family}.2.{code}", f"{family}.{number}.{'A' * 43}", f"{family}.1", "cgr_", "x",
        f"cgr_{seen[-32:]}.1.{code}", f"{family}.01.{code}", f"{family}.1.{code}.1", tokens["access_token"],
        f"{family}.999999999.{code}",
    ):  # fmt: skip
        assert error_of(await stand.refresh(made_up)) == GRANT
    assert (await stand.refresh(good)).status == 200


async def test_the_token_of_another_application(stand: Reception) -> None:
    token = (await stand.tokens(SITE))["refresh_token"]
    for other in (PROGRAM, DESK):
        assert error_of(await stand.refresh(token, other)) == GRANT
    assert error_of(await stand.post({"grant_type": "refresh_token", "refresh_token": token})) == CLIENT
    assert error_of(await stand.refresh(token, "unknown")) == CLIENT
    assert (await stand.refresh(token)).status == 200  # it was not used up by them
    desk = (await stand.tokens(DESK))["refresh_token"]
    unproved = {"grant_type": "refresh_token", "refresh_token": desk, "client_id": DESK}
    assert error_of(await stand.post(unproved)) == CLIENT
    assert error_of(await stand.post({**unproved, "client_secret": "wrong"})) == CLIENT
    assert (await stand.refresh(desk, DESK)).status == 200


async def test_less_but_never_more(stand: Reception) -> None:
    token = (await stand.tokens(SITE, scope="read", resource="/mcp/coder"))["refresh_token"]
    assert error_of(await stand.refresh(token, scope="read write")) == SCOPE
    assert error_of(await stand.refresh(token, scope="offline_access")) == SCOPE
    assert error_of(await stand.refresh(token, resource="/mcp")) == TARGET
    assert error_of(await stand.refresh(token, resource="https://evil.example")) == TARGET
    again = (await stand.refresh(token)).json  # the refusals cost nothing
    assert (again["scope"], claims_of(again["access_token"])["aud"]) == ("read", f"{stand.base}/mcp/coder")
    wide = (await stand.tokens(SITE))["refresh_token"]
    narrow = (await stand.refresh(wide, scope="read", resource="/mcp/coder")).json
    assert narrow["scope"] == "read" and claims_of(narrow["access_token"])["aud"] == f"{stand.base}/mcp/coder"
    assert (await stand.refresh(narrow["refresh_token"])).json["scope"] == "read write"  # as was agreed to


async def test_what_the_application_may_have_today(stand: Reception) -> None:
    token = (await stand.tokens(SITE))["refresh_token"]
    identity = stand.settings["identity"]
    identity["oauth"]["apps"][SITE]["scopes"] = ["read"]
    await stand.reload(identity=identity)
    again = (await stand.refresh(token)).json
    assert again["scope"] == "read"
    identity["oauth"]["apps"][SITE]["audiences"] = ["/mcp/coder"]
    await stand.reload(identity=identity)
    assert error_of(await stand.refresh(again["refresh_token"])) == TARGET


async def test_revoking_a_refresh_token_ends_the_sign_in(stand: Reception) -> None:
    tokens = await stand.tokens(SITE)
    for client, fields in (("planner", {}), (DESK, {}), ("", {"client_id": PROGRAM})):
        reply = await stand.post({"token": tokens["refresh_token"], **fields}, path="/oauth/revoke", client=client)
        assert reply.status == 200  # which says nothing about it
    assert (await stand.call_with(tokens["access_token"])).status == 200
    form = {"token": tokens["refresh_token"], "client_id": SITE, "token_type_hint": "access_token"}
    assert (await stand.post(form, path="/oauth/revoke")).status == 200
    assert (await stand.call_with(tokens["access_token"])).status == 401
    assert error_of(await stand.refresh(tokens["refresh_token"])) == GRANT
    record = next(each for each in await stand.records() if each["method"] == "oauth/revoke")
    assert record["subject"] == "alice" and record["args"]["client"] == SITE


async def test_revoking_an_access_token_leaves_the_sign_in(stand: Reception) -> None:
    tokens = await stand.tokens(SITE)
    form = {"token": tokens["access_token"], "client_id": SITE}
    assert (await stand.post({**form, "client_id": PROGRAM}, path="/oauth/revoke")).status == 200
    assert (await stand.call_with(tokens["access_token"])).status == 200
    assert (await stand.post(form, path="/oauth/revoke")).status == 200
    assert (await stand.call_with(tokens["access_token"])).status == 401
    assert (await stand.refresh(tokens["refresh_token"])).status == 200


async def test_introspection_is_for_those_who_prove_themselves(stand: Reception) -> None:
    site, desk = await stand.tokens(SITE), await stand.tokens(DESK)
    path = "/oauth/introspect"
    assert error_of(await stand.post({"token": site["access_token"], "client_id": SITE}, path=path)) == CLIENT
    own = (await stand.post({"token": desk["refresh_token"]}, path=path, client=DESK)).json
    assert own["active"] is True and own["client_id"] == DESK and own["token_type"] == "refresh_token"
    own = (await stand.post({"token": desk["access_token"]}, path=path, client=DESK)).json
    assert own["active"] is True and own["sub"].endswith("#alice")
    for token in (site["access_token"], site["refresh_token"], "x"):
        for client in (DESK, "planner"):
            assert (await stand.post({"token": token}, path=path, client=client)).json == {"active": False}
    await stand.refresh(desk["refresh_token"], DESK)
    used = await stand.post({"token": desk["refresh_token"]}, path=path, client=DESK)
    assert used.json == {"active": False}


async def test_a_restart_forgets_nothing(stand: Reception) -> None:
    tokens = await stand.tokens(SITE)
    later = (await stand.refresh(tokens["refresh_token"])).json
    listen = f"127.0.0.1:{stand.port}"
    await stand.gateway.aclose()
    stand.write(listen=listen)
    await stand.start()
    again = (await stand.refresh(later["refresh_token"])).json
    assert (await stand.call_with(again["access_token"])).status == 200
    assert error_of(await stand.refresh(tokens["refresh_token"])) == GRANT
    assert (await stand.call_with(again["access_token"])).status == 401


# Without a gateway


class Desk:
    """Refresh tokens of one person, with a clock that a test moves."""

    def __init__(self, folder: Path, ttl: float = 1000.0) -> None:
        self.clock = Clock()
        self.revocations = Revocations(folder / "revoked", self.clock)
        providers = {"main": Provider(issuer="https://idp", client_id="c")}
        identity = Identity(oauth=OAuth(refresh_ttl=ttl), providers=providers)
        standing = Standing(identity, self.revocations)
        self.fingerprint = fingerprint(providers["main"])

        def hold(kind: str, shape: Any) -> Held[Any]:
            return Held(kind, shape, SqliteHeld(open_database(folder)), Keys(folder / "key"), self.clock)

        self.refreshing = Refreshing(hold, standing, self.clock)
        self.config = identity.oauth or OAuth()

    async def begin(self, app: Application, confirmation: dict[str, str] | None = None) -> str:
        secret = "s" * 32
        who = Who("https://idp", "alice", "main", (), (), self.clock.now, self.fingerprint)
        session = Session(app.name, who, "/mcp", (), family_of(secret))
        return await self.refreshing.begin(secret, session, app, confirmation or {})

    async def next(self, app: Application, token: str, shown: dict[str, str] | None = None) -> str:
        rules = Rules(self.config, Agents({}), Resources("https://here"), "https://here", self.clock.now)
        grant = await self.refreshing.refresh(app, {"refresh_token": token}, shown or {}, rules)
        return grant.answer["refresh_token"]


PUBLIC = of_configuration("public", App(redirect_uris=("https://a.example/cb",)))
PROVED = of_configuration("proved", App(redirect_uris=("https://a.example/cb",), secret_sha256="0" * 64))


@pytest.mark.key("identity.oauth.refresh_ttl")
async def test_a_token_that_is_not_used_for_long_is_forgotten(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    token = await desk.begin(PUBLIC)
    for _ in range(5):
        desk.clock.now += 900
        token = await desk.next(PUBLIC, token)
    desk.clock.now += 1001
    with pytest.raises(TokenError, match="not accepted"):
        await desk.next(PUBLIC, token)


@pytest.mark.key("identity.oauth.refresh_ttl")
async def test_once_in_a_while_everybody_signs_in_again(tmp_path: Path) -> None:
    """Whoever left the organisation cannot sign in; an application that is always in use must notice that."""
    day = 86400.0
    for ttl, oldest in ((20 * day, 30 * day), (50 * day, 50 * day)):
        desk = Desk(tmp_path / str(ttl), ttl)
        token, began = await desk.begin(PUBLIC), desk.clock.now
        while desk.clock.now + 7 * day < began + oldest:
            desk.clock.now += 7 * day
            token = await desk.next(PUBLIC, token)
        desk.clock.now = began + oldest + 1
        with pytest.raises(TokenError, match="not accepted"):
            await desk.next(PUBLIC, token)


@pytest.mark.rule("AST-7")
async def test_a_bound_token_comes_with_its_key(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    for key in ({"jkt": "k" * 43}, {"x5t#S256": "c" * 43}):
        token = await desk.begin(PUBLIC, key)
        for shown in ({}, {"jkt": "other"}, {"x5t#S256": "other"}):
            with pytest.raises(TokenError, match="another key"):
                await desk.next(PUBLIC, token, shown)
        assert await desk.next(PUBLIC, token, key)  # the refusals cost nothing


async def test_who_proves_nothing_gets_no_second_chance(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    token = await desk.begin(PUBLIC)
    await desk.next(PUBLIC, token)
    with pytest.raises(TokenError, match="used before"):
        await desk.next(PUBLIC, token)


async def test_who_proves_itself_may_have_lost_an_answer(tmp_path: Path) -> None:
    for app, key in ((PROVED, {}), (PUBLIC, {"jkt": "k" * 43})):
        desk = Desk(tmp_path / app.name)
        token = await desk.begin(app, key)
        lost = await desk.next(app, token, key)
        second = await desk.next(app, token, key)
        assert second != lost
        desk.clock.now += GRACE + 1
        with pytest.raises(TokenError, match="used before"):
            await desk.next(app, lost, key)
        with pytest.raises(TokenError, match="not accepted"):
            await desk.next(app, second, key)

"""Tokens of people: who they stand for, what agents make of them, and what ends them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from callgate.config import Agent, App, Identity, OAuth, load
from callgate.errors import ConfigError
from callgate.identity import Person, Refused, Surroundings
from callgate.identity.oauth.issuing import TokenIssuer
from tests.conftest import ROOT
from tests.gateway.stand import allow, deny
from tests.identity.oauth.office import agent, claims_of, error_of
from tests.identity.oauth.reception import DESK, HOUSE, PROGRAM, SITE, Reception, reception
from tests.identity.oauth.test_parts import follow, hold
from tests.identity.provider import ec_key, fetch, sign
from tests.identity.signin.idp import SECRET

pytestmark = pytest.mark.anyio
GRANT, SCOPE = (400, "invalid_grant"), (400, "invalid_scope")


@pytest.fixture
async def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reception]:
    monkeypatch.setenv("IDP_SECRET", SECRET)
    async with reception(tmp_path) as stand:
        yield stand


async def test_who_it_is(stand: Reception) -> None:
    token = (await stand.tokens(SITE))["access_token"]
    who = await stand.house.recogniser.recognise(f"Bearer {token}".encode())
    assert (who.subject, who.issuer, who.roles, who.groups) == ("alice", stand.idp.issuer, ("dev",), ("staff",))
    assert [(each.subject, each.issuer) for each in who.chain] == [("client:site", stand.base)]
    # The same person with another application, or from the provider, is the same caller.
    assert who.key == Person(stand.idp.issuer, "alice", "main").key
    other = (await stand.tokens(PROGRAM))["access_token"]
    assert (await stand.house.recogniser.recognise(f"Bearer {other}".encode())).key == who.key
    assert stand.house.recogniser.holds(who) and stand.house.recogniser.left(who) > 200
    family = claims_of(token)["parents"][0]
    stand.house.recogniser.own._revocations.add(f"jti:{family}", 2e9)  # type: ignore[union-attr]
    assert not stand.house.recogniser.holds(who) and stand.house.recogniser.left(who) == 0


async def test_an_agent_acts_for_the_person(stand: Reception) -> None:
    person = (await stand.tokens(SITE))["access_token"]
    token = await stand.through("planner", "coder", subject=person)
    claims = claims_of(token)
    assert claims["sub"] == f"{stand.idp.issuer}#alice" and claims["scope"] == "read"
    assert [(each["sub"], each["profile"]) for each in claims["delegation_chain"]] == [
        ("client:site", "client"), ("agent:planner", "ai_agent"), ("agent:coder", "ai_agent"),
    ]  # fmt: skip
    assert claims["act"]["sub"] == "agent:coder" and claims["act"]["act"]["sub"] == "agent:planner"
    assert "act" not in claims["act"]["act"] and claims["roles"] == ["dev"]
    who = await stand.house.recogniser.recognise(f"Bearer {token}".encode())
    assert who.subject == "alice" and who.key != Person(stand.idp.issuer, "alice", "main").key
    assert (await stand.call_with(token)).status == 200


@pytest.mark.rule("DEL-2")
async def test_whoever_nobody_allowed_does_not(stand: Reception) -> None:
    person = (await stand.tokens(SITE))["access_token"]
    assert error_of(await stand.exchange("outsider", person)) == GRANT
    assert error_of(await stand.exchange("coder", person)) == GRANT  # only after the planner
    identity = stand.settings["identity"]
    identity["agents"]["planner"]["acts_for"] = []
    await stand.reload(identity=identity)
    assert error_of(await stand.exchange("planner", person)) == GRANT


@pytest.mark.rule("DEL-2")
async def test_who_acts_for_people_takes_no_token_from_another_agent(stand: Reception) -> None:
    """`acts_for` is about the first hop: behind an agent only that agent may hand the token on."""
    identity = stand.settings["identity"]
    identity["agents"]["outsider"]["acts_for"] = [stand.idp.issuer]
    await stand.reload(identity=identity)
    person = (await stand.tokens(SITE))["access_token"]
    assert (await stand.exchange("outsider", person)).status == 200
    stolen = await stand.through("planner", "coder", subject=person)
    assert error_of(await stand.exchange("outsider", stolen)) == GRANT


@pytest.mark.rule("DEL-2")
async def test_an_application_of_an_agent_s_name_lends_nothing(stand: Reception) -> None:
    """What the agent `coder` may hand on, an application called like it may not."""
    identity = stand.settings["identity"]
    identity["agents"]["planner"]["acts_for"] = []
    identity["agents"]["helper"] = agent("helper", may_delegate_to=["planner"])
    identity["oauth"]["apps"]["agent:helper"] = {"redirect_uris": ["https://evil.example/cb"]}
    await stand.reload(identity=identity)
    person = (await stand.tokens("agent:helper", redirect_uri="https://evil.example/cb"))["access_token"]
    assert claims_of(person)["delegation_chain"][0]["sub"] == "client:agent:helper"
    assert error_of(await stand.exchange("planner", person)) == GRANT


@pytest.mark.rule("DEL-3")
async def test_no_more_scope_than_the_person_agreed_to(stand: Reception) -> None:
    person = (await stand.tokens(SITE, scope="read"))["access_token"]
    assert error_of(await stand.exchange("planner", person, scope="read write")) == SCOPE
    assert claims_of(await stand.through("planner", subject=person))["scope"] == "read"


@pytest.mark.rule("DEL-5")
async def test_the_depth_counts_agents(stand: Reception) -> None:
    identity = stand.settings["identity"]
    identity["oauth"]["max_depth"] = 1
    await stand.reload(identity=identity)
    person = (await stand.tokens(SITE))["access_token"]
    planner = await stand.through("planner", subject=person)
    assert error_of(await stand.exchange("coder", planner)) == GRANT


async def test_rules_see_the_application(stand: Reception) -> None:
    rules = [
        allow("*/*", to={"roles": ["dev"]}),
        deny("u/delete_all", id="not-with-programs", when='chain.exists(a, a.subject == "client:program")'),
    ]
    await stand.reload(policy={"version": 1, "default": "deny", "rules": rules})
    site, program = [(await stand.tokens(app))["access_token"] for app in (SITE, PROGRAM)]
    assert "result" in (await stand.call_with(site, "u__delete_all")).json
    assert "error" in (await stand.call_with(program, "u__delete_all")).json
    record = (await stand.records())[-1]
    assert record["outcome"] == "denied" and record["chain"][0]["sub"] == "client:program"


async def test_a_forged_application(stand: Reception) -> None:
    """The provider of a person cannot make a token that looks like ours, nor name an application."""
    token = (await stand.tokens(SITE))["access_token"]
    claims = claims_of(token)
    forged = sign(ec_key("idp key"), {"alg": "ES256", "typ": "at+jwt", "kid": "idp key"}, claims)
    assert (await stand.call_with(forged)).status == 401
    head_part, body, signature = token.split(".")
    for broken in (f"{head_part}.{body}.{'A' * len(signature)}", f"{head_part}.{body}."):
        assert (await stand.call_with(broken)).status == 401
    with pytest.raises(Refused):
        stand.house.recogniser.own.principal(  # type: ignore[union-attr]
            {**claims, "delegation_chain": [{"sub": "client:unknown", "iss": stand.base}]}
        )


async def test_only_the_own_endpoint_and_no_other_door(stand: Reception) -> None:
    token = (await stand.tokens(SITE))["access_token"]
    for path in ("/mcp/coder", "/servers/u/mcp"):
        assert (await stand.call_with(token, "hello", path=path)).status == 401
    admin = stand.house.urls["admin"]
    assert admin and (await stand.get("/api/v1/servers", ("Authorization", f"Bearer {token}"))).status == 404


async def test_an_id_token_is_no_access_token(stand: Reception) -> None:
    token = stand.idp.id_token("nonce", "access")
    assert (await stand.call_with(token)).status == 401
    assert error_of(await stand.exchange("planner", token)) == GRANT


CB = ("https://app.example/cb",)
BROKEN: dict[str, tuple[dict[str, App], str]] = {
    "no TLS": ({"x": App(redirect_uris=("http://app.example/cb",))}, "neither https"),
    "a fragment": ({"x": App(redirect_uris=("https://app.example/cb#x",))}, "fragment"),
    "a script": ({"x": App(redirect_uris=("javascript:alert(1)",))}, "neither https"),
    "a scope that is not there": ({"x": App(redirect_uris=CB, scopes=("raed",))}, "Did you mean `read`"),
    "two proofs": ({"x": App(secret_sha256="0" * 64, jwks_uri="https://a.example/k")}, "more than one way"),
    "trust in a program": ({"x": App(redirect_uris=("http://127.0.0.1/cb",), trusted=True)}, "any program"),
    "an agent's name": ({"planner": App(redirect_uris=CB)}, "cannot be the id"),
    "a registered one's name": ({"app-x": App(redirect_uris=CB)}, "cannot be the id"),
    "two words": ({"two words": App(redirect_uris=CB)}, "cannot be the id"),
    "no name": ({"": App(redirect_uris=CB)}, "cannot be the id"),
    "a long name": ({"x" * 300: App(redirect_uris=CB)}, "cannot be the id"),
}


def issuer(folder: Path, **oauth: Any) -> TokenIssuer:
    identity = Identity(oauth=OAuth(**oauth), agents={"planner": Agent()})
    return TokenIssuer(identity, Surroundings(lambda: "", folder, fetch, fetch, hold, follow))


@pytest.mark.parametrize(("apps", "says"), BROKEN.values(), ids=BROKEN)
@pytest.mark.key("identity.oauth.apps.redirect_uris", "identity.oauth.apps.scopes", "identity.oauth.apps.trusted")
def test_applications_that_cannot_be_meant(tmp_path: Path, apps: dict[str, App], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        issuer(tmp_path, apps=apps, scopes={"read": "Read"})
    assert says in f"{caught.value.message} {caught.value.hint}"


def test_scopes_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a scope"):
        issuer(tmp_path, scopes={"two words": "x"})
    private = App(redirect_uris=("vscode://vendor.extension/cb", "com.example.app:/cb"))
    assert list(issuer(tmp_path, apps={"https://app.example/client.json": private}).apps)  # as the operator wants it


@pytest.mark.key("identity.oauth.apps.jwks_uri")
async def test_an_application_that_publishes_its_keys(stand: Reception) -> None:
    identity = stand.settings["identity"]
    identity["oauth"]["apps"]["robot"] = {
        "redirect_uris": ["https://robot.example/cb"], "jwks_uri": f"{stand.idp.issuer}/jwks",
    }  # fmt: skip
    await stand.reload(identity=identity)
    code = await stand.code("robot", redirect_uri="https://robot.example/cb")
    now = int(stand.idp.clock())
    claims = {"iss": "robot", "sub": "robot", "aud": stand.base, "exp": now + 60, "iat": now, "jti": "1"}
    proof = {
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": sign(ec_key("idp key"), {"alg": "ES256", "kid": stand.idp.key.kid}, claims),
    }
    reply = await stand.redeem(code, "robot", client_id=None, redirect_uri=None, **proof)
    assert reply.status == 200, reply


def test_the_example_of_the_page_loads(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "authorization-server.md").read_text("utf-8")
    file = tmp_path / "callgate.yaml"
    file.write_text(page.partition("```yaml\n")[2].partition("```")[0], "utf-8")
    identity = load(file, env={}, cwd=tmp_path, system=tmp_path / "none").settings.identity
    made = TokenIssuer(identity, Surroundings(lambda: "", tmp_path, fetch, fetch, lambda kind, shape: None, follow))  # type: ignore[arg-type]
    assert {"chat", "ide"} <= {each.name for each in made.apps}
    assert made.apps.documents is not None and made.apps.documents.accepts("https://ide.example.org/client.json")
    assert not made.apps.documents.accepts("https://elsewhere.example/client.json")


def test_apps_are_part_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "callgate.yaml"
    oauth = {"apps": {DESK: {"redirect_uris": ["https://desk.example/cb"]}, HOUSE: {"secret_sha256": "short"}}}
    file.write_text(json.dumps({"identity": {"oauth": oauth}}))
    with pytest.raises(ConfigError):
        load(file, env={}, cwd=tmp_path, system=tmp_path / "none")

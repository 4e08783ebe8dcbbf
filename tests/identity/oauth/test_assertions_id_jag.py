"""Enterprise-managed authorization: the organisation's provider says that a client may act for a person here."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from callgate.identity import Refused
from tests.fuzz.raw import Reply
from tests.identity.federation.estate import BEARER, Estate, estate
from tests.identity.oauth.keyholder import MINE, THEIRS, proof
from tests.identity.oauth.office import agent, claims_of, error_of, token_in
from tests.identity.provider import ec_key, part, sign
from tests.servers.issuer_http import DISCOVERY, IssuerServer

pytestmark = pytest.mark.anyio
GRANT, CLIENT, TARGET = (400, "invalid_grant"), (401, "invalid_client"), (400, "invalid_target")
SCOPE = (400, "invalid_scope")
PROFILE = "urn:ietf:params:oauth:grant-profile:id-jag"


class Company(Estate):
    """``corp`` is the company's identity provider, ``spare`` another one, whose assertions are not accepted."""

    corp: IssuerServer
    spare: IssuerServer

    def company(self, **changes: Any) -> dict[str, Any]:
        corp = {"issuer": self.corp.issuer, "client_id": "callgate", "id_jag": True, **changes}
        apps = {
            "chat": {"secret_sha256": agent("chat")["secret_sha256"], "redirect_uris": ["http://localhost/cb"]},
            "narrow": {
                "secret_sha256": agent("narrow")["secret_sha256"], "scopes": ["read"], "audiences": ["/mcp/coder"],
                "redirect_uris": ["http://localhost/cb"],
            },
            "desk": {"redirect_uris": ["http://localhost/cb"]},
        }  # fmt: skip
        return self.identity(
            oauth={"apps": apps, "scopes": {"read": "Read", "write": "Write"}},
            providers={"corp": corp, "spare": {"issuer": self.spare.issuer, "client_id": "callgate"}},
            agents={"helper": agent("helper", scopes=["read"]), **self.identity()["agents"]},
        )

    def jag(self, header: dict[str, Any] | None = None, /, **changes: Any) -> str:
        good = {
            "client_id": "chat", "resource": f"{self.base}/mcp", "scope": "read write admin",
            "jti": f"j{time.time_ns()}", "roles": ["dev"], "groups": ["staff"], **changes,
        }  # fmt: skip
        header = {"typ": "oauth-id-jag+jwt", **(header or {})}
        return self.corp.token(str(good.pop("sub", "alice")), good.pop("aud", self.base), header, **good)

    async def show(self, assertion: str, client: str = "chat", **fields: str) -> Reply:
        return await self.bear(assertion, client=client, **fields)


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Company]:
    async with IssuerServer() as corp, IssuerServer() as spare, estate(tmp_path) as made:
        for name in ("authorization_endpoint", "token_endpoint"):
            corp.document[name] = spare.document[name] = f"{corp.issuer}/x"
        made.__class__ = Company
        assert isinstance(made, Company)
        made.corp, made.spare = corp, spare
        await made.reload(identity=made.company())
        yield made


@pytest.mark.key("identity.providers.id_jag")
async def test_an_application_acts_for_a_person(stand: Company) -> None:
    reply = await stand.show(stand.jag())
    claims = claims_of(token_in(reply))
    assert (claims["sub"], claims["client_id"]) == (f"{stand.corp.issuer}#alice", "chat")
    assert claims["aud"] == f"{stand.base}/mcp" and claims["scope"] == "read write"
    assert [each["sub"] for each in claims["delegation_chain"]] == ["client:chat"]
    assert (claims["roles"], claims["groups"]) == (["dev"], ["staff"])
    assert "refresh_token" not in reply.json and claims["exp"] - claims["iat"] == 300
    assert (await stand.call_with(token_in(reply))).status == 200
    metadata = (await stand.get("/.well-known/oauth-authorization-server")).json
    assert metadata["authorization_grant_profiles_supported"] == [PROFILE]
    assert BEARER in metadata["grant_types_supported"]
    issued = next(each for each in await stand.records(2) if each["method"] == "oauth/token")
    assert '"corp: identity assertion"' in json.dumps(issued) and issued["subject"] == "alice"


async def test_without_a_provider_nothing_is_offered(stand: Company) -> None:
    await stand.reload(identity=stand.company(id_jag=False))
    metadata = (await stand.get("/.well-known/oauth-authorization-server")).json
    assert "authorization_grant_profiles_supported" not in metadata
    assert error_of(await stand.show(stand.jag())) == GRANT


async def test_an_agent_acts_for_a_person_and_hands_on(stand: Company) -> None:
    token = token_in(await stand.show(stand.jag(client_id="helper"), "helper"))
    claims = claims_of(token)
    assert [each["sub"] for each in claims["delegation_chain"]] == ["agent:helper"] and claims["scope"] == "read"
    assert claims["sub"] == f"{stand.corp.issuer}#alice"


@pytest.mark.key("identity.providers.role_map", "identity.providers.required_claims")
async def test_claims_are_mapped_as_at_a_sign_in(stand: Company) -> None:
    changes = {"role_map": {"staff": ["coder"]}, "required_claims": {"hd": "example.org"}}
    await stand.reload(identity=stand.company(**changes))
    assert error_of(await stand.show(stand.jag())) == GRANT
    claims = claims_of(token_in(await stand.show(stand.jag(hd="example.org"))))
    assert claims["roles"] == ["coder"]


async def test_the_token_is_narrower_where_the_client_asks(stand: Company) -> None:
    claims = claims_of(token_in(await stand.show(stand.jag(), scope="read", resource=f"{stand.base}/mcp/coder")))
    assert (claims["scope"], claims["aud"]) == ("read", f"{stand.base}/mcp/coder")
    short = stand.jag(exp=int(time.time()) + 30)
    assert claims_of(token_in(await stand.show(short)))["exp"] == claims_of(short)["exp"]


# Attacks


@pytest.mark.rule("AST-12")
async def test_the_assertion_of_another_client(stand: Company) -> None:
    assert error_of(await stand.show(stand.jag(client_id="narrow"))) == GRANT
    assert error_of(await stand.show(stand.jag(), "helper")) == GRANT
    assert error_of(await stand.show(stand.jag(client_id="helper"))) == GRANT
    for odd in (None, "", "CHAT", ["chat"], 7, "client:chat", "chat "):
        assert error_of(await stand.show(stand.jag(client_id=odd))) == GRANT


async def test_a_client_that_proves_nothing(stand: Company) -> None:
    for form in ({}, {"client_id": "chat"}, {"client_id": "desk"}):
        for named in ("chat", "desk"):
            reply = await stand.post({"grant_type": BEARER, "assertion": stand.jag(client_id=named), **form})
            assert error_of(reply) == CLIENT
    wrong = {"client_id": "chat", "client_secret": "wrong"}
    assert error_of(await stand.post({"grant_type": BEARER, "assertion": stand.jag(), **wrong})) == CLIENT


async def test_used_twice(stand: Company) -> None:
    assertion = stand.jag()
    assert (await stand.show(assertion)).status == 200
    assert error_of(await stand.show(assertion)) == GRANT
    assert error_of(await stand.show(stand.jag(jti=claims_of(assertion)["jti"]))) == GRANT
    await stand.reload(identity=stand.company(title="Corp"))
    assert error_of(await stand.show(assertion)) == GRANT


@pytest.mark.key("identity.providers.id_jag_reuse")
async def test_some_providers_let_it_be_used_again(stand: Company) -> None:
    await stand.reload(identity=stand.company(id_jag_reuse=True))
    assertion = stand.jag()
    assert [(await stand.show(assertion)).status for _ in range(2)] == [200, 200]


async def test_what_fails_uses_nothing_up(stand: Company) -> None:
    assertion = stand.jag()
    assert error_of(await stand.show(assertion, scope="admin")) == SCOPE
    assert error_of(await stand.show(assertion, resource="https://elsewhere.example")) == TARGET
    assert error_of(await stand.show(assertion, "helper")) == GRANT
    assert (await stand.show(assertion)).status == 200


@pytest.mark.parametrize("jti", [None, "", 7, ["a"], "x" * 300])
async def test_without_an_id(stand: Company, jti: Any) -> None:
    assert error_of(await stand.show(stand.jag(jti=jti))) == GRANT


@pytest.mark.parametrize(
    "resource",
    [
        None, "", "/mcp", "https://elsewhere.example/mcp", [], 7, {"a": 1}, ["BASE/mcp", "BASE/mcp/coder"], "BASE/mcp/",
        "BASE.evil.example/mcp", "BASE/oauth/token", "BASE/mcp/../servers/u/mcp", "BASE/mcp?x", ["/mcp"], [None],
    ],
)  # fmt: skip
async def test_without_a_resource_of_ours(stand: Company, resource: Any) -> None:
    meant = json.loads(json.dumps(resource).replace("BASE", stand.base))
    assert error_of(await stand.show(stand.jag(resource=meant))) == TARGET


async def test_a_resource_as_a_list_of_one(stand: Company) -> None:
    assert (await stand.show(stand.jag(resource=[f"{stand.base}/mcp"]))).status == 200


async def test_another_target_than_the_assertions(stand: Company) -> None:
    narrow = {"resource": f"{stand.base}/mcp/coder"}
    for asked in ("/mcp", f"{stand.base}/servers/u/mcp", "/", stand.base, "https://elsewhere.example"):
        assert error_of(await stand.show(stand.jag(**narrow), resource=asked)) == TARGET
    assert error_of(await stand.show(stand.jag(), resource="/mcp", audience="/mcp/coder")) == TARGET
    assert error_of(await stand.show(stand.jag(client_id="narrow"), "narrow")) == TARGET
    token = token_in(await stand.show(stand.jag(client_id="narrow", **narrow), "narrow"))
    assert (claims_of(token)["aud"], claims_of(token)["scope"]) == (f"{stand.base}/mcp/coder", "read")
    assert (await stand.call_with(token)).status == 401


async def test_scopes_never_widen(stand: Company) -> None:
    for had, asked in (("read", "read write"), ("", "read"), ("admin", "admin"), (None, "read"), (["write"], "read")):
        assert error_of(await stand.show(stand.jag(scope=had), scope=asked)) == SCOPE
    allowed: list[tuple[Any, str]] = [("read", "read"), ("", ""), (None, ""), ("admin offline_access", ""), (7, "")]
    for had, got in allowed:
        assert claims_of(token_in(await stand.show(stand.jag(scope=had))))["scope"] == got


@pytest.mark.parametrize(
    "audience", ["https://elsewhere.example", None, [], "BASE/oauth/token", "BASE/", ["BASE", "x"], "callgate"]
)
async def test_an_assertion_for_another_server(stand: Company, audience: Any) -> None:
    meant = json.loads(json.dumps(audience).replace("BASE", stand.base))
    assert error_of(await stand.show(stand.jag(aud=meant))) == GRANT


@pytest.mark.parametrize(
    "changes", [{"exp": -10}, {"exp": 3700}, {"exp": None}, {"iat": None}, {"iat": 60}, {"nbf": 60}, {"iat": "x"}]
)
async def test_times_that_cannot_be(stand: Company, changes: dict[str, Any]) -> None:
    now = int(time.time())
    times = {name: now + value if isinstance(value, int) else value for name, value in changes.items()}
    assert error_of(await stand.show(stand.jag(**times))) == GRANT


@pytest.mark.rule("AST-10")
async def test_another_providers_key_or_assertion(stand: Company) -> None:
    claims = claims_of(stand.jag())
    for key in (stand.spare.key, stand.ci.key, stand.cluster.key):
        header = {"alg": "ES256", "typ": "oauth-id-jag+jwt"}
        for kid in (key.kid, stand.corp.key.kid):
            assert error_of(await stand.show(sign(key, {**header, "kid": kid}, claims))) == GRANT
        for issuer in (stand.spare.issuer, stand.ci.issuer, stand.idp.issuer, "https://elsewhere.example", None, 7):
            assert error_of(await stand.show(sign(key, {**header, "kid": key.kid}, {**claims, "iss": issuer}))) == GRANT


@pytest.mark.rule("AST-11")
async def test_without_a_signature_or_with_an_unknown_key(stand: Company) -> None:
    typ = {"typ": "oauth-id-jag+jwt"}
    body = part(claims_of(stand.jag()))
    for header in ({"alg": "none"}, {"alg": "HS256"}, {"alg": "ES256", "kid": "?"}, {"alg": "ES256", "crit": ["x"]}):
        assert error_of(await stand.show(f"{part({**header, **typ})}.{body}.")) == GRANT
    forged = sign(ec_key("a stranger"), {"alg": "ES256", "kid": stand.corp.key.kid, **typ}, claims_of(stand.jag()))
    assert error_of(await stand.show(forged)) == GRANT


async def test_a_token_of_another_kind(stand: Company) -> None:
    """An ID token or an access token of the provider is no identity assertion, and no workload's either."""
    for kind in ("JWT", "at+jwt", "id_token+jwt", "oauth-id-jag", "oauth-id-jag+jwt+x"):
        assert error_of(await stand.show(stand.jag({"typ": kind}))) == GRANT
        assert error_of(await stand.bear(stand.jag({"typ": kind}))) == GRANT
    pod = stand.cluster.token("system:serviceaccount:team:planner", stand.base, {"typ": "oauth-id-jag+jwt"})
    assert error_of(await stand.show(pod)) == GRANT
    assert error_of(await stand.show(stand.pod())) == GRANT
    assert (await stand.call_with(stand.jag())).status == 401


@pytest.mark.rule("AST-9")
@pytest.mark.rule("DEL-10")
async def test_a_chain_that_the_assertion_brings_along(stand: Company) -> None:
    """It gives nothing, and may only add denials."""
    chain = [{"sub": "agent:pod", "iss": stand.base, "profile": "ai_agent"}]
    token = token_in(await stand.show(stand.jag(act={"sub": "agent:pod"}, delegation_chain=chain, parents=["x"])))
    claims = claims_of(token)
    assert [each["sub"] for each in claims["delegation_chain"]] == ["client:chat"]
    assert "parents" not in claims
    assert claims["asserted"] == [{"sub": "agent:pod", "iss": stand.corp.issuer}]
    rules = [
        {"id": "devs", "allow": ["*/*"], "to": {"roles": ["dev"]}},
        {"id": "no-pods", "deny": ["*/*"], "chain_any": {"subjects": ["agent:pod"]}},
    ]
    await stand.reload(policy={"version": 1, "default": "deny", "rules": rules})
    assert "error" in (await stand.call_with(token)).json


@pytest.mark.parametrize("subject", ["", "agent:pod", "anonymous", "operator", "al\u200bice\n", "a\x00b"])
async def test_a_person_with_a_name_that_nobody_may_have(stand: Company, subject: str) -> None:
    assert error_of(await stand.show(stand.jag(sub=subject))) == GRANT


async def test_an_assertion_that_is_bound_to_a_key(stand: Company) -> None:
    bound = {"cnf": {"jkt": MINE.thumbprint()}}
    assert error_of(await stand.show(stand.jag(**bound))) == GRANT
    assert error_of(await stand.show(stand.jag(cnf={"kid": "x"}))) == GRANT
    form, url = {"grant_type": BEARER, "assertion": stand.jag(**bound)}, f"{stand.base}/oauth/token"
    assert error_of(await stand.post(form, ("DPoP", proof("POST", url, key=THEIRS)), client="chat")) == GRANT
    claims = claims_of(token_in(await stand.post(form, ("DPoP", proof("POST", url)), client="chat")))
    assert claims["cnf"] == bound["cnf"]


async def test_a_person_who_was_revoked_does_not_come_back(stand: Company) -> None:
    before = stand.jag(iat=int(time.time()) - 5)
    token = token_in(await stand.show(stand.jag(iat=int(time.time()) - 5)))
    stand.house.recogniser.revoke(stand.corp.issuer, "alice")
    assert (await stand.call_with(token)).status == 401
    assert error_of(await stand.show(before)) == GRANT


async def test_a_suspended_application(stand: Company) -> None:
    token = token_in(await stand.show(stand.jag()))
    registry = stand.company()
    registry["oauth"]["apps"]["chat"]["status"] = "suspended"
    await stand.reload(identity=registry)
    assert error_of(await stand.show(stand.jag())) == CLIENT
    assert (await stand.call_with(token)).status == 401


async def test_a_provider_that_is_gone_ends_the_tokens(stand: Company) -> None:
    token = token_in(await stand.show(stand.jag()))
    registry = stand.company()
    del registry["providers"]["corp"]
    await stand.reload(identity=registry)
    assert (await stand.call_with(token)).status == 401
    with pytest.raises(Refused):
        await stand.house.recogniser.recognise(f"Bearer {token}".encode())


@pytest.mark.rule("TOK-4")
async def test_keys_stay_through_an_outage_and_a_reload(stand: Company) -> None:
    assert (await stand.show(stand.jag())).status == 200
    asked = [path for path in stand.corp.asked if path == DISCOVERY]
    with stand.corp.away():
        await stand.reload(identity=stand.company(title="Corp"))
        assert (await stand.show(stand.jag())).status == 200
    assert asked

"""Workload identity federation at the token endpoint: an agent needs no secret, and nobody else becomes an agent."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey

from tests.fuzz.raw import Reply
from tests.identity.federation.estate import BEARER, JOB, POD, Estate, estate, workload
from tests.identity.oauth.office import ACCESS, ASSERTION, EXCHANGE, claims_of, error_of, token_in
from tests.identity.provider import ec_key, eventually, part, public, rsa_key, sign
from tests.servers.issuer_http import DISCOVERY

pytestmark = pytest.mark.anyio
GRANT, CLIENT = (400, "invalid_grant"), (401, "invalid_client")


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Estate]:
    async with estate(tmp_path) as stand:
        yield stand


# What works


@pytest.mark.key("identity.federation.issuer", "identity.agents.workloads.issuer", "identity.agents.workloads.subject")
async def test_a_pod_gets_the_token_of_its_agent(stand: Estate) -> None:
    reply = await stand.bear(stand.pod())
    claims = claims_of(token_in(reply))
    assert (claims["sub"], claims["client_id"], claims["aud"]) == ("agent:pod", "pod", f"{stand.base}/mcp")
    assert [each["sub"] for each in claims["delegation_chain"]] == ["agent:pod"]
    assert claims["exp"] - claims["iat"] == 300 and "refresh_token" not in reply.json
    assert (await stand.call_with(token_in(reply))).status == 200
    assert (await stand.get("/.well-known/oauth-authorization-server")).json["grant_types_supported"].count(BEARER) == 1
    issued = next(each for each in await stand.records(2) if each["method"] == "oauth/token")
    assert f'"cluster: {POD}"' in json.dumps(issued) and issued["subject"] == "agent:pod"


async def test_the_token_may_be_used_again_until_it_expires(stand: Estate) -> None:
    assertion = stand.pod(jti="the same")
    assert [(await stand.bear(assertion)).status for _ in range(3)] == [200, 200, 200]


async def test_scope_and_resource_are_honoured(stand: Estate) -> None:
    reply = await stand.bear(stand.pod(), scope="read", resource=f"{stand.base}/servers/u/mcp")
    claims = claims_of(token_in(reply))
    assert (claims["scope"], claims["aud"]) == ("read", f"{stand.base}/servers/u/mcp")
    assert error_of(await stand.bear(stand.pod(), scope="admin")) == (400, "invalid_scope")
    assert error_of(await stand.bear(stand.pod(), resource="https://elsewhere.example")) == (400, "invalid_target")


@pytest.mark.key("identity.agents.workloads.claims")
async def test_a_job_of_a_pipeline(stand: Estate) -> None:
    assert claims_of(token_in(await stand.bear(stand.job())))["sub"] == "agent:job"
    assert claims_of(token_in(await stand.bear(stand.job(ref_protected=True))))["sub"] == "agent:job"
    for changes in (
        {"repository": "org/fork"},
        {"ref_protected": "false"},
        {"repository": None},
        {"repository": ["org/app"]},
    ):
        assert error_of(await stand.bear(stand.job(**changes))) == GRANT


async def test_the_token_ends_no_later_than_the_assertion(stand: Estate) -> None:
    assertion = stand.pod(exp=int(time.time()) + 60)
    claims = claims_of(token_in(await stand.bear(assertion)))
    assert claims["exp"] == claims_of(assertion)["exp"]


async def test_a_workload_is_a_client_with_its_token(stand: Estate) -> None:
    registry = stand.identity()
    registry["agents"]["pod"]["acts_for"] = [stand.idp.issuer]
    await stand.reload(identity=registry)
    proof = {"client_assertion_type": ASSERTION, "client_assertion": stand.pod()}
    form = {"grant_type": EXCHANGE, "subject_token": stand.user(), "subject_token_type": ACCESS, **proof}
    claims = claims_of(token_in(await stand.post(form)))
    assert claims["sub"].endswith("#alice") and claims["delegation_chain"][0]["sub"] == "agent:pod"
    own = token_in(await stand.post({"grant_type": "client_credentials", **proof, "client_id": "pod"}))
    assert (await stand.post({"token": own, **proof}, path="/oauth/introspect")).json["active"]


async def test_an_agent_may_have_both_ways(stand: Estate) -> None:
    both = stand.pod("system:serviceaccount:team:both")
    assert token_in(await stand.bear(both)) and token_in(await stand.bear(both, client="both"))
    assert await stand.own("both")


@pytest.mark.key("identity.federation.audience")
async def test_an_audience_of_ones_own(tmp_path: Path) -> None:
    async with estate(tmp_path) as stand:
        entry = {"issuer": stand.cluster.issuer, "audience": ["callgate", "spare"]}
        await stand.reload(identity=stand.identity(federation={"cluster": entry}))
        for good in ("callgate", ["callgate"], ["spare", "callgate"]):
            assert (await stand.bear(stand.pod(aud=good))).status == 200
        for bad in (stand.base, ["callgate", stand.base], ["callgate", "vault"]):
            assert error_of(await stand.bear(stand.pod(aud=bad))) == GRANT


@pytest.mark.key("identity.federation.longest")
async def test_managed_identities_give_longer_tokens(stand: Estate) -> None:
    day = stand.pod(exp=int(time.time()) + 80_000)
    assert error_of(await stand.bear(day)) == GRANT
    entry = {"issuer": stand.cluster.issuer, "longest": "24h"}
    await stand.reload(identity=stand.identity(federation={"cluster": entry}))
    claims = claims_of(token_in(await stand.bear(day)))
    assert claims["exp"] - claims["iat"] == 300


# Attacks on the signature


@pytest.mark.rule("AST-10")
async def test_an_issuer_cannot_sign_for_another(stand: Estate) -> None:
    claims = stand.cluster.claims(POD, stand.base)
    for kid in (stand.ci.key.kid, stand.cluster.key.kid):
        assert error_of(await stand.bear(sign(stand.ci.key, {"alg": "ES256", "kid": kid}, claims))) == GRANT
    assert error_of(await stand.bear(stand.ci.token(POD, stand.base))) == GRANT


@pytest.mark.rule("AST-11", "TOK-5")
@pytest.mark.parametrize("header", [{"alg": "none"}, {"alg": "None"}, {"alg": "nOnE", "kid": "x"}, {"alg": None}, {}])
async def test_a_token_without_a_signature(stand: Estate, header: dict[str, Any]) -> None:
    body = part(stand.cluster.claims(POD, stand.base))
    for signature in ("", part(b"x" * 64)):
        assert error_of(await stand.bear(f"{part(header)}.{body}.{signature}")) == GRANT


@pytest.mark.rule("AST-11", "TOK-5")
async def test_the_public_key_as_a_shared_secret(stand: Estate) -> None:
    key = stand.cluster.key
    assert isinstance(key, ECKey)
    signed = f"{part({'alg': 'HS256', 'kid': key.kid})}.{part(stand.cluster.claims(POD, stand.base))}"
    for secret in (key.as_pem(private=False), json.dumps(public(key)).encode()):
        forged = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
        assert error_of(await stand.bear(f"{signed}.{part(forged)}")) == GRANT


@pytest.mark.rule("AST-11")
async def test_an_unknown_key(stand: Estate) -> None:
    forged = sign(ec_key("a key of the attacker"), {"alg": "ES256", "kid": "?"}, stand.cluster.claims(POD, stand.base))
    assert error_of(await stand.bear(forged)) == GRANT
    asked = len(stand.cluster.asked)
    for _ in range(5):
        assert error_of(await stand.bear(forged)) == GRANT
    assert len(stand.cluster.asked) == asked  # nobody makes us ask for keys again and again


async def test_an_algorithm_that_is_not_configured(stand: Estate) -> None:
    entry = {"issuer": stand.cluster.issuer, "algorithms": ["RS256"]}
    await stand.reload(identity=stand.identity(federation={"cluster": entry}))
    assert error_of(await stand.bear(stand.pod())) == GRANT
    stand.cluster.keys = [rsa_key("of the cluster")]
    stand.cluster.key = rsa_key("of the cluster")
    stand.cluster.server.requests.clear()
    await stand.reload(identity=stand.identity(federation={"cluster": {**entry, "audience": [stand.base]}}))
    assert (await stand.bear(stand.pod())).status == 200


@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c"])
async def test_a_key_that_the_token_brings_along(stand: Estate, name: str) -> None:
    attacker = ec_key("a key of the attacker")
    brought: dict[str, Any] = {"jwk": public(attacker), "x5c": ["MIIB"]}
    value = brought.get(name, f"{stand.ci.issuer}/openid/v1/jwks")
    header = {"alg": "ES256", "kid": attacker.kid, name: value}
    asked = len(stand.ci.asked)
    assert error_of(await stand.bear(sign(attacker, header, stand.cluster.claims(POD, stand.base)))) == GRANT
    assert len(stand.ci.asked) == asked


@pytest.mark.parametrize("header", [{"crit": ["exp"], "exp": 0}, {"b64": False, "crit": ["b64"]}, {"crit": []}])
async def test_header_extensions(stand: Estate, header: dict[str, Any]) -> None:
    assert error_of(await stand.bear(stand.pod(POD, header))) == GRANT


async def test_what_was_changed_after_signing(stand: Estate) -> None:
    head, _, signature = stand.pod("system:serviceaccount:team:nobody").split(".")
    other = part(stand.cluster.claims(POD, stand.base))
    assert error_of(await stand.bear(f"{head}.{other}.{signature}")) == GRANT


@pytest.mark.parametrize("kid", [7, ["x"], None, {"a": 1}, "../../etc/passwd", "x" * 5000])
async def test_strange_key_ids(stand: Estate, kid: Any) -> None:
    assert error_of(await stand.bear(stand.pod(POD, {"kid": kid}))) == GRANT


# Attacks on the claims


@pytest.mark.parametrize(
    "audience",
    [
        "https://other.example", ["https://other.example"], [], None, "", [""], [7], {"aud": 1}, "callgate",
        "https://kubernetes.default.svc", "BASE/", "BASE/mcp", "BASE/oauth/token/", ["BASE", "https://other.example"],
        ["BASE", ["BASE"]],
    ],
)  # fmt: skip
async def test_a_token_that_is_for_others_too(stand: Estate, audience: Any) -> None:
    meant = json.loads(json.dumps(audience).replace("BASE", stand.base))
    assert error_of(await stand.bear(stand.pod(aud=meant))) == GRANT


async def test_our_two_names_are_the_audience(stand: Estate) -> None:
    endpoint = f"{stand.base}/oauth/token"
    for audience in (stand.base, endpoint, [stand.base], [stand.base, endpoint]):
        assert (await stand.bear(stand.pod(aud=audience))).status == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": -10}, {"exp": 3700}, {"exp": 10**9}, {"iat": 60}, {"nbf": 60}, {"exp": None}, {"exp": "soon"},
        {"exp": True}, {"exp": 1e300}, {"iat": "now"}, {"nbf": [0]},
    ],
)  # fmt: skip
async def test_times_that_cannot_be(stand: Estate, changes: dict[str, Any]) -> None:
    now = int(time.time())
    times = {name: now + value if type(value) is int else value for name, value in changes.items()}
    reply = await stand.bear(stand.pod(**times))
    assert error_of(reply) == GRANT
    assert ("expired" in reply.json["error_description"]) == (changes == {"exp": -10})


@pytest.mark.parametrize(
    "subject",
    [
        None, "", 7, [POD], "system:serviceaccount:team:planner2", "system:serviceaccount:team:planne",
        "System:serviceaccount:team:planner", "system:serviceaccount:team:PLANNER", f"{POD} ", f" {POD}", f"{POD}\n",
        f"{POD}\x00", f"x{POD}", "system:serviceaccount:team:pl\u0430nner", "system:serviceaccount:team:planner\u200b",
        "system:serviceaccount:team\uff1aplanner", f"{POD}:extra", f"{POD}/extra", "system:serviceaccount:crew:",
        "system:serviceaccount:crew:a:b", "system:serviceaccount:crew:a/b", "system:serviceaccount:crew:\u00e9",
        "system:serviceaccount:crew2:a", "system:node:planner", "*", "system:serviceaccount:team:*", "x" * 3000,
        "spiffe://example.org/ns/team/sa/planner",
    ],
)  # fmt: skip
async def test_a_subject_that_only_looks_like_it(stand: Estate, subject: Any) -> None:
    assert error_of(await stand.bear(stand.pod(subject))) == GRANT


@pytest.mark.parametrize(
    "subject",
    [
        "repo:org/app:ref:refs/heads/a/b", "repo:org/app:ref:refs/tags/main", "repo:org/app:pull_request",
        "repo:org/app2:ref:refs/heads/main", "repo:evil/repo:org/app:ref:refs/heads/main",
        "repo:org/app:ref:refs/heads/",
        "repo:org/app:environment:x:ref:refs/heads/main", "repo:ORG/app:ref:refs/heads/main",
    ],
)  # fmt: skip
async def test_a_job_of_another_repository_or_branch(stand: Estate, subject: str) -> None:
    assert (await stand.bear(stand.job(JOB))).status == 200
    assert error_of(await stand.bear(stand.job(subject))) == GRANT


async def test_an_agent_of_another_issuer(stand: Estate) -> None:
    assert error_of(await stand.bear(stand.ci.token(POD, stand.base))) == GRANT
    assert error_of(await stand.bear(stand.cluster.token(JOB, stand.base, repository="org/app"))) == GRANT


@pytest.mark.parametrize(
    "issuer", [None, "", 7, "https://elsewhere.example", "BASE", "CLUSTER/", "CLUSTER#x", ["CLUSTER"]]
)
async def test_an_issuer_that_nobody_trusts(stand: Estate, issuer: Any) -> None:
    named = json.loads(json.dumps(issuer).replace("CLUSTER", stand.cluster.issuer).replace("BASE", stand.base))
    assert error_of(await stand.bear(stand.pod(iss=named))) == GRANT


async def test_two_agents_are_nobody(stand: Estate) -> None:
    assert error_of(await stand.bear(stand.pod("system:serviceaccount:team:twin"))) == GRANT
    assert error_of(await stand.bear(stand.pod("system:serviceaccount:team:twin"), client_id="twin-a")) == GRANT
    assert (
        claims_of(token_in(await stand.bear(stand.pod("system:serviceaccount:team:godwin"))))["sub"] == "agent:twin-b"
    )


@pytest.mark.key("identity.agents.status")
async def test_a_suspended_agent_gets_nothing(stand: Estate) -> None:
    assert error_of(await stand.bear(stand.pod("system:serviceaccount:team:retired"))) == GRANT
    token = token_in(await stand.bear(stand.pod()))
    registry = stand.identity()
    registry["agents"]["pod"]["status"] = "suspended"
    await stand.reload(identity=registry)
    assert error_of(await stand.bear(stand.pod())) == GRANT
    assert (await stand.call_with(token)).status == 401


@pytest.mark.rule("AST-9")
async def test_a_chain_that_the_assertion_brings_along(stand: Estate) -> None:
    chain = [{"sub": "agent:secretive", "iss": stand.base, "profile": "ai_agent"}]
    forged = {"delegation_chain": chain, "roles": ["admin"], "groups": ["g"]}
    claims = claims_of(token_in(await stand.bear(stand.pod(**forged, may_act={"sub": "x"}, scope="admin"))))
    assert [each["sub"] for each in claims["delegation_chain"]] == ["agent:pod"]
    assert not {"act", "roles", "groups", "asserted", "may_act"} & claims.keys() and "admin" not in claims["scope"]


# Tokens that are something else


@pytest.mark.parametrize(
    "kind",
    [
        "at+jwt",
        "application/at+jwt",
        "dpop+jwt",
        "logout+jwt",
        "secevent+jwt",
        "oauth-id-jag+jwt",
        "X" * 200,
        7,
        ["JWT"],
        "",
    ],
)
async def test_a_token_of_another_kind(stand: Estate, kind: Any) -> None:
    reply = await stand.bear(stand.pod(POD, {"typ": kind}))
    assert error_of(reply) == (CLIENT if kind == "oauth-id-jag+jwt" else GRANT)
    for fine in ({"typ": "jwt"}, {"typ": "JOSE"}, {"typ": "application/jwt"}):
        assert (await stand.bear(stand.pod(POD, fine))).status == 200


@pytest.mark.parametrize("name", ["nonce", "at_hash", "c_hash", "cnf"])
async def test_an_id_token_or_one_that_is_bound_to_a_key(stand: Estate, name: str) -> None:
    assert error_of(await stand.bear(stand.pod(**{name: "x"}))) == GRANT


async def test_a_token_that_somebody_else_holds_in_the_name_of_the_workload(stand: Estate) -> None:
    """Who comes with it is the actor (RFC 8693, section 4.1): it proves nobody to be the workload."""
    delegated = stand.pod(act={"sub": "system:serviceaccount:other:helper"})
    assert error_of(await stand.bear(delegated)) == GRANT
    proof = {"client_assertion_type": ASSERTION, "client_assertion": delegated}
    assert error_of(await stand.post({"grant_type": "client_credentials", **proof})) == CLIENT


async def test_our_own_token_and_a_users_token_are_no_proof(stand: Estate) -> None:
    own = token_in(await stand.bear(stand.pod()))
    assert error_of(await stand.bear(own)) == GRANT
    assert error_of(await stand.bear(stand.user())) == GRANT
    assert error_of(await stand.bear(stand.user(aud=stand.base))) == GRANT
    proof = {"client_assertion_type": ASSERTION, "client_assertion": own}
    assert error_of(await stand.post({"grant_type": "client_credentials", **proof})) == CLIENT


async def test_what_callgate_signs_for_servers_is_no_proof(stand: Estate) -> None:
    """Even where somebody made callgate an issuer of workloads by its own name."""
    entry = {
        "issuer": stand.base,
        "jwks_uri": f"{stand.base}/oauth/jwks",
        "audience": [stand.base, "https://lake.example"],
    }
    await stand.reload(identity=stand.identity(federation={"cluster": entry}))
    for audience in (stand.base, "https://lake.example"):
        claims = stand.cluster.claims(POD, audience, iss=stand.base)
        assert error_of(await stand.bear(await stand.house.credentials.sign(claims))) == GRANT


@pytest.mark.rule("RS-7")
async def test_the_assertion_itself_opens_nothing(stand: Estate) -> None:
    assert (await stand.call_with(stand.pod())).status == 401


# Attacks on the request


async def test_the_assertion_of_another_agent(stand: Estate) -> None:
    for named in ("secretive", "job", "POD", "agent:pod", "pod ", "client:pod"):
        assert error_of(await stand.bear(stand.pod(), client_id=named))[1] in ("invalid_grant", "invalid_request")
    assert error_of(await stand.bear(stand.pod(), client="secretive")) == GRANT
    assert (await stand.bear(stand.pod(), client_id="pod")).status == 200
    assert (await stand.bear(stand.pod(), client_id=POD)).status == 200


async def test_only_this_grant_needs_no_client(stand: Estate) -> None:
    for form in (
        {"grant_type": "client_credentials", "assertion": stand.pod()},
        {"grant_type": "client_credentials", "assertion": stand.pod(), "client_id": "pod"},
        {"grant_type": EXCHANGE, "subject_token": stand.pod(), "subject_token_type": ACCESS, "assertion": stand.pod()},
        {"assertion": stand.pod()},
    ):
        assert error_of(await stand.post(form)) == CLIENT
    for path in ("/oauth/introspect", "/oauth/revoke"):
        form = {"grant_type": BEARER, "assertion": stand.pod(), "token": "x"}
        assert error_of(await stand.post(form, path=path)) == CLIENT


async def test_wrong_credentials_are_not_overlooked(stand: Estate) -> None:
    form = {"grant_type": BEARER, "assertion": stand.pod()}
    assert error_of(await stand.post(form, ("Authorization", "Basic cG9kOg=="))) == CLIENT
    assert error_of(await stand.post(form, ("Authorization", f"Bearer {stand.pod()}"))) == CLIENT
    assert error_of(await stand.post({**form, "client_id": "pod", "client_secret": "guessed"})) == CLIENT
    proof = {"client_assertion_type": ASSERTION, "client_assertion": "a.b.c"}
    assert error_of(await stand.post({**form, **proof})) == CLIENT


async def test_a_secret_agent_is_not_had_without_its_secret(stand: Estate) -> None:
    subject = "agent:secretive"
    assert error_of(await stand.bear(stand.pod(subject), client_id="secretive")) == GRANT
    assert error_of(await stand.bear(stand.pod("secretive"))) == GRANT


@pytest.mark.parametrize(
    "assertion", ["x", "a.b", "a.b.c", "a.b.c.d", "..", "e30.e30.", "=.=.=", "e30.W10.e30", "\u00e9.e.e"]
)
async def test_what_is_no_token(stand: Estate, assertion: str) -> None:
    assert error_of(await stand.bear(assertion)) == GRANT
    proof = {"client_assertion_type": ASSERTION, "client_assertion": assertion}
    assert error_of(await stand.post({"grant_type": "client_credentials", **proof})) == CLIENT


async def test_a_huge_token(stand: Estate) -> None:
    assert error_of(await stand.bear(stand.pod(padding="x" * 20_000))) == GRANT
    assert (await stand.bear(stand.pod(padding="x" * 80_000))).status == 413
    claims = json.dumps(stand.cluster.claims(POD, stand.base))
    deep = claims[:-1] + ', "deep": ' + "[" * 5000 + "]" * 5000 + "}"
    assert error_of(await stand.bear(_signed(stand, deep))) == GRANT


async def test_no_assertion_or_two(stand: Estate) -> None:
    assert error_of(await stand.post({"grant_type": BEARER})) == (400, "invalid_request")
    twice = f"grant_type={BEARER}&assertion=a.b.c&assertion={stand.pod()}"
    assert error_of(await stand.post(twice)) == (400, "invalid_request")


async def test_names_that_occur_twice(stand: Estate) -> None:
    claims = json.dumps(stand.cluster.claims(POD, stand.base))
    assert (await stand.bear(_signed(stand, claims))).status == 200
    for name in ("sub", "iss", "aud", "exp"):
        twice = claims[:-1] + f', "{name}": {json.dumps(json.loads(claims)[name])}}}'
        assert error_of(await stand.bear(_signed(stand, twice))) == GRANT


def _signed(stand: Estate, claims: str) -> str:
    """A token of the cluster with claims as they stand, letter by letter."""
    raw: Any = claims.encode()
    return sign(stand.cluster.key, {"alg": "ES256", "kid": stand.cluster.key.kid}, raw)


async def test_who_guesses_is_shut_out(stand: Estate) -> None:
    statuses = [(await stand.bear("a.b.c")).status for _ in range(60)]
    assert statuses[0] == 400 and statuses[-1] == 429


@pytest.mark.parametrize(
    ("kind", "assertion"),
    [
        ("urn:ietf:params:oauth:client-assertion-type:saml2-bearer", ""),
        (ASSERTION, "job"),
        (ASSERTION, "nobody"),
        (ASSERTION, "late"),
    ],
)
async def test_a_client_assertion_that_does_not_hold(stand: Estate, kind: str, assertion: str) -> None:
    token = {
        "": stand.pod(), "job": stand.ci.token(POD, stand.base), "nobody": stand.pod("system:serviceaccount:a:b"),
        "late": stand.pod(exp=int(time.time()) - 60),
    }[assertion]  # fmt: skip
    proof = {"client_assertion_type": kind, "client_assertion": token}
    reply = await stand.post({"grant_type": "client_credentials", **proof})
    assert error_of(reply) == ((400, "invalid_request") if not assertion else CLIENT)


async def test_a_client_assertion_of_another(stand: Estate) -> None:
    proof = {"client_assertion_type": ASSERTION, "client_assertion": stand.pod(), "client_id": "secretive"}
    assert error_of(await stand.post({"grant_type": "client_credentials", **proof})) == CLIENT


# Keys


@pytest.mark.rule("TOK-4")
async def test_keys_change_and_stay_through_an_outage(stand: Estate) -> None:
    assert (await stand.bear(stand.pod())).status == 200
    with stand.cluster.away():
        assert (await stand.bear(stand.pod())).status == 200
        await stand.reload(identity=stand.identity(anonymous=False))  # a reload keeps them as well
        assert (await stand.bear(stand.pod())).status == 200
    stand.cluster.key = ec_key("the next key of the cluster")
    stand.cluster.keys.append(stand.cluster.key)
    await eventually(lambda: _is_200(stand.bear(stand.pod())))


async def test_many_at_once_ask_for_the_keys_once(stand: Estate) -> None:
    replies = await asyncio.gather(*(stand.bear(stand.pod()) for _ in range(20)))
    assert {reply.status for reply in replies} == {200}
    assert stand.cluster.asked == [DISCOVERY, "/openid/v1/jwks"]


@pytest.mark.rule("OC-2")
@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://elsewhere.example"}, {"issuer": None}, {"jwks_uri": None}, {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "http://203.0.113.1/jwks"}, {"jwks_uri": 7}, {"jwks_uri": "not a url"},
    ],
)  # fmt: skip
async def test_a_discovery_document_that_is_not_the_issuers(stand: Estate, document: dict[str, Any]) -> None:
    stand.cluster.document = document
    assert error_of(await stand.bear(stand.pod())) == GRANT
    assert stand.cluster.asked == [DISCOVERY]


@pytest.mark.key("egress.allow_private")
async def test_an_issuer_leads_us_to_no_other_machine_of_the_network(tmp_path: Path) -> None:
    for allowed, status in (([], 400), (["localhost"], 200)):
        folder = tmp_path / str(status)
        folder.mkdir()
        async with estate(folder, egress={"allow_private": allowed}) as stand:
            port = stand.cluster.server.port
            stand.cluster.document = {"jwks_uri": f"http://localhost:{port}/openid/v1/jwks"}
            assert (await stand.bear(stand.pod())).status == status
            assert stand.cluster.asked == [DISCOVERY, "/openid/v1/jwks"][: 1 + (status == 200)]


@pytest.mark.key("identity.federation.jwks_uri", "identity.federation.jwks_file", "identity.federation.algorithms")
async def test_keys_from_a_url_and_from_a_file(stand: Estate, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [public(ec_key("in a file"))]}))
    uri = {"issuer": "https://kubernetes.default.svc", "jwks_uri": f"{stand.cluster.issuer}/openid/v1/jwks"}
    file = {"issuer": "https://gitlab.example", "jwks_file": "keys.json", "algorithms": ["ES256"]}
    await stand.reload(identity=stand.identity(federation={"cluster": uri, "ci": file}))
    assert (await stand.bear(stand.pod(iss="https://kubernetes.default.svc"))).status == 200
    assert stand.cluster.asked == ["/openid/v1/jwks"]
    claims = stand.ci.claims(JOB, stand.base, iss="https://gitlab.example", repository="org/app", ref_protected="true")
    assert (await stand.bear(sign(ec_key("in a file"), {"alg": "ES256", "kid": "in a file"}, claims))).status == 200


@pytest.mark.key("identity.federation")
async def test_federation_comes_and_goes_with_a_reload(stand: Estate) -> None:
    without = stand.identity()
    del without["federation"]
    without["agents"] = {}
    await stand.reload(identity=without)
    assert error_of(await stand.bear(stand.pod())) == (400, "unsupported_grant_type")
    renamed = stand.identity()
    renamed["agents"]["pod"]["workloads"] = [workload("cluster", "system:serviceaccount:team:other")]
    await stand.reload(identity=renamed)
    assert error_of(await stand.bear(stand.pod())) == GRANT
    assert (await stand.bear(stand.pod("system:serviceaccount:team:other"))).status == 200


async def test_refusals_are_recorded_without_the_token(stand: Estate) -> None:
    assertion = stand.pod("system:serviceaccount:team:nobody")
    await stand.bear(assertion)
    (record,) = await stand.records(1)
    assert record["method"] == "oauth/token" and record["outcome"] == "refused"
    assert assertion not in json.dumps(record) and "nobody" not in json.dumps(record)


async def _is_200(reply: Any) -> bool:
    answer: Reply = await reply
    return answer.status == 200

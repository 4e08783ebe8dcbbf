"""Attacks on the token service. Each is refused, with the code of the standard and without a word on our insides."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey

from callgate.gateway.stdio import StdioFront
from callgate.identity import Refused, operator_token
from tests.fuzz.messages import dump, head, initialize, post
from tests.identity.oauth.office import (
    ACCESS,
    ASSERTION,
    EXCHANGE,
    KEY,
    Office,
    assertion,
    basic,
    claims_of,
    error_of,
    office,
    secret_of,
    token_in,
)
from tests.identity.provider import ec_key, part, public, sign

pytestmark = pytest.mark.anyio
OWN = {"grant_type": "client_credentials"}
INVALID_CLIENT = (401, "invalid_client")
GRANT, SCOPE, TARGET = (400, "invalid_grant"), (400, "invalid_scope"), (400, "invalid_target")
REQUEST = (400, "invalid_request")


async def mcp_status(stand: Office, token: str, path: str = "/mcp") -> int:
    return (await stand.call_with(token, path=path, tool="hello" if path.startswith("/servers") else "u__hello")).status


# Delegation


@pytest.mark.rule("AST-1", "DEL-3")
async def test_more_scope_than_the_parent_has(stand: Office) -> None:
    narrow = await stand.through("planner", scope="read")
    assert error_of(await stand.exchange("coder", narrow, scope="read write")) == SCOPE
    assert claims_of(await stand.through("coder", subject=narrow))["scope"] == "read"


@pytest.mark.rule("DEL-3")
async def test_more_scope_than_the_client_may_have(stand: Office) -> None:
    planner = await stand.through("planner")
    assert error_of(await stand.exchange("intern", planner, scope="write")) == SCOPE
    assert error_of(await stand.post({**OWN, "scope": "write"}, client="intern")) == SCOPE


@pytest.mark.rule("DEL-3")
async def test_a_user_token_without_scopes_gives_none(stand: Office) -> None:
    user = stand.user(scope=None)
    assert claims_of(await stand.through("planner", subject=user))["scope"] == ""
    assert error_of(await stand.exchange("planner", user, scope="read")) == SCOPE


@pytest.mark.rule("AST-2", "DEL-2")
async def test_a_client_that_is_no_delegate(stand: Office) -> None:
    planner = await stand.through("planner")
    assert error_of(await stand.exchange("outsider", planner)) == GRANT
    assert error_of(await stand.exchange("outsider", stand.user())) == GRANT
    assert error_of(await stand.exchange("outsider", await stand.own("planner"))) == GRANT


@pytest.mark.rule("DEL-2")
async def test_the_subject_says_who_may_act(stand: Office) -> None:
    allowed = stand.user(may_act={"sub": "agent:outsider"})
    assert claims_of(await stand.through("outsider", subject=allowed))["client_id"] == "outsider"
    assert error_of(await stand.exchange("planner", allowed)) == GRANT
    for foreign in ({"sub": "agent:outsider", "iss": "https://elsewhere"}, {}, "agent:outsider", ["agent:outsider"]):
        assert error_of(await stand.exchange("outsider", stand.user(may_act=foreign))) == GRANT


@pytest.mark.rule("DEL-1")
async def test_the_actor_token_of_another_client(stand: Office) -> None:
    more = {"actor_token_type": ACCESS}
    other, own = await stand.own("coder"), await stand.own("planner")
    assert error_of(await stand.exchange("planner", stand.user(), actor_token=other, **more)) == GRANT
    assert error_of(await stand.exchange("planner", stand.user(), actor_token=stand.user(), **more)) == GRANT
    assert (await stand.exchange("planner", stand.user(), actor_token=own, **more)).status == 200
    assert error_of(await stand.exchange("planner", stand.user(), actor_token=own)) == REQUEST


@pytest.mark.rule("DEL-4")
@pytest.mark.key("identity.agents.audiences")
async def test_a_target_that_the_client_may_not_have(stand: Office) -> None:
    for resource in ("/", "https://elsewhere.example/mcp", "/mcp/../servers/u/mcp", "/mcpx", "/oauth/token", "\\mcp"):
        assert error_of(await stand.post({**OWN, "resource": resource}, client="planner")) == TARGET
    secret = {**OWN, "client_assertion_type": ASSERTION, "client_assertion": assertion(stand.base)}
    assert error_of(await stand.post({**secret, "resource": "/mcp/coder"})) == TARGET


@pytest.mark.rule("DEL-4", "RS-7")
async def test_a_token_for_one_endpoint_at_another(stand: Office) -> None:
    everything = await stand.own("planner")
    coder = await stand.own("planner", resource=f"{stand.base}/mcp/coder")
    server = await stand.own("planner", resource="/servers/u/mcp")
    assert [await mcp_status(stand, everything, path) for path in ("/mcp", "/mcp/coder", "/servers/u/mcp")] == [
        200, 401, 401,
    ]  # fmt: skip
    assert [await mcp_status(stand, coder, path) for path in ("/mcp", "/mcp/coder", "/servers/u/mcp")] == [
        401,
        200,
        401,
    ]
    assert [await mcp_status(stand, server, path) for path in ("/mcp", "/mcp/coder", "/servers/u/mcp")] == [
        401,
        401,
        200,
    ]


@pytest.mark.rule("DEL-4")
async def test_a_stolen_token_is_not_widened_to_another_audience(stand: Office) -> None:
    narrow = await stand.through("planner", resource="/mcp/coder")
    assert error_of(await stand.exchange("coder", narrow, resource="/mcp")) == TARGET
    assert error_of(await stand.exchange("coder", narrow, resource="/servers/u/mcp")) == TARGET
    assert claims_of(await stand.through("coder", subject=narrow))["aud"] == f"{stand.base}/mcp/coder"


async def test_a_stolen_token_is_no_client(stand: Office) -> None:
    stolen = await stand.through("planner")
    form = {"grant_type": EXCHANGE, "subject_token": stolen, "subject_token_type": ACCESS}
    assert error_of(await stand.post(form)) == INVALID_CLIENT
    assert error_of(await stand.post(form, ("Authorization", f"Bearer {stolen}"))) == INVALID_CLIENT


@pytest.mark.rule("DEL-5")
@pytest.mark.key("identity.oauth.max_depth")
async def test_a_chain_beyond_the_cap(tmp_path: Path) -> None:
    async with office(tmp_path, {"oauth": {"max_depth": 1}}) as stand:
        assert error_of(await stand.exchange("coder", await stand.through("planner"))) == GRANT


@pytest.mark.rule("DEL-6")
@pytest.mark.key("identity.oauth.repeat_actors")
async def test_the_same_actor_twice(stand: Office) -> None:
    coder = await stand.through("planner", "coder")
    assert error_of(await stand.exchange("planner", coder)) == GRANT
    assert error_of(await stand.exchange("planner", await stand.own("planner"))) == GRANT
    await stand.reload(identity=stand.identity(oauth={"repeat_actors": True}))
    assert len(claims_of(await stand.through("planner", subject=coder))["delegation_chain"]) == 3


@pytest.mark.rule("DEL-8")
@pytest.mark.key("identity.oauth.token_ttl")
async def test_a_child_ends_with_its_parent_and_is_not_refreshed(stand: Office) -> None:
    ends = int(time.time()) + 20
    reply = await stand.exchange("planner", stand.user(exp=ends))
    assert claims_of(token_in(reply))["exp"] == ends and reply.json["expires_in"] <= 20
    assert "refresh_token" not in reply.json
    assert error_of(await stand.post({"grant_type": "refresh_token", "refresh_token": "x"}, client="planner")) == (
        400, "unsupported_grant_type",
    )  # fmt: skip
    await stand.reload(identity=stand.identity(oauth={"token_ttl": "10s"}))
    assert (await stand.exchange("planner", stand.user())).json["expires_in"] == 10


@pytest.mark.rule("DEL-8")
async def test_an_expired_parent(stand: Office) -> None:
    past = int(time.time()) - 5  # the leeway for providers' clocks does not make it longer
    assert error_of(await stand.exchange("planner", stand.user(exp=past))) == GRANT
    assert error_of(await stand.exchange("planner", stand.user(exp=past - 3600))) == GRANT


@pytest.mark.rule("DEL-9")
@pytest.mark.key("identity.agents", "identity.agents.status")
async def test_a_revoked_role_and_a_suspended_actor_count_from_the_next_call_on(stand: Office) -> None:
    token = await stand.through("planner", "coder")
    assert await mcp_status(stand, token) == 200
    registry = stand.identity()
    registry["agents"]["planner"]["roles"] = ["intern"]
    await stand.reload(identity=registry)
    assert "error" in (await stand.call_with(token, "u__delete_all")).json
    registry["agents"]["planner"]["status"] = "suspended"
    await stand.reload(identity=registry)
    assert await mcp_status(stand, token) == 401
    assert error_of(await stand.exchange("tester", token)) == INVALID_CLIENT
    assert error_of(await stand.post(OWN, client="planner")) == INVALID_CLIENT
    assert error_of(await stand.exchange("tester", token)) == INVALID_CLIENT
    del registry["agents"]["planner"]
    await stand.reload(identity=registry)
    assert await mcp_status(stand, token) == 401


@pytest.mark.rule("DEL-10", "DEL-11")
async def test_a_foreign_chain_may_only_add_denials(stand: Office) -> None:
    rules = [
        {"id": "planners", "allow": ["*/*"], "chain_any": {"subjects": ["agent:planner"]}},
        {"id": "coders", "allow": ["*/*"], "to": {"agents": ["agent:planner"]}},
        {"id": "devs", "allow": ["*/hello"], "to": {"roles": ["dev"]}},
        {"id": "no-rogue-now", "deny": ["*/*"], "to": {"agents": ["agent:now"]}},
        {"id": "no-rogues", "deny": ["*/*"], "chain_any": {"subjects": ["agent:rogue"]}},
    ]
    await stand.reload(policy={"version": 1, "default": "deny", "rules": rules})
    forged = {"delegation_chain": [{"sub": "agent:planner"}], "act": {"sub": "agent:planner"}}
    assert "error" in (await stand.call_with(stand.user(**forged), "u__delete_all")).json
    assert "result" in (await stand.call_with(stand.user(**forged))).json
    rogue = stand.user(act={"sub": "agent:planner", "act": {"sub": "agent:rogue"}})
    assert "error" in (await stand.call_with(rogue)).json
    last = (await stand.records())[-1]
    assert (last["rule"], last.get("chain", [])) == ("no-rogues", [])
    assert [each["sub"] for each in last["asserted"]] == ["agent:rogue", "agent:planner"]
    assert "error" in (await stand.call_with(stand.user(act={"sub": "agent:now"}))).json
    for strange in ("agent:now", [{"sub": "agent:now"}], {"sub": 7}, {"act": None}):
        assert "result" in (await stand.call_with(stand.user(act=strange))).json


@pytest.mark.rule("AST-9", "DEL-11")
async def test_a_forged_chain_is_not_in_the_token(stand: Office) -> None:
    forged = [{"sub": "agent:admin"}]
    user = stand.user(delegation_chain=forged, act={"sub": "agent:admin"}, txn="mine", parents=["x"])
    token = await stand.through("planner", subject=user, delegation_chain=json.dumps(forged), act="{}", txn="mine")
    claims = claims_of(token)
    assert [each["sub"] for each in claims["delegation_chain"]] == ["agent:planner"]
    assert "act" not in claims["act"] and claims["txn"] != "mine" and "parents" not in claims


# Client authentication


@pytest.mark.parametrize(
    ("client", "secret"),
    [("planner", "wrong"), ("planner", ""), ("nobody", "x"), ("tester", ""), ("", ""), ("agent:planner", None)],
)
async def test_wrong_secrets(stand: Office, client: str, secret: str | None) -> None:
    given = secret_of("planner") if secret is None else secret
    reply = await stand.post(OWN, ("Authorization", basic(client, given)))
    assert error_of(reply) == INVALID_CLIENT and reply.headers["www-authenticate"].startswith("Basic")
    posted = {**OWN, "client_id": client, "client_secret": given}
    assert error_of(await stand.post(posted)) == INVALID_CLIENT


@pytest.mark.parametrize(
    "value", ["Basic", "Basic !!!", "Basic " + "A" * 4000, "Basic bm9jb2xvbg==", "Digest x=y", "Basic /w=="]
)
async def test_unreadable_credentials(stand: Office, value: str) -> None:
    assert error_of(await stand.post(OWN, ("Authorization", value))) == INVALID_CLIENT


async def test_no_and_several_ways_to_authenticate(stand: Office) -> None:
    posted = {"client_id": "planner", "client_secret": secret_of("planner")}
    assert error_of(await stand.post(OWN)) == INVALID_CLIENT
    assert error_of(await stand.post({**OWN, **posted}, client="planner")) == REQUEST
    both = {**OWN, **posted, "client_assertion": assertion(stand.base), "client_assertion_type": ASSERTION}
    assert error_of(await stand.post(both)) == REQUEST
    assert error_of(await stand.post({**OWN, "client_id": "coder"}, client="planner")) == INVALID_CLIENT


async def test_the_operators_token_and_a_static_key_are_no_clients_and_no_subjects(stand: Office) -> None:
    operator = operator_token(stand.folder / "data")
    assert error_of(await stand.post(OWN, ("Authorization", f"Bearer {operator}"))) == INVALID_CLIENT
    assert error_of(await stand.exchange("planner", operator)) == GRANT


@pytest.mark.rule("AST-4")
@pytest.mark.key("identity.agents.public_key")
async def test_a_replayed_assertion(stand: Office) -> None:
    form = {**OWN, "client_assertion_type": ASSERTION, "client_assertion": assertion(f"{stand.base}/oauth/token")}
    assert (await stand.post(form)).status == 200
    assert error_of(await stand.post(form)) == INVALID_CLIENT
    await stand.reload(identity=stand.identity(oauth={"token_ttl": "1m"}))  # nor after a reload
    assert error_of(await stand.post(form)) == INVALID_CLIENT


@pytest.mark.rule("AST-4")
async def test_of_simultaneous_uses_of_an_assertion_one_counts(stand: Office) -> None:
    form = {**OWN, "client_assertion_type": ASSERTION, "client_assertion": assertion(stand.base)}
    replies = await asyncio.gather(*(stand.post(form) for _ in range(8)))
    assert sorted(reply.status for reply in replies) == [200] + [401] * 7


ASSERTIONS: dict[str, dict[str, Any]] = {
    "no jti": {"jti": None}, "long jti": {"jti": "x" * 300}, "jti is a number": {"jti": 7}, "no exp": {"exp": None},
    "lives too long": {"exp": int(time.time()) + 7200}, "expired": {"exp": int(time.time()) - 60},
    "for somebody else": {"aud": "https://elsewhere.example"}, "for nobody": {"aud": None}, "aud is 1": {"aud": 1},
    "another subject": {"sub": "planner"}, "another issuer": {"iss": "planner", "sub": "planner"},
    "issuer is a list": {"iss": ["tester"]}, "not yet": {"nbf": int(time.time()) + 900},
    "from the future": {"iat": int(time.time()) + 900}, "exp is text": {"exp": "soon"},
}  # fmt: skip


@pytest.mark.parametrize("changes", ASSERTIONS.values(), ids=ASSERTIONS)
async def test_assertions_that_do_not_hold(stand: Office, changes: dict[str, Any]) -> None:
    made = assertion(changes.get("aud", stand.base), **{name: each for name, each in changes.items() if name != "aud"})
    form = {**OWN, "client_assertion_type": ASSERTION, "client_assertion": made}
    assert error_of(await stand.post(form)) == INVALID_CLIENT


@pytest.mark.rule("AST-11")
@pytest.mark.parametrize("half", [0, 1])  # so that nobody is locked out
async def test_assertions_signed_by_nobody_or_with_the_public_key(stand: Office, half: int) -> None:
    good = assertion(stand.base).split(".")
    public_pem = KEY.as_pem(private=False)
    head_ = part({"alg": "HS256"})
    mac = hmac.new(public_pem, f"{head_}.{good[1]}".encode(), hashlib.sha256).digest()
    foreign = sign(ECKey.generate_key("P-256"), {"alg": "ES256"}, claims_of(assertion(stand.base)))
    made = [
        f"{part({'alg': 'none'})}.{good[1]}.", f"{head_}.{good[1]}.{part(mac)}", foreign,
        f"{good[0]}.{good[1]}.", f"{good[0]}.{part({**claims_of(assertion(stand.base)), 'sub': 'tester'})}.{good[2]}",
        "a.b.c", "..", "x", "a.b.c.d", ".".join([part(b'{"alg":"ES256","alg":"none"}'), *good[1:]]),
        assertion(stand.base, {"crit": ["exp"]}), assertion(stand.base, {"typ": "at+jwt"}),
    ]  # fmt: skip
    for each in made[half::2]:
        form = {**OWN, "client_assertion_type": ASSERTION, "client_assertion": each}
        assert error_of(await stand.post(form)) == INVALID_CLIENT, each


async def test_an_assertion_of_another_type(stand: Office) -> None:
    form = {**OWN, "client_assertion": assertion(stand.base), "client_assertion_type": "urn:saml2-bearer"}
    assert error_of(await stand.post(form)) == REQUEST


# Tokens


@pytest.mark.rule("AST-10", "AST-11", "TOK-5", "RS-7")
async def test_tokens_that_somebody_else_made(stand: Office) -> None:
    good = await stand.own("planner")
    header, body, signature = good.split(".")
    kid = json.loads(base64.urlsafe_b64decode(header + "=="))["kid"]
    key = (await stand.get("/oauth/jwks")).json["keys"][0]
    as_json = json.dumps(key).encode()
    forged = {**claims_of(good), "sub": "agent:coder"}
    hs = part({"alg": "HS256", "typ": "at+jwt", "kid": kid})
    made = [
        f"{part({'alg': 'none', 'typ': 'at+jwt', 'kid': kid})}.{body}.",
        f"{hs}.{body}.{part(hmac.new(as_json, f'{hs}.{body}'.encode(), hashlib.sha256).digest())}",
        f"{header}.{part(forged)}.{signature}",
        sign(ec_key("first"), {"alg": "ES256", "typ": "at+jwt", "kid": kid}, forged),
        sign(ec_key("first"), {"alg": "ES256", "typ": "at+jwt", "kid": "unknown"}, forged),
        sign(ec_key("first"), {"alg": "ES256", "typ": "at+jwt", "jwk": public(ec_key("first"))}, forged),
        stand.user(iss=stand.base),  # the provider signs for us
        sign(ec_key("first"), {"alg": "ES256", "kid": "first"}, {**stand.idp.claims(), "iss": f"{stand.idp.issuer}/"}),
    ]
    for each in made:
        assert await mcp_status(stand, each) == 401, each
        assert error_of(await stand.exchange("coder", each)) == GRANT


@pytest.mark.rule("RS-7")
async def test_a_user_token_for_another_audience(stand: Office) -> None:
    assert await mcp_status(stand, stand.user(aud="another")) == 401
    assert error_of(await stand.exchange("planner", stand.user(aud="another"))) == GRANT


@pytest.mark.rule("TOK-2")
async def test_a_revoked_token_ends_at_once_and_so_do_its_children(stand: Office) -> None:
    parent = await stand.through("planner")
    child = await stand.through("coder", subject=parent)
    other = await stand.through("planner")
    assert [await mcp_status(stand, each) for each in (parent, child, other)] == [200, 200, 200]
    assert (await stand.post({"token": parent}, path="/oauth/revoke", client="outsider")).status == 200
    assert await mcp_status(stand, parent) == 200  # it is not the outsider's
    assert (await stand.post({"token": parent}, path="/oauth/revoke", client="planner")).status == 200
    assert [await mcp_status(stand, each) for each in (parent, child, other)] == [401, 401, 200]
    assert error_of(await stand.exchange("coder", parent)) == GRANT
    await stand.reload(identity=stand.identity(oauth={"token_ttl": "1m"}))
    assert [await mcp_status(stand, each) for each in (parent, child, other)] == [401, 401, 200]
    assert (await stand.post({"token": "x"}, path="/oauth/revoke", client="planner")).status == 200


@pytest.mark.rule("TOK-2")
async def test_a_revoked_subject_loses_what_agents_hold_in_its_name(stand: Office) -> None:
    token, own = await stand.through("planner"), await stand.own("coder")
    assert [await mcp_status(stand, each) for each in (token, own)] == [200, 200]
    stand.house.recogniser.revoke(stand.idp.issuer, "alice")
    assert [await mcp_status(stand, each) for each in (token, own)] == [401, 200]
    stand.house.recogniser.revoke("", "agent:coder")
    assert await mcp_status(stand, own) == 401


async def test_tokens_are_for_the_gateway_listener_only(stand: Office) -> None:
    registry = stand.identity()
    registry["agents"]["planner"]["roles"] = ["admin"]
    await stand.reload(identity=registry)
    token = await stand.own("planner")
    port = int(stand.gateway.admin_url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = head("GET /api/v1/calls HTTP/1.1", [("Host", f"127.0.0.1:{port}"), ("Authorization", f"Bearer {token}")])
    writer.write(request)
    assert b" 401 " in await reader.readline()
    writer.close()


@pytest.mark.rule("RS-7")
async def test_a_token_for_another_endpoint_over_stdio(stand: Office) -> None:
    who = await stand.house.recogniser.recognise(b"Bearer " + (await stand.own("planner")).encode())
    pipes = (io.BytesIO(), io.BytesIO())
    with pytest.raises(Refused):
        StdioFront(stand.house, who, "virtual:coder", pipes)
    StdioFront(stand.house, who, "", pipes)


async def test_introspection_tells_those_whom_the_token_concerns(stand: Office) -> None:
    token = await stand.through("planner")
    found = (await stand.post({"token": token}, path="/oauth/introspect", client="planner")).json
    assert found["active"] is True and found["client_id"] == "planner"
    for client, asked in (("outsider", token), ("planner", "x"), ("planner", stand.user()), ("planner", "a.b.c")):
        reply = await stand.post({"token": asked}, path="/oauth/introspect", client=client)
        assert reply.json == {"active": False}
    assert error_of(await stand.post({"token": token}, path="/oauth/introspect")) == INVALID_CLIENT
    assert error_of(await stand.post({}, path="/oauth/introspect", client="planner")) == REQUEST


async def test_an_agent_for_a_user_does_not_enter_the_users_session(stand: Office) -> None:
    user = ("Authorization", f"Bearer {stand.user()}")
    hello = await stand.ask(post(stand.port, dump(initialize()), [user]))
    session = hello.headers["mcp-session-id"]
    listing = dump({"jsonrpc": "2.0", "id": 2, "method": "tools/list"})
    for token, status in ((stand.user(), 200), (await stand.through("planner"), 404)):
        headers = [("Authorization", f"Bearer {token}"), ("Mcp-Session-Id", session)]
        assert (await stand.ask(post(stand.port, listing, headers))).status == status


# The endpoint


@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/revoke", "/oauth/introspect"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_other_methods(stand: Office, path: str, method: str) -> None:
    assert error_of(await stand.get(path, ("Content-Length", "0"), method=method)) == (405, "invalid_request")


@pytest.mark.rule("RS-9")
async def test_parameters_and_tokens_in_the_query(stand: Office) -> None:
    assert (
        error_of(await stand.post(OWN, path="/oauth/token?grant_type=client_credentials", client="planner")) == REQUEST
    )
    token = await stand.own("planner")
    for path in (f"/mcp?access_token={token}", f"/mcp?token={token}"):
        reply = await stand.modern("tools/list", path=path)
        assert reply.status == 401 and token.encode() not in reply.body
    assert token not in str(await stand.records())


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "multipart/form-data; boundary=x", ""])
async def test_other_content_types(stand: Office, kind: str) -> None:
    body = json.dumps({**OWN, "client_id": "planner", "client_secret": secret_of("planner")})
    assert error_of(await stand.post(body, ("Content-Type", kind))) == (415, "invalid_request")


@pytest.mark.parametrize(
    "body",
    [
        "grant_type=client_credentials&grant_type=client_credentials", "grant_type=a&grant_type=b", "grant_type",
        "=&=&", "grant_type=%ff%fe",
        "grant_type=client_credentials%0d%0aSet-Cookie:%20a=b", "grant_type=a%00b", "ä=1",
        "&".join(f"a{n}=1" for n in range(100)), "scope=a&scope=b&grant_type=client_credentials",
        "grant_type=client_credentials&client_id=planner&client_id=coder", "grant_type=client_credentials&%0a=1",
    ],
)  # fmt: skip
async def test_bodies_that_two_readers_could_read_differently(stand: Office, body: str) -> None:
    reply = await stand.post(body, client="planner")
    assert error_of(reply) == REQUEST and "set-cookie" not in reply.headers


async def test_several_targets(stand: Office) -> None:
    body = "grant_type=client_credentials&resource=%2Fmcp&resource=%2Fmcp%2Fcoder"
    assert error_of(await stand.post(body, client="planner")) == TARGET
    assert error_of(await stand.post({**OWN, "resource": "/mcp", "audience": "/mcp/coder"}, client="planner")) == TARGET


async def test_oversized_bodies(stand: Office) -> None:
    assert error_of(await stand.post("a=" + "x" * 70_000, client="planner")) == (413, "invalid_request")
    size = ("Content-Length", str(5 * 1024 * 1024))
    async with await stand.connect() as wire:  # it is answered before it has come
        wire.send(stand.page("/oauth/token", size, ("Content-Type", "text/plain"), method="POST") + b"x" * 100_000)
        assert error_of(await wire.reply()) == (413, "invalid_request")


async def test_a_client_that_goes_away_is_no_accident(stand: Office, caplog: pytest.LogCaptureFixture) -> None:
    async with await stand.connect() as wire:
        wire.send(stand.page("/oauth/token", ("Content-Length", "100"), method="POST") + b"grant")
    assert (await stand.post(OWN, client="planner")).status == 200
    assert "could not be answered" not in caplog.text


async def test_missing_and_unknown_parameters(stand: Office) -> None:
    assert error_of(await stand.post({}, client="planner")) == REQUEST
    assert error_of(await stand.post({"grant_type": "password"}, client="planner")) == (400, "unsupported_grant_type")
    exchange = {"grant_type": EXCHANGE, "subject_token": stand.user()}
    assert error_of(await stand.post(exchange, client="planner")) == REQUEST
    saml = {**exchange, "subject_token_type": "urn:ietf:params:oauth:token-type:saml2"}
    assert error_of(await stand.post(saml, client="planner")) == REQUEST
    refresh = {"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}
    assert error_of(await stand.exchange("planner", stand.user(), **refresh)) == REQUEST
    for token in ("x", "a.b.c", "cg_key", "ä", " ", "." * 9000):
        assert error_of(await stand.exchange("planner", token))[0] == 400


async def test_answers_are_not_stored_and_refusals_repeat_nothing(stand: Office) -> None:
    issued = await stand.post(OWN, client="planner")
    assert issued.headers["cache-control"] == "no-store"
    marked = "<script>alert(1)</script>"
    for form in ({"grant_type": marked}, {**OWN, "scope": marked}, {**OWN, "resource": marked}):
        assert marked.encode() not in (await stand.post(form, client="planner")).body
    assert marked.encode() not in (await stand.post(OWN, ("Authorization", basic(marked, marked)))).body


async def test_guessing_locks_the_address_out_for_that_client(stand: Office) -> None:
    for _ in range(10):
        assert error_of(await stand.post(OWN, ("Authorization", basic("intern", "guess")))) == INVALID_CLIENT
    locked = (429, "temporarily_unavailable")
    assert error_of(await stand.post(OWN, ("Authorization", basic("intern", "guess")))) == locked
    assert error_of(await stand.post(OWN, client="intern")) == locked  # also with the right secret
    assert (await stand.post(OWN, client="planner")).status == 200


async def test_refusals_are_counted_and_recorded_without_secrets(stand: Office) -> None:
    await stand.post(OWN, ("Authorization", basic("planner", "a-wrong-secret")))
    await stand.exchange("outsider", stand.user())
    records = await stand.records(2)
    assert [each["outcome"] for each in records] == ["refused", "refused"]
    assert [each["subject"] for each in records] == ["unauthenticated", "agent:outsider"]
    assert "a-wrong-secret" not in str(records) and secret_of("outsider") not in str(records)


async def test_without_the_token_service_there_is_nothing(tmp_path: Path) -> None:
    async with office(tmp_path, {"oauth": None, "agents": {}}) as stand:
        for path in ("/oauth/token", "/oauth/revoke", "/oauth/introspect"):
            assert (await stand.post(OWN, path=path, client="planner")).status == 404
        for path in ("/oauth/jwks", "/.well-known/oauth-authorization-server"):
            assert (await stand.get(path)).status == 404

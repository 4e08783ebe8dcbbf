"""Tokens that are bound to a key, at every MCP endpoint, and the attacks of who has the token but not the key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from callgate.errors import Unauthenticated
from callgate.gateway.gate import Names
from callgate.identity.oauth import replays
from tests.fuzz.messages import dump, initialize, modern, post, rpc
from tests.fuzz.raw import Reply
from tests.gateway.stand import calling
from tests.identity.oauth.keyholder import MINE, THEIRS, Holder, proof
from tests.identity.oauth.office import Office, office, token_in
from tests.identity.provider import ec_key

pytestmark = pytest.mark.anyio
STREAM = ("Accept", "text/event-stream")


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Office]:
    async with office(tmp_path) as stand:
        yield stand


def turned_away(reply: Reply, error: str = "invalid_dpop_proof") -> None:
    """Refused, with both challenges, and with nothing in them of what was sent."""
    assert reply.status == 401, reply
    bearer, _, dpop = reply.headers["www-authenticate"].partition(", DPoP ")
    assert bearer.startswith('Bearer realm="callgate"') and 'algs="ES256 EdDSA RS256 PS256"' in dpop
    assert f'error="{error}"' in dpop or (not error and "error" not in dpop), reply
    assert ('error="invalid_token"' in bearer) == (error == "invalid_token")
    assert b"Traceback" not in reply.body


async def with_headers(stand: Office, *headers: tuple[str, str], path: str = "/mcp") -> Reply:
    return await stand.ask(stand.request(calling("u__hello", {}), *headers, path=path))


async def test_a_call_with_its_proof(stand: Office) -> None:
    mine = Holder(stand)
    token = await mine.token()
    for _ in range(2):
        assert (await mine.call(token)).json["result"]["content"][0]["text"] == "hello"
    last = (await stand.records())[-1]
    assert last["subject"] == "agent:planner" and token not in str(last)


@pytest.mark.parametrize("path", ["/mcp/coder", "/servers/u/mcp", "/mcp/"])
async def test_the_other_endpoints(stand: Office, path: str) -> None:
    mine = Holder(stand)
    token = await mine.token(resource=stand.base + path.rstrip("/"))
    tool = "hello" if path.startswith("/servers") else "u__hello"
    request = stand.request(calling(tool, {}), *mine.headers(token, path=path), path=path)
    assert (await stand.ask(request)).status == 200


@pytest.mark.rule("AST-6")
async def test_attack_a_bound_token_as_bearer(stand: Office) -> None:
    """The downgrade: with the proof of its own key, with none, and after it was used well."""
    mine = Holder(stand)
    token = await mine.token()
    for _ in range(2):
        turned_away(await stand.call_with(token), "invalid_token")
        for scheme in ("Bearer", "bearer", "BEARER"):
            headers = [("Authorization", f"{scheme} {token}"), ("DPoP", mine.proof(token=token))]
            turned_away(await with_headers(stand, *headers), "invalid_token")
        assert (await mine.call(token)).status == 200


@pytest.mark.rule("AST-6")
async def test_attack_an_unbound_token_as_dpop(stand: Office) -> None:
    mine = Holder(stand)
    token = await stand.own("planner")
    turned_away(await mine.call(token), "invalid_token")
    assert (await stand.call_with(token)).status == 200
    turned_away(await mine.call(token), "invalid_token")  # also now that it is known
    turned_away(await mine.call("cg_a-static-key"), "invalid_token")


async def test_the_scheme_is_written_in_any_case(stand: Office) -> None:
    mine = Holder(stand)
    token = await mine.token()
    for scheme in ("DPoP", "dpop", "DPOP"):
        headers = [("Authorization", f"{scheme} {token}"), ("dpop", mine.proof(token=token))]
        assert (await with_headers(stand, *headers)).status == 200
    for scheme in ("DPoPx", "D-PoP", "Basic"):
        headers = [("Authorization", f"{scheme} {token}"), ("DPoP", mine.proof(token=token))]
        turned_away(await with_headers(stand, *headers), "invalid_token")


@pytest.mark.rule("AST-6")
@pytest.mark.parametrize(
    "changes",
    [
        {"htm": "GET"},
        {"htm": "DELETE"},
        {"ath": "x" * 43},
        {"ath": None},
        {"iat": 1},
        {"iat": 2**40},
        {"jti": None},
        {"header": {"typ": "JWT"}},
        {"header": {"alg": "none"}},
        {"header": {"alg": "HS256"}},
        {"header": {"crit": ["jwk"]}},
        {"header": {"jwk": MINE.as_dict(private=True)}},
    ],
    ids=lambda changes: "-".join([*changes, *changes.get("header", ())]),
)
async def test_attack_proofs_that_do_not_hold(stand: Office, changes: dict[str, Any]) -> None:
    mine = Holder(stand)
    token = await mine.token()
    turned_away(await mine.call(token, proof=mine.proof(token=token, **changes)))
    assert (await mine.call(token)).status == 200, "a bad proof shuts nobody out"


@pytest.mark.rule("AST-6")
async def test_attack_a_token_without_a_proof(stand: Office) -> None:
    token = await Holder(stand).token()
    turned_away(await with_headers(stand, ("Authorization", f"DPoP {token}")))
    turned_away(await with_headers(stand, ("Authorization", f"DPoP {token}"), ("DPoP", "")))
    turned_away(await with_headers(stand, ("Authorization", f"DPoP {token}"), ("DPoP", "x")))


async def test_attack_a_proof_without_a_token(stand: Office) -> None:
    turned_away(await with_headers(stand, ("DPoP", Holder(stand).proof())), "")


@pytest.mark.rule("AST-6")
async def test_attack_the_thief_proves_a_key_of_its_own(stand: Office) -> None:
    mine, thief = Holder(stand), Holder(stand, THEIRS)
    token, other = await mine.token(), await thief.token("coder")
    turned_away(await thief.call(token))
    # With the owner's public key in the header, or its thumbprint in every other place.
    url = f"{stand.base}/mcp"
    for header in ({"jwk": MINE.as_dict(private=False)}, {"kid": mine.jkt}, {"jkt": mine.jkt}):
        turned_away(await thief.call(token, proof=proof("POST", url, token, key=THEIRS, header=header)))
    # With the owner's proof for another of its tokens.
    turned_away(await mine.call(token, proof=mine.proof(token=other)))
    turned_away(await mine.call(other))


@pytest.mark.rule("AST-6")
async def test_attack_a_proof_is_used_twice(stand: Office) -> None:
    mine = Holder(stand)
    token = await mine.token()
    made = mine.proof(token=token)
    assert (await mine.call(token, proof=made)).status == 200
    turned_away(await mine.call(token, proof=made))
    # The very same bytes on the same connection: heads of requests are remembered there.
    again = stand.request(calling("u__hello", {}), *mine.headers(token))
    async with await stand.connect() as wire:
        for expected in (200, 401, 401):
            wire.send(again)
            assert (await wire.reply()).status == expected
    # A change of the configuration forgets nothing.
    await stand.reload(identity=stand.identity(oauth={"token_ttl": 200}))
    turned_away(await mine.call(token, proof=made))


@pytest.mark.rule("AST-6")
async def test_attack_a_proof_is_used_by_many_at_once(stand: Office) -> None:
    mine = Holder(stand)
    token = await mine.token()
    request = stand.request(calling("u__hello", {}), *mine.headers(token))
    replies = await asyncio.gather(*(stand.ask(request) for _ in range(12)))
    assert sorted(reply.status for reply in replies) == [200] + [401] * 11


@pytest.mark.rule("AST-6")
async def test_attack_a_proof_for_another_endpoint(stand: Office) -> None:
    agents = stand.identity()["agents"]
    agents["planner"]["audiences"] = ["/", "/mcp", "/mcp/*"]
    await stand.reload(identity=stand.identity(agents=agents))
    mine = Holder(stand)
    token = await mine.token(resource=stand.base)  # for the gateway as a whole
    assert (await mine.call(token)).status == 200
    for elsewhere in ("/mcp/coder", "/servers/u/mcp", "/", "/oauth/token", "/sse"):
        turned_away(await mine.call(token, proof=mine.proof(path=elsewhere, token=token)))
    turned_away(await mine.call(token, proof=proof("POST", "https://evil.example/mcp", token)))


@pytest.mark.rule("AST-6")
@pytest.mark.key("public_url", "allowed_hosts")
async def test_attack_the_host_header_says_where_the_request_went(tmp_path: Path) -> None:
    """Another server's proof, relayed with that server's name in the Host header: the public URL counts."""
    public = "https://mcp.example.org"
    async with office(tmp_path, public_url=public, allowed_hosts=["evil.example"]) as stand:
        own = proof("POST", f"{public}/oauth/token")
        token = token_in(await stand.post({"grant_type": "client_credentials"}, ("DPoP", own), client="planner"))
        for url, expected in (("http://evil.example/mcp", 401), (f"{public}/mcp", 200), (f"{stand.base}/mcp", 401)):
            message = calling("u__hello", {})
            request = stand.request(message, ("Authorization", f"DPoP {token}"), ("DPoP", proof("POST", url, token)))
            request = request.replace(f"Host: 127.0.0.1:{stand.port}".encode(), b"Host: evil.example")
            assert b"Host: evil.example" in request
            assert (await stand.ask(request)).status == expected


@pytest.mark.rule("AST-6")
async def test_attack_two_headers(stand: Office) -> None:
    mine, thief = Holder(stand), Holder(stand, THEIRS)
    token = await mine.token()
    good, bad = ("DPoP", mine.proof(token=token)), ("DPoP", thief.proof(token=token))
    auth = ("Authorization", f"DPoP {token}")
    for two in ((good, bad), (bad, good), (good, ("dpop", good[1]))):
        assert (await with_headers(stand, auth, *two)).status == 400
    assert (await with_headers(stand, auth, ("Authorization", f"Bearer {token}"), good)).status == 400
    turned_away(await with_headers(stand, auth, ("DPoP", f"{good[1]}, {bad[1]}")))
    turned_away(await with_headers(stand, ("Authorization", f"DPoP {token}, Bearer {token}"), good), "invalid_token")
    assert (await with_headers(stand, auth, good)).status == 200


async def test_a_token_in_the_query_opens_nothing(stand: Office) -> None:
    mine = Holder(stand)
    token = await mine.token()
    path = f"/mcp?access_token={token}"
    assert (await with_headers(stand, ("DPoP", mine.proof(token=token)), path=path)).status == 401
    assert (await mine.call(token, path=path)).status == 200  # it is ignored


# Sessions and streams


async def open_session(mine: Holder, token: str) -> str:
    stand = mine.stand
    reply = await stand.ask(post(stand.port, dump(initialize()), mine.headers(token)))
    assert reply.status == 200, reply
    return reply.headers["mcp-session-id"]


@pytest.mark.rule("AST-6", "RS-9")
async def test_attack_a_session_is_hijacked_without_a_proof(stand: Office) -> None:
    """Token and session id are stolen; only the key is not."""
    mine, thief = Holder(stand), Holder(stand, THEIRS)
    token = await mine.token()
    session = ("Mcp-Session-Id", await open_session(mine, token))
    message = dump(rpc("tools/call", {"name": "u__hello", "arguments": {}}, 7))
    for stolen in (
        [("Authorization", f"Bearer {token}")],
        [("Authorization", f"DPoP {token}")],
        thief.headers(token),
        [("Authorization", f"DPoP {token}"), ("DPoP", mine.proof("GET", token=token))],
    ):
        assert (await stand.ask(post(stand.port, message, [session, *stolen]))).status == 401
    assert (await stand.ask(post(stand.port, message, [session, *mine.headers(token)]))).status == 200


@pytest.mark.rule("AST-6", "RS-9")
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_attack_streams_and_ends_of_sessions_without_a_proof(stand: Office, method: str) -> None:
    mine, thief = Holder(stand), Holder(stand, THEIRS)
    token = await mine.token()
    session = ("Mcp-Session-Id", await open_session(mine, token))
    for stolen in (
        [("Authorization", f"Bearer {token}")],
        [("Authorization", f"DPoP {token}")],
        thief.headers(token, method),
        mine.headers(token, "POST"),  # a proof that was made for another method
    ):
        turned_away(
            await stand.get("/mcp", session, STREAM, *stolen, method=method),
            "invalid_token" if stolen[0][1].startswith("Bearer") else "invalid_dpop_proof",
        )
    made = mine.headers(token, method)
    async with await stand.connect() as wire:
        wire.send(stand.page("/mcp", session, STREAM, *made, method=method))
        assert (await wire.head())[0] == (200 if method == "GET" else 204)
    assert (await stand.get("/mcp", session, STREAM, *made, method=method)).status == 401  # used up


@pytest.mark.rule("AST-6", "RS-9")
async def test_attack_lines_of_the_old_transport_without_a_proof(stand: Office) -> None:
    mine, thief = Holder(stand), Holder(stand, THEIRS)
    token = await mine.token()
    for stolen in ([("Authorization", f"Bearer {token}")], thief.headers(token, "GET", "/sse")):
        assert (await stand.get("/sse", STREAM, *stolen)).status == 401
    async with await stand.connect() as wire:
        wire.send(stand.page("/sse", STREAM, *mine.headers(token, "GET", "/sse")))
        assert (await wire.head())[0] == 200
        where = (await wire.chunk()).split(b"data: ")[1].strip().decode()
        body = dump(initialize())
        for stolen in (
            [("Authorization", f"Bearer {token}")],
            [("Authorization", f"DPoP {token}")],
            thief.headers(token, path=where),
            mine.headers(token, path="/sse"),
        ):
            assert (await stand.ask(post(stand.port, body, stolen, path=where))).status == 401
        assert (await stand.ask(post(stand.port, body, mine.headers(token, path=where), path=where))).status == 202
        assert (await wire.event())["result"]["serverInfo"]["name"] == "callgate"


async def test_a_modern_subscription_with_its_proof(stand: Office) -> None:
    mine = Holder(stand)
    token = await mine.token()
    message = modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
    for headers, expected in (([("Authorization", f"Bearer {token}")], 401), (mine.headers(token), 200)):
        async with await stand.connect() as wire:
            wire.send(stand.request(message, *headers))
            assert (await wire.head())[0] == expected


# Other doors


async def test_attack_a_bound_token_at_doors_where_nothing_can_be_proved(stand: Office) -> None:
    """stdio and the admin listener."""
    mine = Holder(stand)
    token = await mine.token()
    foreign = stand.user(cnf={"jkt": MINE.thumbprint()}, roles=["admin"])
    assert (await mine.call(token)).status == 200  # it is known now
    for each in (token, foreign):
        for scheme in (b"Bearer ", b"DPoP "):
            with pytest.raises(Unauthenticated):
                await stand.house.recogniser.recognise(scheme + each.encode())
    admin = int(stand.gateway.admin_url.rpartition(":")[2])
    for headers in ([("Authorization", f"Bearer {foreign}")], Holder(stand).headers(foreign, "GET", "/api/v1/servers")):
        request = stand.page("/api/v1/servers", *headers).replace(b":%d\r\n" % stand.port, b":%d\r\n" % admin)
        reader, writer = await asyncio.open_connection("127.0.0.1", admin)
        writer.write(request)
        assert b" 401 " in await asyncio.wait_for(reader.readline(), 5)
        writer.close()


@pytest.mark.rule("AST-6")
async def test_tokens_of_providers_that_are_bound(stand: Office) -> None:
    mine, thief = Holder(stand), Holder(stand, THEIRS)
    token = stand.user(cnf={"jkt": mine.jkt})
    assert (await mine.call(token)).status == 200
    turned_away(await stand.call_with(token), "invalid_token")
    turned_away(await thief.call(token))
    odd: tuple[Any, ...] = (
        {}, {"jkt": ""}, {"jkt": 7}, {"kid": "x"}, {"jwk": {"kty": "EC"}}, {"jkt": mine.jkt, "kid": "x"}, [], "x", 7,
        {"x5t#S256": "A" * 43},
    )  # fmt: skip
    for cnf in odd:
        for reply in (await mine.call(stand.user(cnf=cnf)), await stand.call_with(stand.user(cnf=cnf))):
            assert reply.status == 401, cnf


@pytest.mark.key("identity.oauth.dpop")
@pytest.mark.rule("AST-6")
async def test_where_only_bound_tokens_are_accepted(tmp_path: Path) -> None:
    async with office(tmp_path, {"oauth": {"dpop": "accepted"}}) as stand:
        before, user = await stand.own("planner"), stand.user()
        assert [(await stand.call_with(each)).status for each in (before, user)] == [200, 200]
        who = await stand.house.recogniser.recognise(b"Bearer " + user.encode())
        await stand.reload(identity=stand.identity(oauth={"dpop": "required"}))
        assert not stand.house.recogniser.holds(who), "what runs for long ends"
        for token in (before, user):
            turned_away(await stand.call_with(token), "invalid_token")
        # A token that was handed over in an exchange is not a way in afterwards.
        mine = Holder(stand)
        form = {"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token": user}
        form["subject_token_type"] = "urn:ietf:params:oauth:token-type:access_token"
        bound = await mine.token("planner", **form)
        turned_away(await stand.call_with(user), "invalid_token")
        assert (await mine.call(bound)).status == 200


async def test_a_bound_token_that_was_looked_at_is_no_way_in(stand: Office) -> None:
    """The memory of verified tokens: a bound one is in none that a header alone opens."""
    token = await Holder(stand).token()
    recogniser = stand.house.recogniser
    header = b"Bearer " + token.encode()
    assert (await recogniser.whose(header)).subject == "agent:planner"
    assert recogniser.known(header) is None and recogniser.known(b"DPoP " + token.encode()) is None
    turned_away(await stand.call_with(token), "invalid_token")


@pytest.mark.rule("TOK-2")
async def test_a_bound_token_ends_when_it_is_revoked(stand: Office) -> None:
    mine = Holder(stand)
    token, foreign = await mine.token(), stand.user(cnf={"jkt": mine.jkt})
    assert [(await mine.call(each)).status for each in (token, foreign)] == [200, 200]
    stand.house.recogniser.revoke(stand.idp.issuer, "alice")
    await stand.post({"token": token}, path="/oauth/revoke", client="planner")
    assert [(await mine.call(each)).status for each in (token, foreign)] == [401, 401]


@pytest.mark.key("identity.oauth.dpop_nonce")
@pytest.mark.rule("AST-6")
async def test_where_nonces_are_wanted(tmp_path: Path) -> None:
    async with office(tmp_path, {"oauth": {"dpop_nonce": True}}) as stand:
        mine = Holder(stand)
        nonce = (await mine.ask("planner")).headers["dpop-nonce"]
        token = (await mine.ask("planner", mine.proof(path="/oauth/token", nonce=nonce))).json["access_token"]
        reply = await mine.call(token)
        turned_away(reply, "use_dpop_nonce")
        again = mine.proof(token=token, nonce=reply.headers["dpop-nonce"])
        assert (await mine.call(token, proof=again)).status == 200
        session = await stand.get("/mcp", STREAM, *mine.headers(token, "GET"))
        turned_away(session, "use_dpop_nonce")
        assert session.headers["dpop-nonce"] == nonce


@pytest.mark.rule("AST-6")
async def test_attack_a_flood_of_proofs_of_one_key(stand: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = stand.house.recogniser._holding
    assert memory is not None
    memory.replays = replays.Replays(memory.replays._clock, most=40, most_of_one=20)
    mine, flood = Holder(stand), Holder(stand, ec_key("flood"))
    token, other = await mine.token(), await flood.token("coder")
    made = mine.proof(token=token)
    assert (await mine.call(token, proof=made)).status == 200
    statuses = [(await flood.call(other)).status for _ in range(25)]
    assert statuses == [200] * 20 + [400] * 5
    turned_away(await mine.call(token, proof=made))  # still known
    assert (await mine.call(token)).status == 200


async def test_pages_of_browsers_may_read_the_nonce(tmp_path: Path) -> None:
    async with office(tmp_path, allowed_origins=["https://app.example.org"]) as stand:
        reply = await with_headers(stand, ("Origin", "https://app.example.org"))
        assert "dpop-nonce" in reply.headers["access-control-expose-headers"]


def test_headers_that_count_once_are_checked_at_the_gate() -> None:
    from callgate.gateway.gate import SINGLE

    assert {b"dpop", b"client-cert", b"x-forwarded-client-cert"} <= SINGLE
    assert Names("127.0.0.1", 1, (), ()).host(b"127.0.0.1")

"""Attacks with what the token service says and keeps: laundered chains, borrowed names, settings of yesterday."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from callgate.errors import ConfigError
from callgate.gateway.stdio import StdioFront
from callgate.identity import hash_key
from callgate.identity.oauth import marks
from callgate.identity.oauth.marks import Revocations, Seen
from callgate.identity.oauth.signing import SigningKeys
from tests.fuzz.messages import dump, initialize, modern, post
from tests.identity.oauth.office import (
    ASSERTION,
    Office,
    assertion,
    basic,
    claims_of,
    error_of,
    office,
    token_in,
)
from tests.identity.provider import Clock, sign, until

pytestmark = pytest.mark.anyio
OWN = {"grant_type": "client_credentials"}
INVALID_CLIENT, GRANT = (401, "invalid_client"), (400, "invalid_grant")


async def status(stand: Office, token: str) -> int:
    return (await stand.call_with(token)).status


@pytest.mark.rule("DEL-10")
async def test_an_exchange_does_not_wash_off_what_a_foreign_token_asserted(stand: Office) -> None:
    rules = [
        {"id": "devs", "allow": ["*/*"], "to": {"roles": ["dev"]}},
        {"id": "no-rogues", "deny": ["*/*"], "chain_any": {"subjects": ["agent:rogue"]}},
        {"id": "none-now", "deny": ["*/*"], "to": {"agents": ["agent:now"]}},
    ]
    await stand.reload(policy={"version": 1, "default": "deny", "rules": rules})
    for act, rule in (({"sub": "x", "act": {"sub": "agent:rogue"}}, "no-rogues"), ({"sub": "agent:now"}, "none-now")):
        token = await stand.through("planner", "coder", subject=stand.user(act=act))
        assert "error" in (await stand.call_with(token)).json
        last = (await stand.records())[-1]
        assert last["rule"] == rule and last["asserted"][0]["iss"] == stand.idp.issuer
        assert [each["sub"] for each in last["chain"]] == ["agent:planner", "agent:coder"]
    assert "result" in (await stand.call_with(await stand.through("planner"))).json


async def test_nobody_but_us_says_who_is_an_agent_of_ours(stand: Office) -> None:
    rules = [{"id": "planners", "allow": ["*/*"], "to": {"agents": ["agent:*"]}}]
    await stand.reload(policy={"version": 1, "default": "deny", "rules": rules})
    for name in ("agent:planner", "agent:anything"):
        user = stand.user(sub=name)
        assert await status(stand, user) == 401
        assert error_of(await stand.exchange("planner", user)) == GRANT
    assert "result" in (await stand.call_with(await stand.own("planner"))).json


async def test_a_name_of_the_providers_own_does_not_consent(stand: Office) -> None:
    for other in ({"sub": "outsider"}, {"client_id": "outsider"}, {"sub": "agent:outsider", "client_id": "outsider"}):
        assert error_of(await stand.exchange("outsider", stand.user(may_act=other))) == GRANT
    ours = stand.user(may_act={"client_id": "outsider", "iss": stand.base})
    assert (await stand.exchange("outsider", ours)).status == 200


async def test_claims_of_foreign_tokens_that_only_ours_have(stand: Office) -> None:
    strange: dict[str, Any] = {"parents": 7, "asserted": "x", "txn": ["x"], "jti": 7}
    claims = claims_of(await stand.through("planner", subject=stand.user(**strange)))
    assert not claims.keys() & {"parents", "asserted"} and isinstance(claims["txn"], str)


async def test_a_provider_that_is_removed_takes_its_users_agents_along(stand: Office) -> None:
    token, own = await stand.through("planner", "coder"), await stand.own("planner")
    registry = stand.identity(jwt=[])
    registry["agents"]["planner"]["acts_for"] = []
    await stand.reload(identity=registry)
    assert [await status(stand, each) for each in (token, own)] == [401, 200]
    assert error_of(await stand.exchange("tester", token)) == INVALID_CLIENT
    assert error_of(await stand.exchange("coder", token)) == GRANT


async def holds(stand: Office, token: str) -> Any:
    who = await stand.house.recogniser.recognise(b"Bearer " + token.encode())
    return lambda: stand.house.recogniser.holds(who)


@pytest.mark.rule("RS-9")
async def test_what_runs_for_long_ends_with_the_agent(stand: Office) -> None:
    checks = [await holds(stand, await stand.own("planner")), await holds(stand, await stand.through("planner"))]
    assert [check() for check in checks] == [True, True]
    registry = stand.identity()
    registry["agents"]["planner"]["roles"] = ["intern"]
    await stand.reload(identity=registry)
    assert [check() for check in checks] == [False, False]  # it stands for other roles
    await stand.reload(identity=stand.identity())
    assert [check() for check in checks] == [True, True]
    del registry["agents"]["planner"]
    registry["agents"]["coder"]["may_delegate_to"] = []
    await stand.reload(identity=registry)
    assert [check() for check in checks] == [False, False]
    await stand.reload(identity=stand.identity(oauth=None))
    assert [check() for check in checks] == [False, False]


@pytest.mark.rule("RS-9", "TOK-2")
async def test_what_runs_for_long_ends_with_its_token(stand: Office) -> None:
    token = await stand.through("planner")
    check = await holds(stand, await stand.through("coder", subject=token))
    assert check() is True
    await stand.post({"token": token}, path="/oauth/revoke", client="planner")
    assert check() is False


async def test_a_pipe_does_not_outlive_its_agent(stand: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    who = await stand.house.recogniser.recognise(b"Bearer " + (await stand.own("planner")).encode())
    told = io.BytesIO()
    front = StdioFront(stand.house, who, "", (io.BytesIO(), told))
    registry = stand.identity()
    registry["agents"]["planner"]["status"] = "suspended"
    await stand.reload(identity=registry)
    sent: list[bytes] = []
    monkeypatch.setattr(front, "_send", sent.append)
    await front._answer({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, 10)
    assert b"does not hold any more" in sent[0]


@pytest.mark.rule("RS-9", "TOK-2")
@pytest.mark.parametrize("how", ["suspended", "revoked", "in good standing"])
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_an_open_stream_says_nothing_more_to_an_agent_that_is_gone(stand: Office, era: str, how: str) -> None:
    token = await stand.through("planner")
    auth = ("Authorization", f"Bearer {token}")
    if era == "legacy":
        session = (await stand.ask(post(stand.port, dump(initialize()), [auth]))).headers["mcp-session-id"]
        request = stand.page("/mcp", auth, ("Mcp-Session-Id", session), ("Accept", "text/event-stream"))
    else:
        request = stand.request(modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}}), auth)
    async with await stand.connect() as wire:
        wire.send(request)
        assert (await wire.head())[0] == 200 and await wire.chunk()
        registry = stand.identity()
        if how == "suspended":
            registry["agents"]["planner"]["status"] = "suspended"
        elif how == "revoked":
            await stand.post({"token": token}, path="/oauth/revoke", client="planner")
        await stand.reload(identity=registry, policy={"version": 1, "rules": []})
        said = await wire.chunk()
        if how == "in good standing":
            assert b"list_changed" in said
            return
        while said:
            assert b"list_changed" not in said
            said = await wire.chunk()


async def test_a_revocation_is_recorded(stand: Office) -> None:
    token = await stand.through("planner")
    await stand.post({"token": token}, path="/oauth/revoke", client="outsider")  # not its own: nothing happens
    await stand.post({"token": token}, path="/oauth/revoke", client="planner")
    found = [each for each in await stand.records() if each["method"] == "oauth/revoke"]
    assert [(each["subject"], each["outcome"]) for each in found] == [("alice", "ok")]
    assert claims_of(token)["jti"] not in str(found) and token not in str(found)


async def test_an_assertion_that_is_for_somebody_else_too(stand: Office) -> None:
    form = {**OWN, "client_assertion_type": ASSERTION}
    for audience in ([stand.base, "https://elsewhere.example"], [stand.base, stand.base], [], [[stand.base]]):
        made = assertion(audience)  # type: ignore[arg-type]
        assert error_of(await stand.post({**form, "client_assertion": made})) == INVALID_CLIENT
    token_in(await stand.post({**form, "client_assertion": assertion([stand.base])}))  # type: ignore[arg-type]


async def test_what_signs_for_upstreams_opens_nothing_here(stand: Office) -> None:
    """A server that is told who calls (a signed assertion, by the same keys) cannot come back with that."""
    own = stand.house.recogniser.own
    assert own is not None
    key = own._keys.signer()
    claims = claims_of(await stand.own("planner"))
    for kind in ("JWT", "jwt", "application/at+jwt", "AT+JWT", None):
        header = {"alg": "ES256", "kid": key.kid, **({"typ": kind} if kind else {})}
        assert await status(stand, sign(key.key, header, claims)) == 401


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "127.0.0.1@evil.example"]
)
async def test_the_host_of_a_request_is_in_no_document(stand: Office, host: str) -> None:
    await stand.reload(allowed_hosts=["evil.example"])
    for path in (
        "/.well-known/oauth-authorization-server", "/.well-known/oauth-protected-resource/mcp", "/oauth/jwks", "/mcp",
    ):  # fmt: skip
        more = f"Host: {host}\r\nX-Forwarded-Host: evil.example\r\nForwarded: host=evil.example\r\n"
        reply = await stand.ask(f"GET {path} HTTP/1.1\r\n{more}\r\n".encode())
        assert b"evil" not in reply.body and "evil" not in reply.headers.get("www-authenticate", "")


@pytest.mark.parametrize(
    "path",
    [
        "/mcp/../mcp/coder", "/mcp/./coder", "/mcp//coder", "/mcp/coder/", "/mcp%2Fcoder", "/mcp%2fcoder", "/MCP/coder",
        "/mcp/%63oder", "/mcp/coder%2F..", "/mcp;/coder", "/mcp/coder;x", "//mcp/coder", "/mcp/coder?x=/mcp",
        "/servers/u/mcp/", "/servers/%75/mcp", "/servers/u/../../mcp/coder", "/mcp/coder/../../servers/u/mcp",
    ],
)  # fmt: skip
async def test_no_spelling_of_a_path_takes_a_token_to_another_endpoint(stand: Office, path: str) -> None:
    everything = await stand.own("planner")
    for tool in ("u__hello", "hello"):
        assert (await stand.call_with(everything, tool, path)).status in (400, 401, 404)


async def test_two_authorization_headers(stand: Office) -> None:
    reply = await stand.post(OWN, ("Authorization", basic("outsider", "x")), ("Authorization", basic("planner")))
    assert reply.status in (400, 401)


async def test_a_stranger_does_not_use_up_the_memory_of_assertions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marks, "MOST", 3)
    clock = Clock()
    seen = Seen(tmp_path / "seen", clock)
    taken = [seen.take("noisy", str(number), clock.now + 100) for number in range(5)]
    assert taken == [True, True, True, False, False]  # where it cannot be remembered it does not count
    assert seen.take("quiet", "0", clock.now + 100)
    again = Seen(tmp_path / "seen", clock)  # nor after a restart
    assert not again.take("noisy", "9", clock.now + 100) and again.take("quiet", "1", clock.now + 100)


def test_a_mark_that_a_crash_left_unfinished_counts_and_goes(tmp_path: Path) -> None:
    clock = Clock()
    seen = Seen(tmp_path, clock)
    assert seen.take("a", "x", clock.now + 100)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"")
    clock.now = time.time() + 3000
    assert not Seen(tmp_path, clock).take("a", "x", clock.now + 100)
    clock.now += 1000
    assert Seen(tmp_path, clock).take("a", "x", clock.now + 100)


async def test_calls_do_not_wait_while_revocations_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    one, other = Revocations(tmp_path / "r", clock), Revocations(tmp_path / "r", clock)
    other.poll()
    read, threads = marks._read, []
    go_on = threading.Event()

    def slowly(entry: os.DirEntry[str]) -> tuple[float, float]:
        threads.append(threading.current_thread().name)
        go_on.wait(20)
        return read(entry)

    monkeypatch.setattr(marks, "_read", slowly)
    one.add("jti:a", clock.now + 300)
    clock.now += 1
    assert other.poll() == 0 and not other.covers(["a"], [], 0)  # it returns, whatever the disk does
    await until(lambda: bool(threads))
    go_on.set()
    await until(lambda: other.poll() != 0)
    assert other.covers(["a"], [], 0) and set(threads) == {"revocations"}
    one.add("jti:b", clock.now + 300)
    other.look()
    assert other.covers(["b"], [], 0) and len(threads) == 2  # what was read is not read again


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
async def test_a_folder_of_keys_that_others_can_write_to(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match="Others can write"):
        SigningKeys(folder, 86400.0, Clock()).refresh()


async def test_anonymous_callers_are_no_way_around_a_token(tmp_path: Path) -> None:
    async with office(tmp_path, {"anonymous": True}) as stand:
        coder = await stand.own("planner", resource="/mcp/coder")
        for token in (coder, coder + "x", "x"):
            assert (await stand.call_with(token)).status == 401
        assert "error" in (await stand.modern("tools/call", {"name": "u__hello", "arguments": {}})).json
        assert error_of(await stand.post(OWN)) == INVALID_CLIENT


async def test_one_party_of_a_chain_does_not_lend_its_roles_to_another(tmp_path: Path) -> None:
    """``to.roles`` is about the user: neither does the agent lend its roles to the user, nor the user to the agent."""
    async with office(tmp_path) as stand:
        rules = [
            {"id": "planners", "allow": ["*/hello"], "to": {"roles": ["planner"]}},
            {"id": "both", "allow": ["*/delete_all"], "to": {"roles": ["lead"], "agents": ["agent:coder"]}},
        ]
        await stand.reload(policy={"version": 1, "default": "deny", "rules": rules})
        alice, lead = stand.user(), stand.user(roles=["lead"])
        assert "error" in (await stand.call_with(await stand.through("planner", subject=alice))).json
        assert "result" in (await stand.call_with(await stand.own("planner"))).json
        for subject, agents, done in (
            (alice, ("planner", "coder"), "error"),
            (lead, ("planner",), "error"),
            (lead, ("planner", "coder"), "result"),
        ):
            token = await stand.through(*agents, subject=subject)
            assert done in (await stand.call_with(token, "u__delete_all")).json
        assert "error" in (await stand.call_with(lead, "u__delete_all")).json


async def test_no_pattern_covers_the_gateway_as_a_whole(stand: Office) -> None:
    registry = stand.identity()
    for globs, answer in ((["/*"], 400), (["*"], 400), (["/*", "/"], 200)):
        registry["agents"]["planner"]["audiences"] = globs
        await stand.reload(identity=registry)
        assert (await stand.post({**OWN, "resource": "/"}, client="planner")).status == answer
        assert (await stand.post({**OWN, "resource": "/mcp/coder"}, client="planner")).status == 200


async def test_a_rule_may_look_at_the_scopes_of_a_call(stand: Office) -> None:
    """As the page says."""
    page = (Path(__file__).parents[3] / "docs" / "identity.md").read_text()
    condition = json.loads(page.partition("`when: ")[2].partition("`")[0])
    rules = [{"id": "writers", "allow": ["*/*"], "to": {"roles": ["dev"]}, "when": condition}]
    await stand.reload(policy={"version": 1, "default": "deny", "rules": rules})
    assert "result" in (await stand.call_with(await stand.through("planner"))).json
    assert "error" in (await stand.call_with(await stand.through("planner", scope="read"))).json


@pytest.mark.key("identity.agents.status")
async def test_a_suspended_agent_does_not_come_in_with_a_static_key(stand: Office) -> None:
    key = {"subject": "agent:planner", "sha256": hash_key("a-key"), "roles": ["planner"]}
    await stand.reload(identity=stand.identity(keys=[key]))
    check = await holds(stand, "a-key")
    assert check() is True and "result" in (await stand.call_with("a-key")).json
    registry = stand.identity(keys=[key])
    registry["agents"]["planner"]["status"] = "suspended"
    await stand.reload(identity=registry)
    assert check() is False and await status(stand, "a-key") == 401


async def test_no_condition_sees_what_others_assert(stand: Office) -> None:
    when = "has(caller.claims.asserted) || has(caller.claims.act)"
    rules = [{"id": "vouched", "allow": ["*/*"], "to": {"roles": ["dev"]}, "when": when}]
    await stand.reload(policy={"version": 1, "default": "deny", "rules": rules})
    user = stand.user(act={"sub": "agent:friend"})
    for token in (user, await stand.through("planner", subject=user)):
        assert "error" in (await stand.call_with(token)).json


@pytest.mark.rule("RS-7")
@pytest.mark.parametrize("path", ["/sse", "/mcp/coder/sse", "/servers/u/sse"])
async def test_the_old_transport_asks_for_the_endpoint_of_a_token_too(stand: Office, path: str) -> None:
    ends = {"/sse": "/mcp", "/mcp/coder/sse": "/mcp/coder", "/servers/u/sse": "/servers/u/mcp"}
    for audience in ends.values():
        auth = ("Authorization", f"Bearer {await stand.own('planner', resource=audience)}")
        async with await stand.connect() as wire:
            wire.send(stand.page(path, auth, ("Accept", "text/event-stream")))
            assert (await wire.head())[0] == (200 if audience == ends[path] else 401)

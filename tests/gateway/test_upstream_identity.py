"""Identity to the upstream, end to end: the server's own log shows who called (docs/upstream-identity.md)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from joserfc.jwk import ECKey, Key

from tests.fuzz.messages import modern
from tests.fuzz.raw import Reply
from tests.gateway.stand import Stand, allow, keys, refused, until
from tests.identity.oauth.office import office
from tests.identity.provider import Clock, Provider, ec_key
from tests.servers.lakehouse import CLIENT, SECRET, Lake, checked, published
from tests.servers.mcp_http import LegacyServer, ModernServer, error_of, result_of
from tests.servers.mcp_sse import SseServer
from tests.servers.raw_http import Handler, Peer, RawServer, Request

pytestmark = pytest.mark.anyio
US = "https://gate.example.org"


class Scene:
    """A gateway, people with tokens of an identity provider, and a lakehouse."""

    def __init__(self, folder: Path, idp: Provider, lake: Lake) -> None:
        self.folder = folder
        self.idp = idp
        self.lake = lake

    def token(self, sub: str, **claims: Any) -> str:
        return self.idp.token(ec_key("idp"), sub=sub, **{"aud": ["callgate", self.lake.issuer], **claims})

    def as_(self, sub: str, **claims: Any) -> tuple[str, str]:
        return "Authorization", f"Bearer {self.token(sub, **claims)}"

    async def call(self, stand: Stand, sub: str, **claims: Any) -> Reply:
        return await stand.ask(stand.request(calling("lake__echo"), self.as_(sub, **claims)))

    @contextlib.asynccontextmanager
    async def stand(self, entry: dict[str, Any], **more: Any) -> AsyncIterator[Stand]:
        settings: dict[str, Any] = {
            "public_url": US,
            "identity": {
                "keys": keys("ci", roles=["robot"]),
                "jwt": [{"issuer": self.idp.issuer, "audience": "callgate", "jwks_uri": self.idp.jwks_uri}],
            },
            "policy": {"version": 1, "rules": [allow("*/*")]},
        }
        async with Stand(self.folder, {"lake": entry, **more.pop("servers", {})}, **settings, **more) as stand:
            yield stand


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    clock = Clock()
    async with Provider(clock, ec_key("idp")) as idp:
        ours = published(tmp_path / "data")
        theirs: dict[str, Key] = {"idp": ec_key("idp")}
        async with Lake({US: ours, CLIENT: ours, idp.issuer: lambda: theirs}) as lake:
            yield Scene(tmp_path, idp, lake)


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_SECRET", SECRET)


def own(scene: Scene, type: str = "exchange", **more: Any) -> dict[str, Any]:
    """The caller's own token is exchanged."""
    more = {"subject_issuers": [scene.idp.issuer], **more}
    return scene.lake.config(type, client_secret="env:LAKE_SECRET", subject_token="caller", **more)


def everything(stand: Stand, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> str:
    """What a reader of logs and records could find."""
    files = [path.read_bytes().decode("latin-1") for path in (stand.folder / "data").rglob("*") if path.is_file()]
    said = capsys.readouterr()
    kept = [text for text in files if '"d":' not in text]  # but not our own private keys
    return "\n".join([*kept, caplog.text, said.out, said.err, json.dumps(stand.rows())])


# Who stands in the server's own log.


@pytest.mark.rule("RS-8", "OC-4")
@pytest.mark.key("servers.auth.type", "servers.auth.token_endpoint", "servers.auth.client_id", "servers.auth.issuer")
async def test_the_log_of_the_server_shows_the_user(scene: Scene) -> None:
    async with scene.stand(scene.lake.config("exchange")) as stand:
        for name in ("alice", "bob", "alice"):
            assert (await scene.call(stand, name)).status == 200
    assert scene.lake.who() == [f"{scene.idp.issuer}#{name}" for name in ("alice", "bob", "alice")]
    assert scene.lake.who("tools/list") == [CLIENT]
    kinds = [form["grant_type"].rpartition(":")[2] for form in scene.lake.forms]
    assert kinds == ["client_credentials", "token-exchange", "token-exchange"]
    assert {form["resource"] for form in scene.lake.forms} == {scene.lake.mcp.url}
    assert {form["client_assertion_type"].rpartition(":")[2] for form in scene.lake.forms} == {"jwt-bearer"}
    assert not scene.lake.refusals


@pytest.mark.rule("RS-8", "SEC-7")
@pytest.mark.key("servers.auth.subject_token", "servers.auth.subject_issuers", "servers.auth.client_secret")
async def test_the_callers_own_token_goes_to_the_issuer_and_to_no_server(
    scene: Scene, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    bare = ModernServer()
    async with RawServer(bare) as beside:
        async with scene.stand(own(scene), servers={"beside": {"url": beside.url}}) as stand:
            token = scene.token("alice")
            for tool in ("lake__echo", "beside__echo"):
                reply = await stand.ask(stand.request(calling(tool), ("Authorization", f"Bearer {token}")))
                assert reply.status == 200, reply
            await stand.records(2)
            found = everything(stand, capsys, caplog)
        assert scene.lake.forms[-1]["subject_token"] == token
        assert scene.lake.who() == ["alice"]
        for request in (*scene.lake.mcp.requests, *beside.requests):
            assert token not in str(request)
        assert all("authorization" not in request.headers for request in beside.requests)
    for hidden in (token, SECRET, *scene.lake.minted):
        assert hidden not in found


async def test_without_auth_a_server_is_shown_nothing(scene: Scene) -> None:
    bare = ModernServer()
    async with RawServer(bare) as server, scene.stand({"url": server.url}) as stand:
        assert (await scene.call(stand, "alice")).status == 200
        assert all("authorization" not in request.headers for request in server.requests)
        assert not stand.house.credentials.tokens
        assert not (stand.folder / "data" / "oauth" / "keys").exists()


@pytest.mark.key("servers.auth.audience", "servers.auth.lifetime")
async def test_an_assertion_says_who_calls_and_under_which_call(scene: Scene) -> None:
    scene.lake.direct = True
    async with scene.stand(scene.lake.config("assertion", lifetime=20)) as stand:
        await scene.call(stand, "alice", roles=["analyst"], txn="t1")
        await stand.result("lake__echo", who="ci")
        ids = [row["id"] for row in await stand.records(2)]
    alice, robot = [entry for entry in scene.lake.log if entry["method"] == "tools/call"]
    assert (alice["sub"], alice["roles"], alice["txn"]) == (f"{scene.idp.issuer}#alice", ["analyst"], "t1")
    assert (robot["sub"], robot["roles"]) == ("ci", ["robot"])
    assert [alice["callgate_call"], robot["callgate_call"]] == ids
    assert {entry["iss"] for entry in scene.lake.log} == {US}
    assert {entry["aud"] for entry in scene.lake.log} == {scene.lake.origin}
    assert {entry["exp"] - entry["iat"] for entry in scene.lake.log} == {20}
    assert len({entry["jti"] for entry in scene.lake.log}) == len(scene.lake.log)
    assert {entry["sub"] for entry in scene.lake.log if entry["method"] != "tools/call"} == {"callgate"}


@pytest.mark.rule("RS-7")
async def test_an_assertion_opens_no_door_of_the_gateway(tmp_path: Path) -> None:
    ours = published(tmp_path / "data")
    async with Lake({US: ours}, direct=True) as lake:
        entry = {"u": lake.config("assertion")}
        async with office(tmp_path, servers=entry, public_url=US) as stand:
            token = await stand.through("planner")
            assert (await stand.call_with(token, "u__echo")).status == 200
            shown = [each.headers["authorization"].removeprefix("Bearer ") for each in lake.mcp.requests]
            for stolen in shown:
                refused(await stand.call_with(stolen, "u__echo"), 401)
                reply = await stand.exchange("planner", stolen)
                assert (reply.status, reply.json["error"]) == (400, "invalid_grant")


@pytest.mark.key("servers.auth.header")
@pytest.mark.rule("RS-8")
async def test_a_subject_cannot_write_headers(scene: Scene) -> None:
    subject = 'eve\r\nX-Admin: yes\r\n\r\n"é'
    entry = {**keys("eve")[0], "subject": subject}
    async with RawServer(ModernServer()) as server:
        url = {"url": server.url, "auth": {"type": "assertion", "header": "X-Caller"}}
        async with Stand(scene.folder, {"lake": url}, public_url=US, identity={"keys": [entry]}) as stand:
            assert (await stand.call("lake__echo", who="eve")).status == 200
        requests = server.requests
    (call,) = [each for each in requests if each.message["method"] == "tools/call"]
    assert all({"x-admin", "authorization"}.isdisjoint(each.headers) for each in requests)
    assert checked(call.headers["x-caller"], published(scene.folder / "data")())["sub"] == subject


@pytest.mark.key("servers.auth.subject_claim")
async def test_a_claim_may_name_the_caller(scene: Scene) -> None:
    async with scene.stand(scene.lake.config("exchange", subject_claim="email")) as stand:
        assert (await scene.call(stand, "alice", email="alice@example.org")).status == 200
        without = await scene.call(stand, "bob")
        assert without.error == -31403
        assert "claim `email`" in without.json["error"]["message"]
        records = await stand.records(2)
    assert scene.lake.who() == ["alice@example.org"]
    assert records[1]["outcome"] == "denied"
    assert "claim `email`" in records[1]["reason"]


@pytest.mark.key("servers.auth.scope", "servers.auth.resource")
async def test_on_behalf_of_in_the_way_of_entra(scene: Scene) -> None:
    entry = scene.lake.config(
        "on_behalf_of",
        client_secret="env:LAKE_SECRET",
        subject_issuers=[scene.idp.issuer],
        scope=["lake/.default", "x"],
    )
    async with scene.stand(entry) as stand:
        assert (await scene.call(stand, "alice")).status == 200
    form = scene.lake.forms[-1]
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    assert (form["requested_token_use"], form["scope"]) == ("on_behalf_of", "lake/.default x")
    assert "resource" not in form
    assert scene.lake.who() == ["alice"]


@pytest.mark.key("servers.auth.client_auth")
@pytest.mark.parametrize("way", ["client_secret_basic", "client_secret_post", "private_key_jwt"])
async def test_machine_to_machine_is_one_token_for_everybody(scene: Scene, way: str) -> None:
    more = {} if way == "private_key_jwt" else {"client_secret": "env:LAKE_SECRET"}
    async with scene.stand(scene.lake.config("client_credentials", client_auth=way, **more)) as stand:
        for name in ("alice", "bob"):
            assert (await scene.call(stand, name)).status == 200
    assert scene.lake.who() == [CLIENT, CLIENT]
    assert len(scene.lake.forms) == 1


@pytest.mark.parametrize("oauth", [None, {"issuer": "https://issuer.example.org"}])
async def test_the_keys_are_published(scene: Scene, oauth: dict[str, str] | None) -> None:
    scene.lake.direct = True
    us = US if oauth is None else oauth["issuer"]
    scene.lake.trusts = {us: published(scene.folder / "data")}
    identity = {"keys": keys("ci"), **({"oauth": oauth} if oauth else {})}
    entry = {"lake": scene.lake.config("assertion")}
    async with Stand(
        scene.folder, entry, public_url=US, identity=identity, policy={"version": 1, "rules": [allow("*/*")]}
    ) as stand:
        await stand.result("lake__echo", who="ci")
        reply = await stand.ask(stand.page("/oauth/jwks"))
        known = {each["kid"]: ECKey.import_key(each) for each in reply.json["keys"]}
        await stand.reload(servers={})
        assert (await stand.ask(stand.page("/oauth/jwks"))).status == (200 if oauth else 404)
    assert not {"d"} & {name for each in reply.json["keys"] for name in each}
    (call,) = [each for each in scene.lake.mcp.requests if each.message["method"] == "tools/call"]
    claims = checked(call.headers["authorization"].removeprefix("Bearer "), known)
    assert (claims["iss"], claims["sub"]) == (us, "ci")


async def test_the_exchange_of_callers_tokens_can_be_turned_on_while_running(scene: Scene) -> None:
    async with scene.stand(scene.lake.config("exchange")) as stand:
        alice = scene.as_("alice")
        await stand.ask(stand.request(calling("lake__echo"), alice))
        assert not stand.house.credentials.tokens
        await stand.reload(servers={"lake": own(scene)})
        await stand.house.warmed(5.0)

        await stand.ask(stand.request(calling("lake__echo"), alice))
    assert scene.lake.who() == [f"{scene.idp.issuer}#alice", "alice"]


# Whose token is used.


@pytest.mark.rule("OC-8")
async def test_nobody_gets_anothers_token(scene: Scene) -> None:
    names = [f"user{number}" for number in range(10)] * 3
    async with scene.stand(own(scene)) as stand:
        tokens = {name: scene.as_(name) for name in names}
        await asyncio.gather(*(stand.ask(stand.request(calling("lake__echo"), tokens[name])) for name in names))
        assert sorted(scene.lake.who()) == sorted(names)
        assert len(scene.lake.forms) == 1 + 10
        # Another token of the same person may carry less: it is exchanged by itself.
        await scene.call(stand, "user1", scope="less")
        assert len(scene.lake.forms) == 1 + 11


async def test_other_roles_are_another_token(scene: Scene) -> None:
    async with scene.stand(scene.lake.config("exchange")) as stand:
        await scene.call(stand, "alice", roles=["reader"])
        await scene.call(stand, "alice", roles=["reader"])
        await scene.call(stand, "alice", roles=["admin"])
    assert len(scene.lake.forms) == 1 + 2


@pytest.mark.rule("OC-8")
async def test_tokens_of_other_issuers_and_keys_are_not_exchanged(scene: Scene) -> None:
    async with scene.stand(own(scene, subject_issuers=["https://another.example"])) as stand:
        before = len(scene.lake.forms)
        for reply in (await scene.call(stand, "alice"), await stand.call("lake__echo", who="ci")):
            assert reply.error == -31403
            assert reply.json["error"]["data"]["kind"] == "identity"
        assert len(scene.lake.forms) == before
    assert scene.lake.who() == []


@pytest.mark.rule("TOK-2", "SEC-8")
async def test_a_revoked_principal_leaves_nothing(scene: Scene) -> None:
    async with scene.stand(own(scene)) as stand:
        alice = scene.as_("alice")
        assert (await stand.ask(stand.request(calling("lake__echo"), alice))).status == 200
        await scene.call(stand, "bob")
        kept = stand.house.upstreams._servers["lake"]._connector._credential.kept  # type: ignore[attr-defined]
        assert (len(kept), len(stand.house.credentials.tokens)) == (3, 2)
        stand.house.recogniser.revoke(scene.idp.issuer, "alice")
        assert (len(kept), len(stand.house.credentials.tokens)) == (2, 1)
        refused(await stand.ask(stand.request(calling("lake__echo"), alice)), 401)
        identity = {**stand.settings["identity"], "keys": keys("other")}
        await stand.reload(identity=identity)
        assert len(kept) == 0


@pytest.mark.rule("SEC-6")
async def test_fifty_calls_ask_the_issuer_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callgate.identity.upstream.kept.YOUNG", 0.0)
    async with scene.stand(scene.lake.config("exchange")) as stand:
        alice = scene.as_("alice")

        async def fifty() -> None:
            calls = (stand.ask(stand.request(calling("lake__echo"), alice)) for _ in range(50))
            assert {reply.status for reply in await asyncio.gather(*calls)} == {200}

        await fifty()
        assert len(scene.lake.forms) == 2
        # The server does not know it any more: one more token, and every call is made exactly once.
        scene.lake.revoked.add(scene.lake.minted[-1])
        await fifty()
        assert len(scene.lake.forms) == 3
    assert len(scene.lake.who()) == 100


# When there is no token.


@pytest.mark.rule("SEC-7")
@pytest.mark.parametrize("code", ["access_denied", "invalid_grant", "interaction_required"])
async def test_the_issuer_may_say_no(
    scene: Scene, code: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with scene.stand(own(scene)) as stand:
        scene.lake.mode = code
        token = scene.token("alice")
        reply = await stand.ask(stand.request(calling("lake__echo"), ("Authorization", f"Bearer {token}")))
        assert reply.error == -31403
        assert reply.json["error"]["data"] | {"callId": ""} == {"kind": "identity", "error": code, "callId": ""}
        assert reply.json["error"]["message"].startswith(
            f"Server `lake` gets no token for this caller: its issuer answered `{code}`"
        )
        (record,) = await stand.records(1)
        assert (record["outcome"], record["rule"]) == ("denied", "allowed")
        assert code in record["reason"]
        assert token not in everything(stand, capsys, caplog) + reply.body.decode()
        # It is no state: another token of hers, and an issuer that says yes.
        scene.lake.mode = "well"
        assert (await scene.call(stand, "alice", n=1)).status == 200
    assert scene.lake.who() == ["alice"]


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("garbage", "the token endpoint answered something else"),
        ("redirect", "redirects (307), which callgate does not follow"),
        ("invalid_client", "its issuer answered `invalid_client` (400)"),
        ("hang", "got no token of its issuer in time"),
    ],
)
async def test_an_issuer_that_is_unwell_fails_its_server_only(scene: Scene, mode: str, says: str) -> None:
    async with RawServer(ModernServer()) as beside:
        entry = {**own(scene), "call_timeout": 0.5}
        async with scene.stand(entry, servers={"beside": {"url": beside.url}}) as stand:
            scene.lake.mode = mode
            waiting = [asyncio.create_task(scene.call(stand, f"user{number}")) for number in range(20)]
            await until(lambda: len(scene.lake.forms) > 1)
            alice = scene.as_("alice")
            assert (await stand.ask(stand.request(calling("beside__echo"), alice))).status == 200
            replies = await asyncio.gather(*waiting)
            assert {reply.error for reply in replies} == {-31504 if mode == "hang" else -31502}
            assert all(says in reply.json["error"]["message"] for reply in replies)
            assert {row["outcome"] for row in await stand.records(21)} == {
                "ok",
                "timeout" if mode == "hang" else "failed",
            }
    assert scene.lake.who() == []


async def test_an_issuer_that_refuses_callgate_itself_says_so(scene: Scene) -> None:
    scene.lake.mode = "access_denied"
    async with scene.stand(scene.lake.config("exchange")) as stand:
        (status,) = stand.house.statuses()
        assert status.reason == "gets no token for callgate itself: its issuer answered `access_denied`"


@pytest.mark.rule("RS-7")
async def test_a_token_for_another_audience_is_refused_by_the_server(scene: Scene) -> None:
    async with scene.stand(scene.lake.config("exchange")) as stand:
        scene.lake.wrong_audience = True
        reply = await scene.call(stand, "alice")
        assert reply.error == -31502
        assert "refused callgate's credentials (HTTP 401)" in reply.json["error"]["message"]
    assert scene.lake.refusals == ["for https://another.example"]  # once: a fresh token would be no better
    assert scene.lake.who() == []


@pytest.mark.rule("SEC-7")
@pytest.mark.parametrize("streams", [False, True])
async def test_a_server_that_repeats_the_token_tells_it_to_nobody(scene: Scene, streams: bool) -> None:
    scene.lake.server = Telltale(streams)
    async with scene.stand(scene.lake.config("exchange")) as stand:
        for tool in ("lake__echo", "lake__fail"):
            reply = await stand.ask(stand.request(calling(tool), scene.as_("alice")))
            assert b"Bearer ********" in reply.body
            assert scene.lake.minted[-1].encode() not in reply.body
        assert scene.lake.minted[-1] not in json.dumps(await stand.records(2))


@pytest.mark.rule("RS-8")
async def test_a_redirect_gets_no_token(scene: Scene) -> None:
    async with RawServer(ModernServer()) as elsewhere:
        scene.lake.server = Redirecting(elsewhere.url)
        async with scene.stand(scene.lake.config("exchange")) as stand:
            reply = await scene.call(stand, "alice")
            assert "does not follow redirects" in reply.json["error"]["message"]
        assert not elsewhere.requests


# Through agents.


@pytest.mark.rule("DEL-11", "RS-8")
@pytest.mark.parametrize("legacy", [False, True])
async def test_the_server_sees_the_user_and_every_agent(tmp_path: Path, legacy: bool) -> None:
    ours = published(tmp_path / "data")
    server: Handler = LegacyServer() if legacy else ModernServer()
    async with Lake({CLIENT: ours}, server=server) as lake:
        async with office(tmp_path, servers={"u": lake.config("exchange")}) as stand:
            lake.trusts = {CLIENT: ours, stand.base: ours}
            planner = await stand.through("planner")
            coder = await stand.through("coder", subject=planner, scope="read")
            for token in (planner, coder, coder):
                assert (await stand.call_with(token, "u__echo")).status == 200
        calls = [entry for entry in lake.log if entry["method"] == "tools/call"]
        assert {entry["sub"] for entry in calls} == {f"{stand.idp.issuer}#alice"}
        mine = {"sub": "agent:planner", "iss": stand.base}
        both = {"sub": "agent:coder", "iss": stand.base, "act": mine}
        assert [entry["act"] for entry in calls] == [mine, both, both]
        assert calls[1]["n"] == calls[2]["n"] != calls[0]["n"]
        assert not lake.refusals
        for request in lake.mcp.requests:
            assert planner not in str(request)
            assert coder not in str(request)


async def test_callgates_own_tokens_are_not_given_to_the_users_provider(tmp_path: Path) -> None:
    ours = published(tmp_path / "data")
    async with Lake({CLIENT: ours}) as lake:
        async with office(tmp_path) as stand:
            entry = lake.config("exchange", subject_token="caller", subject_issuers=[stand.idp.issuer])
            await stand.reload(servers={"u": entry})
            await stand.house.warmed(5.0)
            reply = await stand.call_with(await stand.through("planner"), "u__echo")
            assert reply.error == -31403
            kept = [held[0] for held in stand.house.credentials.tokens._tokens.values()]
            issuers = {msgspec.json.decode(urlsafe_b64decode(each.split(b".")[1] + b"=="))["iss"] for each in kept}
            assert issuers <= {stand.idp.issuer}
        assert [form["grant_type"] for form in lake.forms] == ["client_credentials"]


# Servers that keep sessions.


async def test_a_legacy_session_is_its_owners(scene: Scene) -> None:
    scene.lake.server = LegacyServer(listens=True)
    async with scene.stand(scene.lake.config("exchange")) as stand:
        for name in ("alice", "bob", "alice"):
            assert (await scene.call(stand, name)).status == 200
        me = {name: f"{scene.idp.issuer}#{name}" for name in ("alice", "bob")}
        assert scene.lake.who() == [me["alice"], me["bob"], me["alice"]]
        assert scene.lake.who("initialize") == [CLIENT, me["alice"], me["bob"]]
        assert scene.lake.who("notifications/initialized") == [CLIENT, me["alice"], me["bob"]]
    assert sorted(scene.lake.who("DELETE")) == sorted([CLIENT, *me.values()])
    assert scene.lake.who("tools/list") == [CLIENT]


async def test_a_session_ends_as_its_owner_was_seen_last(scene: Scene) -> None:
    scene.lake.server = LegacyServer()
    scene.lake.direct = True
    async with scene.stand(scene.lake.config("assertion")) as stand:
        for role in ("reader", "admin"):
            assert (await scene.call(stand, "alice", roles=[role])).status == 200
    sub = f"{scene.idp.issuer}#alice"
    mine = [(entry["method"], entry["roles"]) for entry in scene.lake.log if entry["sub"] == sub]
    assert mine == [
        ("initialize", ["reader"]),
        ("notifications/initialized", ["reader"]),
        ("tools/call", ["reader"]),
        ("tools/call", ["admin"]),
        ("DELETE", ["admin"]),
    ]


async def test_the_messages_of_http_sse_are_its_owners(scene: Scene) -> None:
    scene.lake.server = SseServer()
    async with scene.stand({**scene.lake.config("exchange"), "type": "sse"}) as stand:
        for name in ("alice", "bob", "alice"):
            assert (await scene.call(stand, name)).status == 200
        me = {name: f"{scene.idp.issuer}#{name}" for name in ("alice", "bob")}
        assert scene.lake.who() == [me["alice"], me["bob"], me["alice"]]
        assert scene.lake.who("GET") == [CLIENT, me["alice"], me["bob"]]
        # A session cannot tell calls apart: with other roles it would say something that is not true.
        other = await scene.call(stand, "alice", roles=["admin"])
        assert "keeps this session for its owner" in other.json["error"]["message"]


@pytest.mark.rule("RS-8", "SEC-8")
async def test_on_http_sse_a_narrow_token_never_travels_as_the_broad_one_of_the_same_person(scene: Scene) -> None:
    scene.lake.server = SseServer()
    async with scene.stand({**own(scene), "type": "sse"}) as stand:
        assert (await scene.call(stand, "alice")).status == 200
        narrow, broad = scene.as_("alice", scope="read"), scene.as_("alice", scope="write")
        for who in (narrow, broad):  # both tokens are at hand, so that nothing is between the two calls
            assert (await stand.ask(stand.request(calling("lake__echo"), who))).status == 200
        seen = len(scene.lake.mcp.requests)
        asked = [stand.ask(stand.request(calling(tool), who)) for tool, who in
                 (("lake__echo", narrow), ("lake__log", broad)) * 5]  # fmt: skip
        assert {reply.status for reply in await asyncio.gather(*asked)} == {200}
        calls = [each for each in scene.lake.mcp.requests[seen:] if b"tools/call" in each.body]
        shown: dict[str, set[str]] = {}
        for each in calls:
            shown.setdefault(each.message["params"]["name"], set()).add(each.headers["authorization"])
        assert [len(tokens) for tokens in shown.values()] == [1, 1]
        assert shown["echo"] != shown["log"]


@pytest.mark.rule("TOK-2", "SEC-8")
async def test_nothing_is_said_to_a_server_in_the_name_of_somebody_who_was_revoked(scene: Scene) -> None:
    scene.lake.server = LegacyServer(listens=True)
    scene.lake.direct = True
    async with scene.stand(scene.lake.config("assertion")) as stand:
        for name in ("alice", "bob"):
            assert (await scene.call(stand, name)).status == 200
        isolation = stand.house.upstreams._servers["lake"].ways.isolation
        assert len(list(isolation._all())) == 2
        before = len(scene.lake.log)
        stand.house.recogniser.revoke(scene.idp.issuer, "alice")
        assert [own.owner.principal for own in isolation._all() if "alice" in own.owner.principal] == []
        assert len(list(isolation._all())) == 1
        await until(lambda: not isolation._ending)
        assert not [each for each in scene.lake.log[before:] if each["sub"].endswith("#alice")]
        assert (await scene.call(stand, "bob")).status == 200
    assert not [each for each in scene.lake.log[before:] if each["sub"].endswith("#alice")]


async def test_tokens_of_callers_are_dropped_when_nobody_exchanges_them_any_more(scene: Scene) -> None:
    async with scene.stand(own(scene)) as stand:
        assert (await scene.call(stand, "alice")).status == 200
        assert len(stand.house.credentials.tokens) == 1
        await stand.reload(servers={"lake": scene.lake.config("exchange")})
        assert len(stand.house.credentials.tokens) == 0


def calling(tool: str) -> dict[str, Any]:
    return modern("tools/call", {"name": tool, "arguments": {}})


class Telltale(ModernServer):
    """Repeats the credential that it was shown."""

    def __init__(self, streams: bool) -> None:
        super().__init__()
        self.streams = streams

    async def call(self, request: Request, peer: Peer) -> None:
        message, said = request.message, request.headers["authorization"]
        result = result_of(message["id"], {"content": [{"type": "text", "text": said}], "resultType": "complete"})
        told = error_of(message["id"], -32000, said, {"why": said}) if message["params"]["name"] == "fail" else result
        if not self.streams:
            peer.json(told, 400 if "error" in told else 200)
            return
        peer.sse_head()
        peer.event(told)
        peer.chunk(b"")


class Redirecting(ModernServer):
    """Sends calls elsewhere."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target

    async def call(self, request: Request, peer: Peer) -> None:
        peer.body(b"", 307, more=f"location: {self.target}\r\n")

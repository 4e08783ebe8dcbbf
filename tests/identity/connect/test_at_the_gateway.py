"""A whole gateway with a server to which users connect: what leaves, what is shown, what is written down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from callgate.identity.connect import user_of
from callgate.identity.upstream.grants import EXCHANGE, ID_JAG, JWT_BEARER
from callgate.types import Principal
from tests.fuzz.raw import Reply
from tests.gateway.stand import Stand, allow, calling, keys
from tests.identity.signin.idp import Json, Lobby, OpenIdProvider, provider
from tests.servers.authority import Authority

pytestmark = pytest.mark.anyio


def stand(folder: Path, authority: Authority, **auth: Any) -> Stand:
    servers = {"notes": {"url": authority.url, "auth": {"type": "oauth", **auth}}}
    policy = {"version": 1, "rules": [allow("*/*")]}
    return Stand(folder, servers, identity={"keys": keys("alice", "bob")}, policy=policy)


async def call(at: Stand, who: str) -> Reply:
    return await at.call("notes__echo", who=who)


def holder(at: Stand, name: str) -> Principal:
    return next(who for who in at.house.recogniser._holders.values() if who.subject == name)


async def connect(at: Stand, authority: Authority, name: str) -> None:
    connections, who = at.house.connections, holder(at, name)
    started = await connections.begin(await connections.invite("notes", who), user_of(who))
    finished = await connections.finish(authority.browse(started.url), started.cookie)
    at.house.consents.given(finished.server, finished.user)


def everything(at: Stand, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> str:
    """What a reader of logs, records and the data directory could find."""
    files = [path.read_bytes().decode("latin-1") for path in (at.folder / "data").rglob("*") if path.is_file()]
    said = capsys.readouterr()
    return "\n".join([*files, caplog.text, said.out, said.err, json.dumps(at.rows())])


@pytest.mark.rule("SEC-7", "RS-8", "ELI-1")
@pytest.mark.key("servers.auth.type")
@pytest.mark.parametrize("dpop", [False, True])
async def test_the_server_sees_its_users_token_and_nobody_else_does(
    tmp_path: Path, dpop: bool, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    async with Authority(echo=True) as authority, stand(tmp_path, authority, dpop=dpop) as at:
        before = await call(at, "alice")
        assert b"oauth/connect/" in before.body and not authority.log
        await connect(at, authority, "alice")
        replies = [before, await call(at, "alice"), await call(at, "bob")]
        assert b"you sent ********" in replies[1].body, replies[1]
        assert b"oauth/connect/" in replies[2].body
        await at.records(3)
        shown = [entry["token"] for entry in authority.log if entry["method"] == "tools/call"]
        assert len(shown) == 1 and shown[0] in authority.minted
        found = everything(at, caplog, capsys) + "".join(str(reply) for reply in replies)
        secrets = [*authority.minted, authority.forms[-1]["code_verifier"], authority.forms[-1]["code"]]
        secrets += [each["client_secret"] for each in authority.registered.values()]
        assert len(secrets) == 5 and not [secret for secret in secrets if secret in found]
        for request in authority.mcp.requests:
            assert "the-key-of-" not in str(request)


@pytest.mark.rule("SEC-8")
async def test_a_grant_survives_a_restart_and_not_a_revocation(tmp_path: Path) -> None:
    async with Authority() as authority:
        async with stand(tmp_path, authority) as at:
            await connect(at, authority, "alice")
            assert b'"echo"' in (await call(at, "alice")).body
        async with stand(tmp_path, authority) as at:
            assert b'"echo"' in (await call(at, "alice")).body
            assert len(authority.asked) == 1
            at.house.recogniser.revoke("", "alice")
            await at.house.connections.aclose()
            assert [form["token_type_hint"] for form in authority.revoked] == ["refresh_token"]
            assert b"oauth/connect/" in (await call(at, "alice")).body
            said = [row["reason"] for row in await at.records(3)]
            assert "the user was revoked: the grant was dropped" in said


# enterprise


class Vouching(OpenIdProvider):
    """A provider that gives identity assertions for its ID tokens."""

    def _token(self, query: str, headers: Mapping[str, str], body: bytes) -> tuple[int, Json, str]:
        form = dict(parse_qsl(body.decode()))
        if form["grant_type"] != EXCHANGE:
            return super()._token(query, headers, body)
        self.posted.append((form, dict(headers)))
        return 200, {"access_token": "jag.of.alice", "issued_token_type": ID_JAG, "token_type": "N_A"}, ""


@pytest.mark.rule("SEC-7")
@pytest.mark.key("servers.auth.provider")
async def test_the_sign_in_of_a_person_opens_the_server_and_that_of_another_provider_does_not(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("IDP_SECRET", "s3cret: %+")
    caplog.set_level("DEBUG")
    async with Vouching() as idp, Vouching("mallory") as other, Authority() as authority:
        authority.grants[JWT_BEARER] = lambda form: {"who": form["assertion"]}
        at = Lobby(
            tmp_path,
            {"wiki": {"url": authority.url, "auth": {"type": "enterprise", "provider": "main", "client_id": "us"}}},
        )
        at.idp, at.other = idp, other
        jwt = [{"issuer": each.issuer, "audience": "callgate", "jwks_uri": each.jwks_uri} for each in (idp, other)]
        providers = {"main": provider(idp), "other": provider(other)}
        policy = {"version": 1, "rules": [allow("*/*")]}
        at.write(identity={"oauth": {}, "providers": providers, "jwt": jwt}, policy=policy)
        async with at:

            async def call_as(idp: OpenIdProvider) -> Reply:
                token = idp.token(idp.key, sub=idp.user)
                return await at.ask(at.request(calling("wiki__echo"), ("Authorization", f"Bearer {token}")))

            before = await call_as(idp)
            assert "sign-in at the identity provider" in before.json["error"]["message"] and not authority.forms
            await at.sign_in(provider="main")
            await at.sign_in(provider="other")
            assert "error" in (await call_as(other)).json  # another provider's people are not vouched for
            assert {form["grant_type"] for form, _ in idp.posted} == {"authorization_code"} and not authority.forms
            reply = await call_as(idp)
            assert reply.json["result"]["echo"]["name"] == "echo", reply
            (posted,) = [form for form, _ in idp.posted if form["grant_type"] == EXCHANGE]
            assert authority.forms[-1]["assertion"] == "jag.of.alice"
            found = everything(at, caplog, capsys) + str(reply) + str(authority.mcp.requests)
            assert posted["subject_token"] not in found and "jag.of.alice" not in found

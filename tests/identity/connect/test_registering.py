"""Which client callgate is at an issuer (OC-7 to OC-9)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from callgate.errors import CallgateError, UpstreamError
from tests.identity.connect.scene import ALICE, BOB, Scene, scene
from tests.servers.authority import Authority

pytestmark = pytest.mark.anyio
PUBLIC = "https://gate.example.org"


async def began(at: Scene) -> dict[str, str]:
    """The authorization request."""
    started = await at.connections.begin(await at.needs(), ALICE.key)
    at.authority.browse(started.url)
    return at.authority.asked[-1]


DOCUMENTS_ALONE: dict[str, Any] = {"client_id_metadata_document_supported": True, "registration_endpoint": None}


@pytest.mark.rule("OC-7")
@pytest.mark.parametrize(
    ("auth", "meta", "base", "client"),
    [
        ({"client_id": "known"}, {"client_id_metadata_document_supported": True}, PUBLIC, "known"),
        ({}, {"client_id_metadata_document_supported": True}, "http://127.0.0.1:8080", "client-"),
        ({}, DOCUMENTS_ALONE, "http://127.0.0.1:8080", "http://127.0.0.1:8080/oauth/client.json"),
        ({}, {"client_id_metadata_document_supported": True}, "https://localhost:8443", "https://localhost:8443/oauth/client.json"),
        ({}, {"client_id_metadata_document_supported": True}, PUBLIC, f"{PUBLIC}/oauth/client.json"),
        ({}, {"client_id_metadata_document_supported": True}, "http://10.0.0.1", "client-"),
        ({}, {"client_id_metadata_document_supported": "yes"}, PUBLIC, "client-"),
        ({}, {}, PUBLIC, "client-"),
    ],
)  # fmt: skip
async def test_known_clients_come_before_documents_before_registration(
    tmp_path: Path, auth: dict[str, Any], meta: dict[str, Any], base: str, client: str
) -> None:
    async with scene(tmp_path, Authority(meta=meta), base=base, **auth) as at:
        asked = await began(at)
        assert asked["client_id"].startswith(client)
        assert asked["redirect_uri"] == f"{base}/oauth/connect/callback"
        assert bool(at.authority.registered) == (client == "client-")


@pytest.mark.rule("OC-7")
async def test_where_there_is_no_way_the_user_is_told_what_to_do(tmp_path: Path) -> None:
    async with scene(tmp_path, Authority(meta={"registration_endpoint": None})) as at:
        with pytest.raises(UpstreamError, match="takes only clients that it knows") as found:
            await began(at)
        assert "auth.client_id" in found.value.hint


async def test_the_document_says_who_callgate_is(tmp_path: Path) -> None:
    async with scene(tmp_path, base=PUBLIC) as at:
        assert at.connections.document() == {
            "client_id": f"{PUBLIC}/oauth/client.json",
            "client_name": "callgate",
            "client_uri": PUBLIC,
            "redirect_uris": [f"{PUBLIC}/oauth/connect/callback"],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
            "application_type": "web",
        }


@pytest.mark.rule("OC-9")
@pytest.mark.parametrize(
    ("base", "kind"), [("http://127.0.0.1:1", "native"), ("http://localhost:1", "native"), (PUBLIC, "web")]
)
async def test_registration_says_what_kind_of_application_it_is(tmp_path: Path, base: str, kind: str) -> None:
    async with scene(tmp_path, base=base) as at:
        await began(at)
        (registered,) = at.authority.registered.values()
        assert registered["application_type"] == kind
        assert registered["redirect_uris"] == [f"{base}/oauth/connect/callback"]
        assert registered["grant_types"] == ["authorization_code", "refresh_token"]


@pytest.mark.rule("OC-9")
@pytest.mark.parametrize("code", ["invalid_redirect_uri", "invalid_client_metadata"])
async def test_a_refused_address_is_said_with_what_mends_it(tmp_path: Path, code: str) -> None:
    authority = Authority(registration=lambda wanted: (400, {"error": code, "error_description": "secret words"}))
    async with scene(tmp_path, authority) as at:
        with pytest.raises(UpstreamError, match="/oauth/connect/callback` as the address to come back to") as found:
            await began(at)
        assert "secret words" not in str(found.value) and "client_id" in found.value.hint


@pytest.mark.parametrize(
    ("status", "answer"),
    [(403, {"error": "no"}), (201, {}), (201, {"client_id": 5}), (201, {"client_id": ""}), (500, {"client_id": "x"})],
)
async def test_a_registration_that_fails_leads_nobody_anywhere(
    tmp_path: Path, status: int, answer: dict[str, Any]
) -> None:
    async with scene(tmp_path, Authority(registration=lambda wanted: (status, answer))) as at:
        with pytest.raises(UpstreamError, match="cannot register itself"):
            await began(at)


async def test_one_registration_is_for_all_users_and_outlives_the_process(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.connect()
        await at.connect(BOB)
        other = Scene(tmp_path, at.authority, at.clock)
        await other.connections.begin(await other.connections.ticket("notes", "carol", (), ()), "carol")
        assert len(at.authority.registered) == 1
        await other.aclose()


@pytest.mark.rule("OC-8")
async def test_another_issuer_gets_another_registration(tmp_path: Path) -> None:
    async with scene(tmp_path) as at, Authority() as second:
        await at.connect()
        (first,) = at.authority.registered
        assert (await at.call()).status == 200
        at.authority.revoke_all()
        at.authority.prm = {"authorization_servers": [second.issuer]}
        at.clock.now += 60
        ticket = await at.needs()  # the grant of the first issuer is not tried at the second, nor refreshed
        assert (await at.connections.describe(ticket)).issuer == second.issuer.removeprefix("http://")
        started = await at.connections.begin(ticket, ALICE.key)
        answer = second.browse(started.url)
        await at.connections.finish(answer, started.cookie)
        assert second.asked[0]["client_id"] in second.registered and first not in second.registered
        assert first not in str(second.forms) and [form["grant_type"] for form in at.authority.forms] == [
            "authorization_code"
        ]


@pytest.mark.rule("OC-8")
async def test_the_secret_of_one_issuer_is_not_shown_to_another(tmp_path: Path) -> None:
    async with scene(tmp_path) as at, Authority() as evil:
        at.authority.prm = {"authorization_servers": [evil.issuer]}
        at.credential = at.make(client_id="us", client_secret="env:SECRET", issuer=at.authority.issuer)
        with pytest.raises(CallgateError, match="another issuer than the one that is configured"):
            await began(at)
        assert not evil.idp.requests


@pytest.mark.key("servers.auth.client_id", "servers.auth.client_secret", "servers.auth.client_auth")
@pytest.mark.parametrize("way", ["client_secret_basic", "client_secret_post", "none"])
async def test_the_client_proves_itself_as_the_issuer_wants(tmp_path: Path, way: str) -> None:
    secret = "" if way == "none" else "s3cret"
    authority = Authority(meta={"token_endpoint_auth_methods_supported": [way]})
    async with scene(tmp_path, authority) as at:
        await at.connect()
        form = authority.forms[-1]
        assert ("basic" in form, "client_secret" in form) == (way == "client_secret_basic", way != "none")
        assert authority.registered[form["client_id"]]["token_endpoint_auth_method"] == way
        authority.registered["us"] = {"client_secret": secret}
        more = {"client_secret": "env:SECRET", "issuer": authority.issuer} if secret else {}
        at.credential = at.make(client_id="us", client_auth=way, **more)
        at.clock.now += 2
        await at.connect()
        form = authority.forms[-1]
        assert (form["client_id"], form.get("client_secret", "")) == ("us", secret)
        assert ("basic" in form) == (way == "client_secret_basic")


@pytest.mark.key("servers.auth.client_key", "servers.auth.lifetime")
async def test_a_client_may_sign_with_a_key_of_its_own(tmp_path: Path) -> None:
    from joserfc import jwt
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    async with scene(tmp_path) as at:
        at.authority.registered["us"] = {}
        for key in (
            ECKey.generate_key("P-256"),
            ECKey.generate_key("P-384"),
            RSAKey.generate_key(2048),
            OKPKey.generate_key("Ed25519"),
        ):
            at.secrets["file:key.pem"] = key.as_pem(private=True).decode()
            at.credential = at.make(
                client_id="us",
                client_auth="private_key_jwt",
                client_key="file:key.pem",
                issuer=at.authority.issuer,
                lifetime=33,
            )
            at.clock.now += 2
            await at.connections.disconnect(ALICE.key, "notes")
            await at.connect()
            form = at.authority.forms[-1]
            names = ["ES256", "ES384", "RS256", "EdDSA", "Ed25519"]
            claims = jwt.decode(form["client_assertion"], key, algorithms=names).claims
            assert (claims["iss"], claims["sub"], claims["aud"]) == ("us", "us", at.authority.issuer)
            assert claims["exp"] - claims["iat"] == 33 and "client_secret" not in form
        at.secrets["file:key.pem"] = key.as_pem(private=False).decode()
        await at.connections.disconnect(ALICE.key, "notes")
        with pytest.raises(CallgateError, match="no private key"):
            await at.connect()


async def test_a_client_that_an_issuer_has_forgotten_registers_again(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await at.connect()
        at.authority.token_error = "invalid_client"
        at.authority.revoke_all()
        at.clock.now += 60
        ticket = await at.needs()
        assert at.noted[-1] == ("ended", "notes", ALICE.key)
        at.authority.token_error = ""
        started = await at.connections.begin(ticket, ALICE.key)
        await at.connections.finish(at.authority.browse(started.url), started.cookie)
        assert len(at.authority.registered) == 2


async def test_a_secret_that_ends_is_not_used_afterwards(tmp_path: Path) -> None:
    ends: dict[str, Any] = {}

    def registration(wanted: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        id = f"c{len(ends)}"
        ends[id] = at.clock.now + 100
        return 201, {**wanted, "client_id": id, "client_secret": id, "client_secret_expires_at": ends[id]}

    async with scene(tmp_path, Authority(registration=registration)) as at:
        await at.connect()
        at.clock.now += 101
        await at.connect(BOB)
        assert [asked["client_id"] for asked in at.authority.asked] == ["c0", "c1"]
